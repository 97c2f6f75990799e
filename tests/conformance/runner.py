"""Runs conformance cases against a proxy and judges them. Owns the feeding and the invariants; rules.py the single claims.

Nothing here waits for "nothing more comes": after the first final response a sentinel request follows on the same
connection, so that everything before its answer belongs to the case; and the backend settles before it is asked.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import rules
from tests.conformance.claims import broken_claims
from tests.conformance.backend import Backend
from tests.scenario import clients, proxies
from tests.scenario.clients import RawClient
from tests.scenario.servers import PeerGone, RawServer, eventually, response
from tests.scenario.wire import Message, WireError

HERE = Path(__file__).parent
CATALOGUE: list[dict] = json.loads((HERE / "http1.json").read_text())["cases"]
SIBLINGS: list[dict] = json.loads((HERE / "http1_more.json").read_text())["cases"]
CASES = CATALOGUE + SIBLINGS
FEEDINGS = ("one-shot", "bytewise", "random")
FORWARDED = {"forward", "normalize", "drop"}

# A proxy that has not answered within this has decided to wait. Reached by failing cases only.
PATIENCE_S = 3.0


def raw_bytes(case: dict) -> bytes:
    if "raw_parts" in case:
        return b"".join(text.encode("latin-1") * repeat for text, repeat in case["raw_parts"])
    return case["raw"].encode("latin-1")


def pieces(case: dict, feeding: str, seed: int) -> list[bytes]:
    data = raw_bytes(case)
    if feeding == "bytewise":
        return clients.every_byte(data)
    if feeding == "random":
        return clients.random_pieces(data, random.Random(f"{seed}:{case['id']}"))
    return [data]


def is_paced(case: dict) -> bool:
    """Cases that end by a timeout, or may: they run on the proxy with short ones."""
    return "pace" in case or "wait" in case.get("also_ok", ())


@dataclass
class Observation:
    """All that one run of one case made visible."""

    case: dict
    ours: bool
    replaces_forwarded_for: bool = False
    responses: list[Message] = field(default_factory=list)
    sentinel: bool = False
    end: str | None = None
    partial: Message | None = None
    client_trouble: str | None = None
    upstream: list[Message] = field(default_factory=list)
    upstream_incomplete: list[Message | None] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    good_status: int | None = None
    tap_lines: list[str] = field(default_factory=list)
    endpoint_blame: int = 0
    uncounted: int = 0
    case_connection: int | None = None
    next_connection: int | None = None
    tunnel: bytes = b""

    @property
    def statuses(self) -> list[int]:
        return [message.status for message in self.responses]

    @property
    def label(self) -> str:
        """The outcome in the catalogue's words."""
        if self.responses:
            return self._label_of(self.responses[0])
        if self.case.get("when") == "idle" and self.partial is None:
            return "discard"
        if self.partial is not None and self.end:
            return "abort"
        return "close" if self.end else "wait"

    def _label_of(self, message: Message) -> str:
        if self.case["side"] == "response":
            return "502" if message.status == 502 else "504" if message.status == 504 else "forward"
        return "forward" if message.all("x-seen") else str(message.status)

    @property
    def allowed(self) -> set[str]:
        return {self.case["expect"], *self.case.get("also_ok", ())}

    @property
    def is_allowed(self) -> bool:
        label, allowed = self.label, self.allowed
        if label in allowed:
            return True
        if label == "forward":
            return bool(FORWARDED & allowed) or (self.case["expect"] == "close" and self.end is not None and "pace" in self.case)
        if label == "abort":
            return "close" in allowed and self.case["side"] == "request"
        return "reject" in allowed and (label == "close" or label[0] in "45")

    @property
    def is_lenient(self) -> bool:
        """Something reached the other side that must not."""
        return (self.label == "forward" and not self.is_allowed) or bool(self.violations)

    def signature(self) -> tuple:
        """What must be the same in every segmentation."""
        seen = [(m.method, m.target, bytes(m.body)) for m in self.upstream]
        return self.label, tuple(self.statuses), tuple(seen)


