"""HTTP/2 clients that misbehave at random: frames in any order, mutated, cut anywhere. Owns its sockets; knows no proxy.

One connection is either orderly (legal frames, read strictly, each request accounted for: answered, reset, or ended with its
connection) or broken (a legal sequence of frames with something changed in it, after which the connection must end).
"""

from __future__ import annotations

import random
import time

from tests.faults.random_endpoints import PATIENCE_S, Chaos, body_of
from tests.scenario import h2_frames as h2
from tests.scenario import h2_hpack
from tests.scenario.h2_peers import H2Client
from tests.scenario.wire import WireError

PATHS = ("/plain", "/plain", "/few", "/filtered", "/both", "/direct", "/slowless", "/nothing", "/streams", "/streams", "/narrows", "/mixed")
MOST_BODIES = (0, 1, 100, 3000, 20_000, 100_000, 300_000)


class StreamClient:
    """One connection after another."""

    def __init__(self, chaos: Chaos, index: int, addresses):
        self.chaos, self.index, self.addresses = chaos, index, addresses

    def run(self) -> None:
        turn = 0
        while not self.chaos.stop.is_set():
            turn += 1
            rng = self.chaos.rng("stream client", self.index, turn)
            name = f"stream client {self.index}, connection {turn}"
            try:
                self._connection(rng)
            except TimeoutError as error:
                self.chaos.trouble(f"{name}: waited {PATIENCE_S} s in vain: {error}")
            except WireError as error:
                self.chaos.trouble(f"{name}: {error}")
            except OSError:
                self.chaos.note("h2: connection lost")
                time.sleep(0.01)
            except Exception as error:
                self.chaos.trouble(f"{name}: {error!r}")

    def _connection(self, rng: random.Random) -> None:
        ports = [port for _, port in list(self.addresses().values())]
        client = H2Client(("127.0.0.1", rng.choice(ports)), greet=False, receive_buffer=rng.choice((0, 0, 0, 4096)))
        client.patience_s = PATIENCE_S
        try:
            if rng.random() < 0.3:
                self._broken(rng, client)
            else:
                Orderly(self.chaos, rng, client).run()
        finally:
            client.close()

    # --- frames that nobody should send ------------------------------------------------------------------------------

    def _broken(self, rng: random.Random, client: H2Client) -> None:
        self.chaos.note("h2: broken connection")
        data = mutated(rng, [h2.PREFACE, h2.settings(), *frames(rng, self.chaos)])
        style = rng.random()
        if style < 0.5:
            client.send(data)
        else:
            for part in pieces(rng, data):
                client.send(part)
                if style > 0.8:
                    time.sleep(0.001)
        way = rng.random()
        if way < 0.2:
            client.reset_connection()
            return
        if way < 0.4:
            return
        if client.refused:
            return
        # What was sent may be the beginning of anything: only our end must bring its end.
        try:
            client.half_close()
        except OSError:
            return
        client.reader.feed = lambda data: None
        client.read_to_end()


