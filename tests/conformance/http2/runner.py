"""Runs HTTP/2 cases against a proxy. Owns the proxy, its upstreams and what is measured; verdicts.py judges.

Nothing here waits for "nothing more comes": a sentinel follows each case on its connection, a good request on a new one.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from tests.conformance.backend import Backend
from tests.conformance.http2 import field_cases, flood_cases, flow_cases, frame_cases, hpack_cases, sibling_cases, upstream_cases
from tests.conformance.http2.talk import FEEDINGS, Steps, Talk
from tests.conformance.http2.upstream_cases import Upstream
from tests.conformance.http2.verdicts import Observation, troubles
from tests.scenario import h2_frames as h2
from tests.scenario import h2_proxies, proxies
from tests.scenario.h2_peers import H2Client, H2Server, H2ServerConnection
from tests.scenario.servers import PeerGone, eventually
from tests.scenario.wire import WireError

HERE = Path(__file__).parent
CATALOGUE: list[dict] = [case for name in ("http2.json", "more.json") for case in json.loads((HERE / name).read_text())["cases"]]
CASES = CATALOGUE + sibling_cases.CASES
STEPS: dict[str, Steps] = {**frame_cases.STEPS, **flow_cases.STEPS, **flood_cases.STEPS, **hpack_cases.STEPS, **field_cases.STEPS,
                           **sibling_cases.STEPS}

# Timeouts end these: they run on the proxy with short ones.
PACED = {"H2-PREFACE-SLOW", "H2-IDLE", "H2-SLOW-BLOCK", "H2-PING-KEEPALIVE", "H2-ZERO-WINDOW-STALL"}
# Megabytes, or paced by their own waiting: octet by octet would add hours and no new cut.
NOT_BYTEWISE = {case["id"] for case in CASES if case["cat"] == "floods"} | PACED | {
    "H2-UNKNOWN-FLOOD", "H2-WU-FLOOD", "H2-WINDOW-1", "H2-PAD-COUNTS", "H2-UP-CONT-FLOOD", "H2-UP-OVER-WINDOW", "H2-UP-PING-FLOOD",
    "H2-UP-1XX-FLOOD"}
# What is sent again meets a good upstream; in all other cases every attempt meets the same.
MEETS_ONCE = {case["id"] for case in CASES if case["expect"] == "retry"}
SENTINEL = 1_000_001

# A proxy that has not answered within this has decided to wait. Reached by failing cases only.
PATIENCE_S = 3.0


def feedings_of(case: dict) -> tuple[str, ...]:
    return tuple(f for f in FEEDINGS if f != "bytewise" or case["id"] not in NOT_BYTEWISE)


def is_split_same(case: dict) -> bool:
    """Whether the outcome may not depend on the cutting: where time or the race with the proxy's own end plays no part."""
    return case["id"] not in NOT_BYTEWISE and case["cat"] not in ("floods", "flow-control", "upstream") and not case["id"].startswith("H2-UP-")


class Memory:
    """How far the resident memory of some processes rose above where it was."""

    def __init__(self, pids: list[int]):
        self._pids = pids
        self._before = 0
        for pid in pids:
            self._before += self._kib(pid, "VmRSS:")
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the highest so far
            except OSError:
                pass

    def risen_bytes(self) -> int:
        return max(0, sum(self._kib(pid, "VmHWM:") for pid in self._pids) - self._before) << 10

    def _kib(self, pid: int, name: str) -> int:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