def troubles(seen: Observation) -> list[str]:
    """Everything wrong with an observation; empty for a pass."""
    case = seen.case
    found = []
    if not seen.is_allowed:
        found.append(f"outcome {seen.label}, allowed {sorted(seen.allowed)}")
    if seen.client_trouble:
        found.append(f"to the client: {seen.client_trouble}")
    found += [f"to the upstream: {violation}" for violation in seen.violations]
    if seen.good_status != 200:
        found.append(f"a good request afterwards was answered {seen.good_status}")
    if seen.endpoint_blame:
        found.append(f"{seen.endpoint_blame} failures were blamed on the endpoint")
    claims = list(rules.CLAIMS.get(case["id"], ()))
    if case["side"] == "request":
        claims.append(rules.smuggled_request_is_not_seen)
        found += _request_troubles(seen)
    found += [f"{c.__name__}: {wrong}" for c in claims if (wrong := c(seen))]
    return found + broken_claims(seen, rules.first(seen) if case["side"] == "request" else None)


def _request_troubles(seen: Observation) -> list[str]:
    case, found = seen.case, []
    answered = sum(1 for message in seen.responses if message.all("x-seen"))
    if answered != len(seen.upstream) and case.get("pace") != "slow-read":
        found.append(f"{len(seen.upstream)} complete requests upstream, {answered} responses of it to the client")
    refused = [m for m in seen.responses if not m.all("x-seen") and m.status in (400, 408, 413, 414, 417, 431, 501, 505)]
    if seen.uncounted:
        found.append(f"the backend saw {seen.uncounted} requests more than the proxy counted")
    if refused and not (seen.end == "fin" or ("raw_parts" in case and seen.end)):
        found.append(f"after {refused[-1].status} the connection ended with {seen.end}, not gently")
    if refused and seen.responses[-1] is not refused[0]:
        found.append("something was answered after a refusal")
    if case.get("close") and seen.end != "fin":
        found.append(f"the connection was to be closed, it ended with {seen.end}")
    due = case.get("responses")
    if due == "200,400":
        if seen.statuses != [200, 400]:
            found.append(f"responses {seen.statuses}, due 200 then 400")
    elif isinstance(due, int) and seen.label == "forward" and len(seen.responses) != due:
        found.append(f"{len(seen.responses)} responses, due {due}")
    return found


@dataclass
class Score:
    """How many runs passed, how many let something through that must not pass."""

    passed: int = 0
    total: int = 0
    lenient: int = 0

    def add(self, seen: Observation, found: list[str]) -> None:
        self.total += 1
        self.passed += not found
        self.lenient += seen.is_lenient

    def __str__(self) -> str:
        return f"{self.passed}/{self.total}, {self.lenient} lenient"


