"""Everything goes wrong at once: endpoints that break in every way, clients that vanish, reloads, taps, filters, tunnels.

    python -m tests.soak.chaos --seconds 60

Nobody is promised an answer here, except a right one: what a client gets complete is what its endpoint sent for exactly
this request, or a refusal with a reason. When all have gone, nothing may be left: no exchange, no connection, no
descriptor, no memory.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter

from tests.proxy.test_any_mixture import body_of, in_chunks, random_request
from tests.scenario.clients import RawClient, random_pieces
from tests.scenario.servers import PATIENCE_S, PeerGone, RawServer, response
from tests.scenario.wire import WireError

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


class Turmoil:
    """A proxy between unreliable servers and unreliable clients, all from one seed."""

    def __init__(self, seed: int, *, workers: int = 1, misbehave: float = 0.15):
        import meshcore

        self.seed, self.workers, self.misbehave = seed, workers, misbehave
        self.outcomes: Counter = Counter()
        self.wrong: list[str] = []
        self.servers = [RawServer(self._serve) for _ in range(3)]
        self.memory_bytes = 0
        self._version = 0
        self.proxy = meshcore.Proxy(self._configuration())
        self._filter()
        self.proxy.start()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _filter(self) -> None:
        @self.proxy.on_request(route="filtered")
        def sometimes(request):
            turn = hash(request.path) % 10
            if turn == 0:
                raise ValueError("now and then")
            request.headers["x-filtered"] = "1"

    def _configuration(self) -> dict:
        rng = random.Random(self.seed + self._version)
        chosen = rng.sample(self.servers, rng.choice([1, 2, 3]))
        extra = [{"name": f"x{self._version}-{n}", "match": {"path": f"/x/{n}"}, "respond": {"status": 200}} for n in range(rng.randrange(5))]
        return {
            "workers": self.workers,
            "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": [
                *extra,
                {"name": "filtered", "match": {"host": "filtered.test"}, "to": "all", "retries": {"max_attempts": 3}},
                {"name": "plain", "to": "all", "timeout": "500ms", "idle_timeout": "400ms", "total_timeout": rng.choice(["0", "2s"])},
            ],
            "clusters": [{
                "name": "all", "endpoints": [s.address for s in chosen], "max_connections": rng.choice([3, 1000]),
                "queue_timeout": "300ms", "balancer": rng.choice(["round_robin", "random", "least_request", "peak_ewma"]),
                "breaker": {"consecutive_failures": 5, "backoff": "20ms", "max_backoff": "50ms"},
            }],
            "limits": {"body_min_rate_grace": "500ms"},
            "timeouts": {"head": "500ms", "keep_alive": "1s", "linger": "100ms"},
        }

    # --- servers -------------------------------------------------------------------------------------------------------

    def _serve(self, connection) -> None:
        rng = random.Random(f"{self.seed}:{connection.server.port}:{connection.number}")
        while True:
            if rng.random() < self.misbehave / 3:
                connection.read_head()
                self._break(connection, rng, ["fin", "rst", "half", "hang", "garbage"])
                return
            request = connection.read_request()
            connection.server.requests.clear()
            if request.all("upgrade"):
                connection.switch(SWITCH)
                while data := connection.receive():
                    connection.send(data)
                return
            data = self._answer(request, rng)
            if rng.random() < self.misbehave:
                connection.send(data[: rng.randrange(len(data))])
                self._break(connection, rng, ["fin", "rst", "half", "hang"])
                return
            if rng.random() < self.misbehave / 3:
                connection.send(data + response(body=b"poison", headers={"X-Seen": "poison"}))
                self._stopping.wait(0.01)
                return
            for piece in random_pieces(data, rng, 20) if rng.random() < 0.5 else [data]:
                connection.send(piece)

    def _break(self, connection, rng: random.Random, kinds: list[str]) -> None:
        kind = rng.choice(kinds)
        if kind == "rst":
            connection.reset()
        elif kind == "half":
            connection.half_close()
            connection.wait_closed()
        elif kind == "hang":
            self._stopping.wait(rng.uniform(0, 0.8))
        elif kind == "garbage":
            connection.send(b"\0" + rng.randbytes(rng.randrange(1, 300)))
            self._stopping.wait(0.01)

    def _answer(self, request, rng: random.Random) -> bytes:
        framing, status, size, interim, _, _, seed = request.path[1:].split("/")
        body = body_of(int(seed), int(size))
        seen = hashlib.sha256(request.body).hexdigest()[:16]
        head = b"HTTP/1.1 103 Early Hints\r\n\r\n" * int(interim)
        head += f"HTTP/1.1 {status} Whatever\r\nX-Seen: {seen}-{request.body_bytes}\r\nX-For: {seed}\r\n".encode()
        bodiless = request.method == b"HEAD" or status in ("204", "304")
        if status == "204":
            return head + b"\r\n"
        if framing == "chunked":
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"" if bodiless else in_chunks(body, rng))
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + (b"" if bodiless else body)

    # --- clients -------------------------------------------------------------------------------------------------------

    def _visitor(self, number: int) -> None:
        rng = random.Random(f"{self.seed}:visitor:{number}")
        client = None
        while not self._stopping.is_set():
            if client is None or client.end or rng.random() < 0.02:
                if client is not None:
                    client.close()
                client = RawClient(self.proxy.addresses["web"])
            data, due = random_request(rng)
            if rng.random() < 0.3:
                data = data.replace(b"Host: a.test", b"Host: filtered.test", 1)
            if rng.random() < 0.1:
                self._vanish(client, data, rng)
                client = None
                continue
            client.reader.expect(due["method"])
            try:
                client.send_pieces(random_pieces(data, rng, 10) if rng.random() < 0.4 else [data])
                answer = client.read_response()
                self._judge(answer, due, number)
                if answer.get("connection") == "close" or answer.reason:
                    client.close()
                    client = None
            except (AssertionError, OSError) as error:
                if isinstance(error, TimeoutError):
                    self.wrong.append(f"visitor {number}: nothing for {PATIENCE_S} s, asked {due['path'].splitlines()[0]}")
                self.outcomes["cut"] += 1
                client.close()
                client = None
            except WireError as error:
                self.wrong.append(f"visitor {number}: {error} for {due['path'].splitlines()[0]}")
                client.close()
                client = None
        if client is not None:
            client.close()

    def _judge(self, answer, due: dict, number: int) -> None:
        if answer.reason:
            self.outcomes[answer.reason] += 1
            return
        self.outcomes["right"] += 1
        if (answer.status, bytes(answer.body), answer.get("x-seen")) != (due["status"], due["body"], due["seen"]):
            self.wrong.append(f"visitor {number}: {answer.first_line!r} {answer.body_bytes} octets {answer.get('x-seen')} "
                              f"for {due['path'].splitlines()[0]} {due['seen']}")

    def _vanish(self, client: RawClient, data: bytes, rng: random.Random) -> None:
        self.outcomes["vanished"] += 1
        try:
            client.send(data[: rng.randrange(len(data) + 1)])
            if rng.random() < 0.5:
                client.sock.settimeout(rng.uniform(0.0001, 0.01))
                client.sock.recv(rng.randrange(1, 10_000))
        except OSError:
            pass
        if rng.random() < 0.5:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def _tunneller(self, number: int) -> None:
        rng = random.Random(f"{self.seed}:tunnel:{number}")
        while not self._stopping.is_set():
            client = RawClient(self.proxy.addresses["web"])
            try:
                answer = client.get("/length/200/0/0/0/0/1", {"Connection": "Upgrade", "Upgrade": "echo"})
                if answer.status != 101:
                    continue
                for _ in range(rng.randrange(1, 10)):
                    data = rng.randbytes(rng.choice([1, 100, 70_000]))
                    sender = threading.Thread(target=client.send, args=(data,))
                    sender.start()
                    back = client.receive_tunnel(len(data))
                    sender.join()
                    if back != data[: len(back)]:
                        self.wrong.append(f"tunnel {number}: other octets came back")
                    self.outcomes["tunnelled"] += len(back)
            except (AssertionError, OSError, WireError):
                self.outcomes["tunnel cut"] += 1
            finally:
                client.close()

    def _reloader(self) -> None:
        while not self._stopping.wait(0.05):
            self._version += 1
            self.proxy.reload(self._configuration())
            with self.proxy.tap(max_rps=1000):
                self.proxy.stats()

    # --- the run -------------------------------------------------------------------------------------------------------

    def run(self, seconds: float, n_visitors: int = 8) -> None:
        for number in range(n_visitors):
            self._threads.append(threading.Thread(target=self._visitor, args=(number,), daemon=True))
        for number in range(2):
            self._threads.append(threading.Thread(target=self._tunneller, args=(number,), daemon=True))
        self._threads.append(threading.Thread(target=self._reloader, daemon=True))
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S * 2)
            if thread.is_alive():
                self.wrong.append(f"{thread.name} never ended")
        self._wait_for_rest()
        self.proxy.stop()
        for server in self.servers:
            server.stop()

    def _wait_for_rest(self) -> None:
        deadline = time.monotonic() + 5
        while True:
            stats = self.proxy.stats()
            left = {
                "connections": sum(w.connections for w in stats.workers),
                "buffers": sum(w.buffers_bytes for w in stats.workers),
                "in_flight": sum(w.in_flight for w in stats.workers),
                "cluster in flight": sum(c.in_flight for c in stats.clusters),
                "queued": sum(c.queue_len for c in stats.clusters),
                "active": sum(e.active for e in stats.endpoints),
            }
            if not any(left.values()):
                self.memory_bytes = sum(w.memory_bytes for w in stats.workers)
                return
            if time.monotonic() > deadline:
                self.wrong.append(f"left over: {left}")
                return
            time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--round", type=float, default=5, metavar="SECONDS", help="length of one life of the proxy")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    logging.getLogger("meshcore").setLevel(logging.CRITICAL)  # the filter's own exceptions are part of the turmoil
    started, seed, failed = time.monotonic(), chosen.seed, 0
    while time.monotonic() - started < chosen.seconds:
        turmoil = Turmoil(seed, workers=chosen.workers)
        turmoil.run(min(chosen.round, chosen.seconds))
        failed += bool(turmoil.wrong)
        rss = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")][0]
        print(f"seed {seed}: {dict(turmoil.outcomes)}; {len(os.listdir('/proc/self/fd'))} descriptors, "
              f"{rss} KiB, {turmoil.memory_bytes >> 10} KiB of the workers at rest", flush=True)
        for trouble in turmoil.wrong[:5]:
            print(f"  TROUBLE {trouble}")
        seed += 1
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