class Orderly:
    """Legal frames on one connection, and what came of each request."""

    def __init__(self, chaos: Chaos, rng: random.Random, client: H2Client):
        self.chaos, self.rng, self.client = chaos, rng, client
        self.asked: dict[int, tuple[int, str]] = {}       # stream: number, method
        self.open_bodies: dict[int, bytes] = {}           # what is still to be sent
        self.given_up: set[int] = set()

    def run(self) -> None:
        rng, client = self.rng, self.client
        client.send(h2.PREFACE)
        client.send_settings(rng.choice(({}, {}, {h2.INITIAL_WINDOW_SIZE: rng.choice((0, 100, 1 << 20))}, {h2.HEADER_TABLE_SIZE: 0})))
        client.opens_windows = rng.random() < 0.9
        for _ in range(rng.choice((1, 3, 10, 40))):
            if client.end or client.refused:
                break
            self._act()
        way = rng.random()
        if way < 0.1:
            client.reset_connection()
            self.chaos.note("h2: gone with open streams")
            return
        if way < 0.2:
            self.chaos.note("h2: left with open streams")
            return
        if way < 0.25:
            client.send(h2.goaway())
        elif way < 0.3:
            client.half_close()
        self._account()

    def _act(self) -> None:
        rng, client = self.rng, self.client
        way = rng.random()
        if way < 0.45:
            self._ask()
        elif way < 0.60 and self.open_bodies:
            self._go_on(rng.choice(list(self.open_bodies)))
        elif way < 0.70 and self.asked:
            stream = rng.choice(list(self.asked))
            if stream not in self.given_up:
                self.given_up.add(stream)
                self.open_bodies.pop(stream, None)
                client.reset_stream(stream, rng.choice((h2.CANCEL, h2.NO_ERROR, h2.INTERNAL_ERROR)))
        elif way < 0.72:
            client.send(h2.ping())
        elif way < 0.74:
            client.send_settings({h2.INITIAL_WINDOW_SIZE: rng.choice((0, 1, 65_535, 1 << 20))})
        elif way < 0.76:
            client.send(h2.priority(rng.choice((1, 3, 99))))
        elif way < 0.78:
            client.open_window(0, rng.choice((1, 100_000)))
        else:
            client.pump(rng.choice((0, 0, 0.001, 0.02)))

    def _ask(self) -> None:
        rng, client = self.rng, self.client
        if rng.random() < 0.03:
            return self._tunnel()
        number = self.chaos.number()
        method = rng.choice(("GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"))
        fields = [("x-number", str(number))]
        size = None
        if method in ("POST", "PUT"):
            size = rng.choice(MOST_BODIES)
            fields.append(("x-size", str(size)))
            if rng.random() < 0.4:
                fields.append(("content-length", str(size)))
            if method == "POST" and rng.random() < 0.2:
                fields += [("content-type", "application/grpc"), ("te", "trailers")]
                if rng.random() < 0.5:
                    fields.append(("grpc-timeout", rng.choice(("50m", "1S", "1n"))))
        if rng.random() < 0.1:
            fields += [("cookie", "a=b"), ("x-padding", "p" * rng.choice((10, 3000, 20_000))), ("cookie", "c=d")]
        path = f"{rng.choice(PATHS)}/{number}"
        if size is None:
            stream = client.request(method, path, fields)
        elif rng.random() < 0.6:
            stream = client.request(method, path, fields, body_of(number, size), trailers=rng.choice((None, None, [("x-trailer", "1")])))
        else:
            stream = client.open(method, path, fields, end_stream=False)
            self.open_bodies[stream] = body_of(number, size)
        self.asked[stream] = (number, method)

    def _tunnel(self) -> None:
        number = self.chaos.number()
        client = self.client
        stream, client.next_stream = client.next_stream, client.next_stream + 2
        client.reader.expect(stream, "CONNECT")
        client.send_headers(stream, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a.test"),
                                     (":path", self.rng.choice(("/plain/", "/streams/", "/both/"))), ("x-number", str(number))])
        self.asked[stream] = (number, "CONNECT")
        self.open_bodies[stream] = b"x" * self.rng.choice((0, 10, 50_000))

    def _go_on(self, stream: int) -> None:
        """Some of a body; with its last octet it may end, or stay open and be timed out."""
        client = self.client
        message = client.reader.streams.get(stream)
        if message is not None and message.ended:
            del self.open_bodies[stream]
            return
        rest = self.open_bodies[stream]
        room = min(client.window, client.stream_window(stream), 16_384, len(rest))
        n = self.rng.randint(0, max(room, 0))
        if n < len(rest):
            if n:
                client.send_data(stream, rest[:n])
            self.open_bodies[stream] = rest[n:]
            return
        del self.open_bodies[stream]
        if self.rng.random() < 0.9:
            client.send_data(stream, rest, end_stream=True)

    def _account(self) -> None:
        client = self.client

        def due() -> list[int]:
            return [s for s in self.asked if s not in self.given_up and not ((m := client.reader.streams.get(s)) and m.ended)]

        deadline = time.monotonic() + PATIENCE_S
        while due() and (not client.end or client._came):
            if not client.pump(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise TimeoutError(f"streams {due()[:10]}, {len(due())} of {len(self.asked)}; frames: {client.seen[-8:]}")
        for stream, (number, method) in self.asked.items():
            message = client.reader.streams.get(stream)
            if stream in self.given_up:
                self.chaos.note("h2: given up")
            elif message is None or not message.ended:
                self.chaos.note("h2: ended with its connection")
            elif not message.complete:
                self.chaos.note(f"h2: reset {h2.error_name(message.reset)}")
            else:
                self._check(number, method, message)

    def _check(self, number: int, method: str, message) -> None:
        self.chaos.note(f"h2: {message.status} {message.reason or ''}")
        if message.reason is not None or method == "CONNECT" or message.status == 408:
            return
        answered = message.get("x-number")
        if answered != str(number):
            raise WireError(f"answer to request {answered} came for {number}: {message.fields}")
        size = message.get("x-size")
        if size is None or not message.body or message.body == body_of(number, int(size)):
            return
        # An endpoint that ends a body by closing may have been cut itself: nothing tells. One that says "stray" in the midst
        # of its own answer has ended it so.
        unknowable = message.get("x-ends") or b"stray" in message.body
        if not unknowable or not body_of(number, int(size)).startswith(bytes(message.body).replace(b"stray", b"")):
            raise WireError(f"answer to {number} has a foreign body: {bytes(message.body[:40])!r}, {len(message.body)} of {size}, {message.fields}")


# --- sequences of frames ----------------------------------------------------------------------------------------------------

def frames(rng: random.Random, chaos: Chaos) -> list[bytes]:
    """Up to 30 frames of a client, legal if taken as they are."""
    made, stream = [], -1
    for _ in range(rng.randint(1, 30)):
        way = rng.random()
        if way < 0.5 or stream < 0:
            stream += 2
            ends = rng.random() < 0.6
            number = chaos.number()
            fields = h2_hpack.request("GET" if ends else "POST", f"{rng.choice(PATHS)}/{number}",
                                      authority="spoilt.test", extra=[("x-number", str(number)), ("x-size", "0"), ("x-spoilt", "1")])
            block = h2_hpack.stateless(fields, huffman=rng.random() < 0.5)
            if rng.random() < 0.2:
                at = rng.randrange(len(block))
                made += [h2.headers(stream, block[:at], end_stream=ends, end_headers=False), h2.continuation(stream, block[at:])]
            else:
                made.append(h2.headers(stream, block, end_stream=ends, padding=rng.choice((None, None, 0, 200))))
        elif way < 0.65:
            made.append(h2.data(stream, b"d" * rng.choice((0, 1, 1000, 16_000)), end_stream=rng.random() < 0.3, padding=rng.choice((None, 10))))
        elif way < 0.75:
            made.append(h2.rst_stream(rng.choice((stream, stream, 1)), rng.randrange(16)))
        else:
            made.append(rng.choice((
                h2.ping(), h2.ping(ack=True), h2.settings(), h2.settings(ack=True), h2.settings({rng.randrange(10): rng.randrange(1 << 32)}),
                h2.window_update(rng.choice((0, stream)), rng.choice((1, 1 << 20, (1 << 31) - 1))), h2.priority(stream, rng.choice((0, stream))),
                h2.goaway(0, rng.randrange(14)), h2.frame(rng.randrange(256), rng.randrange(256), stream, rng.randbytes(20)))))
    return made


def mutated(rng: random.Random, parts: list[bytes]) -> bytes:
    """The same, with something changed, or nothing, and perhaps cut."""
    parts = list(parts)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(1, len(parts)) if len(parts) > 1 else 0
        way = rng.randrange(6)
        if way == 0 and parts[at]:
            octets = bytearray(parts[at])
            for _ in range(rng.choice((1, 1, 3))):
                octets[rng.randrange(min(len(octets), rng.choice((9, 9, len(octets)))))] = rng.randrange(256)
            parts[at] = bytes(octets)
        elif way == 1:
            parts.insert(rng.randrange(1, len(parts) + 1), parts[at])
        elif way == 2:
            del parts[at]
        elif way == 3:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif way == 4:
            parts[at] = parts[at][: rng.randrange(len(parts[at]) + 1)]
        else:
            parts.insert(at, rng.randbytes(rng.choice((1, 9, 100))))
        if not parts:
            break
    data = b"".join(parts)
    return data if rng.random() < 0.7 else data[: rng.randrange(len(data) + 1)]


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 20)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)]) if end > start]