class Runner:
    """One proxy in front of one recording backend and one scripted upstream, reused for every case."""

    def __init__(self, seed: int):
        self.seed = seed
        self.ours = proxies.chosen_proxy() == "meshcore"
        self.backend = Backend()
        self.answerer = RawServer(self._answer, name="response cases")
        self._next_answer: tuple[dict, list[bytes]] | None = None
        self._answered_on: list[int] = []
        self._all_sent = threading.Event()
        routes = [
            {"name": "all", "to": "backend"},
            # Idle and pooled connections must outlive the pace cases' timeouts only where those are the subject.
            {"name": "answers", "to": "answers", **({"connect": True} if self.ours else {})},
        ]
        # Response cases are the endpoint's own faults: without `consecutive_failures: 0` it would be ejected midway.
        keep = {"breaker": {"consecutive_failures": 0}}
        clusters = [
            {"name": "backend", "endpoints": [self.backend.address]},
            {"name": "answers", "endpoints": [self.answerer.address], **(keep if self.ours else {})},
        ]
        listeners = [
            # This catalogue is about a listener of HTTP/1 alone: another tells the preface of HTTP/2 from a request.
            {"name": "web", "address": "127.0.0.1:0", "routes": ["all"], **({"http2": False} if self.ours else {})},
            {"name": "answers", "address": "127.0.0.1:0", "routes": ["answers"]},
        ]
        self.proxy = proxies.start(proxies.config(routes=routes, clusters=clusters, listeners=listeners,
                                                  timeouts={"head": "10s", "keep_alive": "10s"}))
        self.short_proxy = proxies.start(proxies.config(
            to=self.backend.address,
            route={"idle_timeout": "400ms"},
            timeouts={"head": "400ms", "keep_alive": "300ms"},
            limits={"body_min_rate_grace": "300ms"},
        ))

    def stop(self) -> None:
        for stoppable in (self.proxy, self.short_proxy, self.answerer, self.backend):
            stoppable.stop()

    def run(self, case: dict, feeding: str) -> Observation:
        if case["side"] == "response":
            return self._run_response(case, feeding)
        return self._run_request(case, feeding)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _run_request(self, case: dict, feeding: str) -> Observation:
        proxy = self.short_proxy if is_paced(case) else self.proxy
        seen = Observation(case, self.ours)
        self.backend.settle()
        for record in (self.backend.requests, self.backend.incomplete, self.backend.violations):
            record.clear()
        blame, counted = self._blame(proxy), self._counted(proxy)
        slow = case.get("pace") == "slow-read"
        client = RawClient(proxy.addresses["web"], receive_buffer=2304 if slow else 0)
        try:
            client.sock.settimeout(PATIENCE_S)
            self._talk(case, feeding, client, seen)
        except WireError as error:
            seen.client_trouble = str(error)
        except TimeoutError:
            pass
        finally:
            seen.partial, seen.end = client.reader.partial, client.end
            client.close()
        seen.good_status = self._good_request(proxy.addresses["web"])
        self.backend.settle()
        try:
            # A request that was given up must be seen to be given up, and soon: the upstream must not wait for its rest.
            eventually(lambda: not self.backend.open_messages(), 5)
        except AssertionError:
            seen.violations.append("a request was left open on the upstream connection")
        self.backend.settle()
        sentinels = (b"/sentinel", b"/good")
        seen.upstream = [m for m in self.backend.requests if m.target not in sentinels]
        seen.upstream_incomplete = list(self.backend.incomplete)
        seen.violations += self.backend.violations
        seen.endpoint_blame = self._blame(proxy) - blame
        if self.ours:
            reached = len(self.backend.requests) + sum(1 for m in seen.upstream_incomplete if m is not None)
            try:
                # An exchange is counted when it has ended, a moment after its last octet was sent.
                eventually(lambda: self._counted(proxy) - counted == reached, 1)
            except AssertionError:
                seen.uncounted = reached - (self._counted(proxy) - counted)
        return seen

    def _talk(self, case: dict, feeding: str, client: RawClient, seen: Observation) -> None:
        client.reader.expect(raw_bytes(case).split(b" ", 1)[0] if raw_bytes(case).startswith((b"HEAD ", b"CONNECT ")) else b"GET")
        if case.get("pace") == "0.25s/byte":
            self._trickle(case, client)
        else:
            client.send_pieces(pieces(case, feeding, self.seed))
        if case.get("half_close") and not client.refused:
            try:
                client.half_close()
            except OSError:
                client.refused = True
        if case.get("pace") == "slow-read":
            self._read_slowly(client)
        if not self._read_final(client, seen):
            return
        if case.get("half_close") or case.get("pace") or _announces_close(seen.responses[-1]) or seen.responses[-1].version == b"1.0":
            while self._read_final(client, seen):
                pass
            return
        client.send(b"GET /sentinel HTTP/1.1\r\nHost: a.test\r\n\r\n")
        while self._read_final(client, seen):
            if "GET /sentinel" in seen.responses[-1].all("x-seen"):
                seen.responses.pop()
                seen.sentinel = True
                return

    def _read_final(self, client: RawClient, seen: Observation) -> bool:
        while True:
            message = client.read_message()
            if message is None:
                return False
            if message.status >= 200 or message.status == 101:
                seen.responses.append(message)
                return True

    def _trickle(self, case: dict, client: RawClient) -> None:
        """One octet every 50 ms (the catalogue's 250 with timeouts five times shorter) until refused or answered."""
        client.sock.settimeout(0.05)
        for octet in raw_bytes(case)[:60]:
            client.send(bytes([octet]))
            try:
                if client.receive() or client.end:
                    break
            except TimeoutError:
                continue
        client.sock.settimeout(PATIENCE_S)

    def _read_slowly(self, client: RawClient) -> None:
        """An octet now and then for three timeouts' length; what comes after is read fast and must be the cut end."""
        for _ in range(24):
            client.receive(1)
            time.sleep(0.05)

    def _good_request(self, address: tuple[str, int]) -> int | None:
        client = RawClient(address)
        try:
            client.sock.settimeout(PATIENCE_S)
            message = client.get("/good")
            return message.status if message.all("x-seen") == ["GET /good"] else -message.status
        except (AssertionError, WireError, OSError):
            return None
        finally:
            client.close()

    def _counted(self, proxy) -> int:
        """Requests sent to the recording backend, where the proxy tells."""
        return proxies.raw_stats(proxy)["clusters"][0]["requests"] if self.ours else 0

    def _blame(self, proxy) -> int:
        """Failures and ejections of every endpoint, where the proxy tells."""
        if not self.ours:
            return 0
        return sum(e["failures"] + e["ejections"] for c in proxies.raw_stats(proxy)["clusters"] for e in c["endpoints"])

    # --- responses ---------------------------------------------------------------------------------------------------

    def _answer(self, connection) -> None:
        """The scripted upstream: the case's octets when one is set, else a good response naming the connection."""
        good = lambda: response(body=b"good", headers={"X-Connection": str(connection.number)})  # noqa: E731
        while True:
            # The head alone first: on a pooled connection the case is only known once its request has begun.
            connection.read_head()
            if self._next_answer is None or self._next_answer[0].get("when") != "before-body":
                connection.read_request()
            if self._next_answer is None:
                connection.send(good())
                continue
            (case, parts), self._next_answer = self._next_answer, None
            self._answered_on.append(connection.number)
            if case.get("when") == "idle":
                connection.send(good())
            try:
                for part in parts:
                    connection.send(part)
                    time.sleep(clients.PIECE_GAP_S)
            except PeerGone:
                return
            finally:
                self._all_sent.set()
            if case.get("fin"):
                return
            if case.get("rst"):
                # Only after the octets have been read does a reset mean what the case says.
                time.sleep(0.02)
                connection.reset()
                return
            if case["expect"] == "abort" or case.get("when") == "before-body" or case.get("request") == "CONNECT":
                connection.wait_closed()
                return

    def _run_response(self, case: dict, feeding: str) -> Observation:
        seen = Observation(case, self.ours)
        self.answerer.trouble.clear()
        self._answered_on.clear()
        self._all_sent.clear()
        self._next_answer = (case, pieces(case, feeding, self.seed))
        client = RawClient(self.proxy.addresses["answers"])
        try:
            client.sock.settimeout(PATIENCE_S)
            self._ask(case, client, seen)
        except WireError as error:
            seen.client_trouble = str(error)
        except TimeoutError:
            pass
        finally:
            seen.partial, seen.end = client.reader.partial, client.end
            client.close()
        self._next_answer = None
        if self._answered_on:
            # Surplus octets must be on the wire before the next request, or no proxy could know of them.
            self._all_sent.wait(5)
            time.sleep(0.005)
        seen.case_connection = self._answered_on[0] if self._answered_on else None
        if len(self._answered_on) > 1:
            seen.violations.append("asked again after response bytes had come")
        if case.get("when") == "idle":
            # The unasked octets are on the pooled connection now; a proxy that watches it closes it.
            try:
                eventually(lambda: self.answerer.connections[seen.case_connection].sock.fileno() < 0, 1)
            except AssertionError:
                pass
        self._ask_again(seen)
        seen.violations += self.answerer.trouble
        self.answerer.trouble.clear()
        return seen

    def _ask(self, case: dict, client: RawClient, seen: Observation) -> None:
        if case.get("request") == "CONNECT":
            client.request("CONNECT", "a.test:443", host="a.test:443")
        elif case.get("when") == "before-body":
            client.reader.expect("POST")
            client.send(b"POST /case HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n")
        else:
            client.request("GET", "/case")
        if not self._read_final(client, seen):
            return
        if case.get("request") == "CONNECT" and client.reader.tunnel is not None:
            seen.tunnel = client.receive_tunnel(5)
        elif case.get("when") == "before-body":
            # The rest of the body, then another request: it must not be taken for one on the old connection.
            client.send(b"0123456789GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
            while self._read_final(client, seen):
                break
        elif case.get("when") == "idle":
            good = seen.responses.pop()
            seen.client_trouble = None if good.text == "good" else f"the response before was {good.text!r}"

    def _ask_again(self, seen: Observation) -> None:
        client = RawClient(self.proxy.addresses["answers"])
        try:
            client.sock.settimeout(PATIENCE_S)
            message = client.get("/next")
            number = message.get("x-connection")
            seen.next_connection = int(number) if number is not None else None
            seen.good_status = message.status if message.text == "good" else -message.status
        except (AssertionError, WireError, OSError):
            seen.good_status = None
        finally:
            client.close()


def _announces_close(message: Message) -> bool:
    return any("close" in value.lower() for value in message.all("connection"))