class Runner:
    """One proxy in front of one recording HTTP/1 backend and one scripted HTTP/2 upstream, reused for every case."""

    def __init__(self, seed: int):
        self.seed = seed
        self.ours = proxies.chosen_proxy() == "meshcore"
        self.upstream_http2 = h2_proxies.chosen_speaks_http2_upstream()
        self.backend = Backend()
        self.scripted = H2Server(self._serve, greets=False, name="upstream cases")
        self._pending: tuple[dict, str] | None = None
        self._taking = threading.Lock()
        self._begun_on: list[H2ServerConnection] = []
        # Faults of endpoints are the subject: without `consecutive_failures: 0` they would be ejected midway.
        keep = {"breaker": {"consecutive_failures": 0}, "queue_timeout": "300ms"} if self.ours else {}
        routes = [{"name": "all", "to": "backend"}]
        clusters = [{"name": "backend", "endpoints": [self.backend.address]}]
        listeners = [{"name": "web", "address": "127.0.0.1:0", "routes": ["all"]}]
        if self.upstream_http2:
            routes.append({"name": "scripted", "to": "scripted", **({"timeout": "2s", "total_timeout": "3s"} if self.ours else {})})
            clusters.append({"name": "scripted", "endpoints": [self.scripted.address], **h2_proxies.UPSTREAM_HTTP2, **keep})
            listeners.append({"name": "scripted", "address": "127.0.0.1:0", "routes": ["scripted"]})
        self._configuration = proxies.config(routes=routes, clusters=clusters, listeners=listeners,
                                             timeouts={"head": "10s", "keep_alive": "10s"})
        self.proxy = h2_proxies.start(self._configuration)
        self.short_proxy = h2_proxies.start(proxies.config(
            to=self.backend.address, route={"idle_timeout": "400ms"}, timeouts={"head": "400ms", "keep_alive": "300ms"},
            limits={"body_min_rate_grace": "300ms"}))

    def stop(self) -> None:
        for stoppable in (self.proxy, self.short_proxy, self.scripted, self.backend):
            stoppable.stop()

    def runs(self, case: dict) -> bool:
        return self.upstream_http2 or not case["id"].startswith("H2-UP-")

    def run(self, case: dict, feeding: str) -> Observation:
        seen = Observation(case, self.ours)
        proxy = self.short_proxy if case["id"] in PACED else self.proxy
        memory = Memory([os.getpid()] if self.ours else proxy.pids)
        try:
            if seen.upstream_side:
                self._run_upstream(case, feeding, seen)
            else:
                self._run_downstream(case, feeding, seen, proxy)
        except ConnectionRefusedError:
            pass
        seen.memory_bytes = memory.risen_bytes()
        if not self.ours and (self.proxy.died or seen.good_status is None):
            # Some peers end, or spin for ever, on some of this: the next case deserves a whole one.
            seen.died = self.proxy.died
            self.proxy.stop()
            self.proxy = h2_proxies.start(self._configuration)
        return seen

    # --- what a client does --------------------------------------------------------------------------------------------

    def _run_downstream(self, case: dict, feeding: str, seen: Observation, proxy) -> None:
        backend, address = self.backend, proxy.addresses["web"]
        backend.settle()
        for record in (backend.requests, backend.incomplete, backend.violations):
            record.clear()
        backend.most_in_flight = 0
        blame = self._blame(proxy)
        talk = Talk(address, feeding, f"{self.seed}:{case['id']}", PATIENCE_S)
        try:
            STEPS[case["id"]](talk)
            talk.finish(SENTINEL)
        except WireError as error:
            seen.client_trouble = str(error)
        except (TimeoutError, AssertionError) as error:
            seen.facts["gave up"] = str(error)
        finally:
            self._note_client(talk.client, seen)
            seen.facts.update(talk.facts)
            seen.ignored_streams = talk.ignored_streams
            seen.http1_answer = talk.http1_answer
            talk.close()
        seen.good_status = self._good_request(address)
        backend.unstick()
        try:
            # A request whose client is gone must be given up, and soon: the upstream must not work for nobody.
            eventually(lambda: (backend.settle(), not backend.in_flight and not backend.open_messages())[1], 5)
        except AssertionError:
            seen.left_in_flight = backend.in_flight + len(backend.open_messages())
        seen.upstream = [m for m in backend.requests if m.path not in ("/sentinel", "/good")]
        seen.upstream_incomplete = list(backend.incomplete)
        seen.violations = list(backend.violations)
        seen.most_in_flight = backend.most_in_flight
        seen.endpoint_blame = self._blame(proxy) - blame

    def _note_client(self, client: H2Client, seen: Observation) -> None:
        reader = client.reader
        seen.goaway, seen.end = reader.goaway, client.end
        seen.streams, seen.frames, seen.sentinel = reader.streams, client.seen, SENTINEL
        seen.offers_websocket = reader.settings.get(h2.ENABLE_CONNECT_PROTOCOL) == 1
        seen.stream_limit = reader.settings.get(h2.MAX_CONCURRENT_STREAMS)

    def _good_request(self, address: tuple[str, int]) -> int | None:
        try:
            client = H2Client(address)
        except OSError:
            return None
        try:
            client.patience_s = PATIENCE_S
            message = client.get("/good")
            return message.status if message.all("x-seen") else -message.status
        except (AssertionError, WireError, OSError):
            return None
        finally:
            client.close()

    def _blame(self, proxy) -> int:
        """Failures and ejections of every endpoint, where the proxy tells."""
        if not self.ours:
            return 0
        return sum(e["failures"] + e["ejections"] for c in proxies.raw_stats(proxy)["clusters"] for e in c["endpoints"])

    # --- what an upstream does -----------------------------------------------------------------------------------------

    def _serve(self, connection: H2ServerConnection) -> None:
        with self._taking:
            pending = self._pending
            if pending is not None and pending[0]["id"] in MEETS_ONCE:
                self._pending = None
        if pending is None:
            up = Upstream(connection, "one-shot", "")
            up.greet()
            up.answer_rest()
        else:
            self._begun_on.append(connection)
            try:
                upstream_cases.SCRIPTS[pending[0]["id"]](Upstream(connection, pending[1], f"{self.seed}:{pending[0]['id']}"))
            except PeerGone:
                connection.read_to_end(1)  # it may have said why before it closed

    def _run_upstream(self, case: dict, feeding: str, seen: Observation) -> None:
        server, case_id, address = self.scripted, case["id"], self.proxy.addresses["scripted"]
        self._close_upstream()
        server.requests.clear()
        server.trouble.clear()
        self._begun_on.clear()
        connections_before = server.accepted
        self._pending = (case, feeding)
        client = H2Client(address)
        client.patience_s = 6.0
        client.opens_windows = case_id not in upstream_cases.CLIENT_READS_NOTHING
        try:
            body = upstream_cases.BODIES.get(case_id)
            stream = client.request(upstream_cases.METHODS.get(case_id, "GET"), "/case", body=body)
            client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended)
            if case["expect"].startswith("GOAWAY"):
                eventually(lambda: any(c.reader.goaway or c.end for c in self._begun_on), 2)
        except WireError as error:
            seen.client_trouble = str(error)
        except (TimeoutError, AssertionError) as error:
            seen.facts["gave up"] = str(error)
        finally:
            self._note_client(client, seen)
            client.close()
        self._pending = None
        seen.upstream = [m for m in server.requests if m.path == "/case"]
        seen.attempts = max(len(seen.upstream), server.accepted - connections_before if seen.upstream else 0)
        seen.upstream_errors = [c.reader.goaway.error for c in self._begun_on if c.reader.goaway is not None and c.reader.goaway.error]
        if case_id == "H2-UP-MAXSTREAMS-0":
            self._close_upstream()  # it told the truth: nothing can be asked of this connection
        seen.good_status = self._good_request(address)
        self._close_upstream()
        # Only what breaks the grammar is the proxy's fault here: that it hangs up on an odd upstream is no trouble.
        seen.violations = [line for line in server.trouble if "ended" not in line and "nothing came" not in line]

    def _close_upstream(self) -> None:
        """End every connection to the scripted upstream, and wait until the proxy has seen it."""
        for connection in self.scripted.connections:
            if not connection.closed:
                try:
                    connection.half_close()
                except OSError:
                    pass
        try:
            eventually(lambda: all(c.closed for c in self.scripted.connections), 3)
        except AssertionError:
            for connection in self.scripted.connections:
                if not connection.closed:
                    connection.reset()


__all__ = ["CASES", "FEEDINGS", "Observation", "Runner", "STEPS", "feedings_of", "troubles"]
