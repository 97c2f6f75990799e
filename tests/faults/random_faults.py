"""Misbehaviour on both sides at once, at random: clients, endpoints, reloads, filters, taps. Afterwards nothing may be left.

    python -m tests.faults.random_faults --seconds 60 --seed 7

Owns the clients, the proxy and the claims that hold: whatever a proxy sends reads strictly; an answer belongs to its request; a
body that looks complete is; nobody waits for ever; at the end every gauge of the proxy is zero. A seed fixes what peers
intend, not how threads interleave.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import logging
import random
import socket
import sys
import threading
import time

import meshcore
from tests.faults.random_endpoints import PATIENCE_S, Chaos, Endpoint, body_of
from tests.faults.random_stream_endpoints import StreamAnswerer
from tests.faults.random_streams import StreamClient
from tests.scenario.servers import reset
from tests.scenario.wire import Reader, WireError

N_ENDPOINTS = 6


# --- clients --------------------------------------------------------------------------------------------------------------

class Client:
    """One connection after another, each with a few requests and a way to spoil them."""

    def __init__(self, chaos: Chaos, index: int, addresses):
        self.chaos, self.index, self.addresses = chaos, index, addresses
        self.was_refused = False

    def run(self) -> None:
        turn = 0
        while not self.chaos.stop.is_set():
            turn += 1
            rng = self.chaos.rng("client", self.index, turn)
            try:
                self._connection(rng)
            except TimeoutError:
                self.chaos.trouble(f"client {self.index}, connection {turn}: waited {PATIENCE_S} s in vain")
            except WireError as error:
                self.chaos.trouble(f"client {self.index}, connection {turn}: {error}")
            except OSError:
                self.chaos.note("connection lost")
            except Exception as error:
                self.chaos.trouble(f"client {self.index}, connection {turn}: {error!r}")

    def _connection(self, rng: random.Random) -> None:
        ports = [port for _, port in list(self.addresses().values())]
        with socket.socket() as sock:
            sock.settimeout(PATIENCE_S)
            if rng.random() < 0.2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.was_refused = False
            sock.connect(("127.0.0.1", rng.choice(ports)))
            reader = Reader("response")
            for _ in range(rng.randint(1, 6)):
                if not self._round(rng, sock, reader):
                    return

    def _round(self, rng: random.Random, sock: socket.socket, reader: Reader) -> bool:
        if rng.random() < 0.04:
            return self._tunnel(rng, sock, reader)
        numbers, data, hold = [], b"", b""
        for _ in range(rng.choice((1, 1, 1, 1, 3, 8))):
            number = self.chaos.number()
            numbers.append(number)
            data += self._request(rng, number, reader)
        if rng.random() < 0.03:
            data += rng.choice((b"\0\1\2", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"GET"))
            hold = b"!"
        spoil = rng.random()
        if spoil < 0.08:
            data = data[: rng.randrange(len(data) + 1)]
        self._send(rng, sock, data)
        if spoil < 0.03:
            reset(sock)
            return False
        if spoil < 0.06:
            return False
        if spoil < 0.10:
            sock.shutdown(socket.SHUT_WR)
        if 0.10 <= spoil < 0.14:
            time.sleep(rng.choice((0.01, 0.1)))
            reset(sock)
            return False
        for number in numbers:
            if not self._response(rng, sock, reader, number):
                return False
        return spoil > 0.10 and not hold

    def _request(self, rng: random.Random, number: int, reader: Reader) -> bytes:
        method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE"))
        reader.expect(method)
        path = rng.choice(("/plain", "/plain", "/few", "/filtered", "/both", "/direct", "/slowless", "/nothing", "/streams", "/narrows", "/mixed"))
        lines = [f"{method} {path}/{number} HTTP/{rng.choice(('1.1',) * 9 + ('1.0',))}", "Host: a.test", f"X-Number: {number}"]
        version_0 = lines[0].endswith("1.0")
        body = b""
        if method in ("POST", "PUT"):
            size = rng.choice((0, 1, 100, 3000, 20_000, 100_000, 300_000))
            body = body_of(number, size)
            lines.append(f"X-Size: {size}")
            if rng.random() < 0.1 and not version_0:
                lines.append("Expect: 100-continue")
            if rng.random() < 0.5 and not version_0:
                lines.append("Transfer-Encoding: chunked")
                parts, at = [], 0
                while at < size:
                    n = rng.choice((1, 300, 20_000, 200_000))
                    parts.append(b"%x\r\n%s\r\n" % (len(body[at : at + n]), body[at : at + n]))
                    at += n
                body = b"".join(parts) + b"0\r\n" + rng.choice((b"\r\n", b"X-Trailer: 1\r\n\r\n"))
            else:
                lines.append(f"Content-Length: {size}")
        if rng.random() < 0.05:
            lines.append("X-Padding: " + "p" * rng.choice((1000, 10_000)))
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _send(self, rng: random.Random, sock: socket.socket, data: bytes) -> None:
        style = rng.random()
        try:
            if style < 0.5 or len(data) < 2:
                sock.sendall(data)
                return
            cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 12)))
            for start, end in zip([0, *cuts], [*cuts, len(data)]):
                sock.sendall(data[start:end])
                if style > 0.8:
                    time.sleep(rng.choice((0, 0.001, 0.01)))
        except (BrokenPipeError, ConnectionResetError):
            self.chaos.note("refused to read on")
            self.was_refused = True

    def _response(self, rng: random.Random, sock: socket.socket, reader: Reader, number: int) -> bool:
        while True:
            while not reader.messages:
                if rng.random() < 0.02:
                    time.sleep(0.01)
                try:
                    data = sock.recv(rng.choice((100, 4000, 65536)))
                except ConnectionResetError:
                    self.chaos.note("reset")
                    return False
                if not data:
                    reader.feed_end()
                    if not reader.messages:
                        self.chaos.note("cut" if reader.partial else "closed")
                        return False
                else:
                    reader.feed(data)
            message = reader.messages.popleft()
            if message.status >= 200:
                break
        self.chaos.note(f"{message.status} {message.reason or ''}")
        if message.reason is None and message.status != 408:     # an endpoint may give up before it is asked
            answered = message.get("x-number")
            if answered != str(number):
                raise WireError(f"answer to request {answered} came for {number}")
            size = message.get("x-size")
            if size is not None and message.body and message.body != body_of(number, int(size)):
                # An endpoint that ends a body by closing may have been cut itself: nothing tells. And the reset that
                # tells a 1.0 client so is told once: to a send, if one came first.
                # An endpoint may say "stray" in the midst of its own answer, and end it so: that is its answer then.
                unknowable = message.get("x-ends") or (message.framing == "close" and self.was_refused) or b"stray" in message.body
                if not unknowable or not body_of(number, int(size)).startswith(message.body.replace(b"stray", b"")):
                    raise WireError(f"answer to {number} has a foreign body: {message.body[:40]!r}, {len(message.body)} of {size}, {message.framing} {message.fields}")
        return message.get("connection") != "close" and message.framing != "close"

    def _tunnel(self, rng: random.Random, sock: socket.socket, reader: Reader) -> bool:
        number = self.chaos.number()
        reader.expect("GET")
        data = b"x" * rng.choice((0, 10, 100_000))
        head = f"GET /{rng.choice(('plain', 'both', 'streams'))}/ HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Number: {number}\r\n\r\n"
        sock.sendall(head.encode() + data)
        if not data and not self._switched(sock, reader):
            return False
        way = rng.random()
        if way < 0.25:
            reset(sock)
            return False
        if way < 0.5:
            sock.shutdown(socket.SHUT_WR)
            if rng.random() < 0.3:
                time.sleep(0.01)
                reset(sock)
                return False
        for _ in range(rng.randint(0, 50)):
            try:
                if not sock.recv(10_000):
                    break
            except ConnectionResetError:
                break
        return False

    def _switched(self, sock: socket.socket, reader: Reader) -> bool:
        while not reader.messages:
            data = sock.recv(65536)
            if not data:
                return False
            reader.feed(data)
        return reader.messages.popleft().status == 101


# --- the proxy and what happens to it ---------------------------------------------------------------------------------------

def configuration(rng: random.Random, endpoints: list[Endpoint], ports: list[int]) -> dict:
    """Everything short and small, so that every limit is met. The second half of the endpoints speaks HTTP/2."""
    plain, streaming = endpoints[: len(endpoints) // 2], endpoints[len(endpoints) // 2 :]

    def some(at_least: int, among: list[Endpoint] = plain) -> list[str]:
        return [e.address for e in rng.sample(among, rng.randint(at_least, len(among)))]

    short = {"timeout": "300ms", "idle_timeout": "300ms", "tunnel_idle_timeout": "300ms"}
    retries = {"max_attempts": 3, "on": ["connect_failure", "reset", "502", "503", "504"]}
    routes = [
        {"name": "plain", "match": {"prefix": "/plain"}, "to": "wide", "retries": retries, **short},
        {"name": "few", "match": {"prefix": "/few"}, "to": "narrow", **short},
        {"name": "filtered", "match": {"prefix": "/filtered"}, "to": "wide", **short},
        {"name": "both", "match": {"prefix": "/both"}, "split": [{"cluster": "wide", "weight": 1}, {"cluster": "narrow", "weight": 1}],
         "retries": retries, **short},
        {"name": "slowless", "match": {"prefix": "/slowless"}, "to": "wide", "total_timeout": "150ms", **{**short, "timeout": "100ms"}},
        {"name": "streams", "match": {"prefix": "/streams"}, "to": "streams", "retries": retries, **short},
        {"name": "narrows", "match": {"prefix": "/narrows"}, "to": "narrows", **short},
        {"name": "mixed", "match": {"prefix": "/mixed"}, "split": [{"cluster": "streams", "weight": 1}, {"cluster": "wide", "weight": 1}],
         "retries": retries, **short},
        {"name": "direct", "match": {"prefix": "/direct"}, "respond": {"status": 200, "body": "d" * 3000}},
    ]
    rng.shuffle(routes)
    clusters = [
        {"name": "wide", "endpoints": some(1), "connect_timeout": "100ms", "queue_timeout": "200ms",
         "balancer": rng.choice(["round_robin", "random", "least_request", "peak_ewma"]),
         "breaker": {"consecutive_failures": 4, "backoff": "50ms", "max_backoff": "200ms"}, "pool": {"idle_timeout": rng.choice(["100ms", "10s"])}},
        {"name": "narrow", "endpoints": some(1)[:2], "connect_timeout": "100ms", "queue_timeout": "200ms", "max_connections": 2, "max_queue": 8,
         "max_requests": 40, "pool": {"max_idle": 1, "max_requests_per_connection": rng.choice([0, 3])}},
    ]
    clusters += [
        {**clusters[0], "name": "streams", "protocol": "http2", "endpoints": some(1, streaming)},
        {**clusters[1], "name": "narrows", "protocol": "http2", "endpoints": some(1, streaming)[:2]},
    ]
    rng.shuffle(clusters)
    kept = ports[:1] + [port for port in ports[1:] if rng.random() < 0.7]
    return {
        "workers": 2,
        "listeners": [{"name": f"l{port}", "address": f"127.0.0.1:{port}"} for port in kept],
        "routes": routes,
        "clusters": clusters,
        "limits": {"max_filters_waiting": 20, "body_min_rate": 100, "body_min_rate_grace": "300ms", "linger_size": "64KiB",
                   "max_requests_per_connection": rng.choice([0, 5]),
                   "http2_max_streams": rng.choice([2, 100]), "http2_max_resets": rng.choice([3, 200]), "http2_stream_window": "16KiB"},
        "timeouts": {"head": "300ms", "keep_alive": "400ms", "linger": "100ms", "filter": "50ms"},
    }


def add_filters(chaos: Chaos, proxy: meshcore.Proxy) -> None:
    rng = chaos.rng("filters")

    def on_request(request):
        way = rng.random()
        if way < 0.1:
            raise RuntimeError("a filter fails")
        if way < 0.2:
            return meshcore.Response(rng.choice((200, 403, 204)), b"f" * rng.choice((0, 10, 100_000)))
        if way < 0.6:
            request.headers["x-seen"] = "1" * rng.choice((1, 3000))
        if way < 0.3:
            request.cluster = rng.choice(("wide", "narrow", "streams", "narrows"))
        if way > 0.95:
            request.method = rng.choice(("POST", "HEAD", "GET", "CONNECT", "PATCH"))
        if way > 0.99:
            time.sleep(0.08)

    def on_response(head):
        way = rng.random()
        if way < 0.05:
            raise RuntimeError("a filter fails")
        if way < 0.15:
            return meshcore.Response(502, b"replaced")
        if way < 0.5:
            head.headers["x-seen"] = "1"

    proxy.on_request(route="filtered")(on_request)
    proxy.on_request(route="both")(on_request)
    proxy.on_response(route="both")(on_response)
    proxy.on_request(route="mixed")(on_request)
    proxy.on_response(route="mixed")(on_response)


def reload_often(chaos: Chaos, proxy: meshcore.Proxy, endpoints: list[Endpoint], ports: list[int]) -> None:
    rng = chaos.rng("reloads")
    while not chaos.stop.wait(rng.choice((0.01, 0.05, 0.2))):
        try:
            proxy.reload(configuration(rng, endpoints, ports))
            chaos.note("reload")
        except OSError:
            chaos.note("reload refused")          # a port still held by a client's own end
        endpoint = rng.choice(endpoints)
        way = rng.random()
        if way < 0.2:
            endpoint.close()
        elif way < 0.3:
            endpoint.hang_up()
        for other in endpoints:
            if other._listener is None and rng.random() < 0.3:
                other.open()


def tap_often(chaos: Chaos, proxy: meshcore.Proxy) -> None:
    rng = chaos.rng("taps")
    while not chaos.stop.is_set():
        with proxy.tap(**rng.choice(({}, {"max_rps": 5}, {"method": "GET"}, {"path": "/plain"}))) as session:
            threading.Timer(rng.choice((0.01, 0.1, 0.3)), session.close).start()
            for _ in session:
                chaos.note("tap event")
        chaos.note("tap session")


def left_over(proxy: meshcore.Proxy) -> dict:
    """Every gauge that is not zero."""
    stats = proxy.stats()
    found = collections.Counter()
    for worker in stats.workers:
        for name in ("connections", "in_flight", "filters_waiting", "buffers_bytes"):
            found[f"worker.{name}"] += getattr(worker, name)
    for listener in stats.listeners:
        found["listener.active"] += listener.active
    for cluster in stats.clusters:
        found["cluster.in_flight"] += cluster.in_flight
        found["cluster.queue_len"] += cluster.queue_len
        for endpoint in cluster.endpoints:
            found["endpoint.active"] += endpoint.active
            # What is open at rest is idle.
            found["endpoint.busy"] += endpoint.open_connections - endpoint.idle
    return {name: value for name, value in found.items() if value}


def run(seconds: float, seed: int, clients: int = 16, *, stops_at_once: bool = False) -> Chaos:
    """One run. `troubles` of what it returns is empty when every claim held. `stops_at_once`: no drain, in the middle of it all."""
    logging.getLogger("meshcore.filters").setLevel(logging.CRITICAL)
    chaos = Chaos(seed)
    rng = chaos.rng("main")
    endpoints = [Endpoint(chaos, f"endpoint {i}") for i in range(N_ENDPOINTS)]
    endpoints += [Endpoint(chaos, f"h2 endpoint {i}", StreamAnswerer) for i in range(N_ENDPOINTS)]
    ports = []
    for _ in range(4):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    proxy = meshcore.Proxy(configuration(rng, endpoints, ports))
    add_filters(chaos, proxy)
    proxy.start()
    actors = [threading.Thread(target=Client(chaos, i, lambda: proxy.addresses).run, daemon=True) for i in range(clients)]
    actors += [threading.Thread(target=StreamClient(chaos, i, lambda: proxy.addresses).run, daemon=True) for i in range(clients)]
    actors.append(threading.Thread(target=reload_often, args=(chaos, proxy, endpoints, ports), daemon=True))
    actors.append(threading.Thread(target=tap_often, args=(chaos, proxy), daemon=True))
    for actor in actors:
        actor.start()
    time.sleep(seconds)
    chaos.stop.set()
    if stops_at_once:
        proxy.stop()
        chaos.troubles, ignored = list(chaos.troubles), chaos.troubles
        chaos.trouble = lambda what: ignored.append(what)             # what a stop cuts is nobody's fault
    for actor in actors:
        actor.join(2 * PATIENCE_S)
        if actor.is_alive():
            chaos.troubles.append(f"{actor.name} never came to an end")
    if not stops_at_once and not proxy.drain(10):
        chaos.trouble(f"not drained: {left_over(proxy)}")
    deadline = time.monotonic() + 5
    while not stops_at_once and left_over(proxy) and time.monotonic() < deadline:
        time.sleep(0.02)
    if not stops_at_once and left_over(proxy):
        chaos.trouble(f"left over: {left_over(proxy)}")
    if not stops_at_once:
        proxy.stop()
    for endpoint in endpoints:
        endpoint.close()
        endpoint.hang_up()
    return chaos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.random_faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--stop", action="store_true", help="stop at once, without a drain")
    options = parser.parse_args()
    faulthandler.enable()
    print(f"seed {options.seed}", flush=True)
    chaos = run(options.seconds, options.seed, options.clients, stops_at_once=options.stop)
    for what, count in sorted(chaos.seen.items()):
        print(f"{count:8} {what}")
    for trouble in chaos.troubles:
        print(f"TROUBLE {trouble}")
    return 1 if chaos.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
