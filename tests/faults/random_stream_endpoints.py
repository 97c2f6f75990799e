"""Endpoints that speak HTTP/2 in every way but a good one, and that too. Owns one connection each; knows no proxy.

They read strictly what they are sent, and know their own: a request whose body is another's is trouble.
"""

from __future__ import annotations

import random
import socket
import time

from tests.faults.random_endpoints import PATIENCE_S, Chaos, body_of
from tests.scenario import h2_frames as h2
from tests.scenario.h2_peers import H2Peer
from tests.scenario.servers import reset
from tests.scenario.wire import WireError


class _Gone(Exception):
    """This connection is over, by our doing or the other side's."""


class StreamAnswerer:
    """One connection: reads requests strictly, answers them at random."""

    def __init__(self, chaos: Chaos, sock: socket.socket, rng: random.Random):
        self.chaos, self.sock, self.rng = chaos, sock, rng
        self.peer = H2Peer(sock, "client")
        self.peer.patience_s = PATIENCE_S
        self.plans: dict[int, str] = {}                   # stream: what is meant for it
        self.done: set[int] = set()
        self.goes_wrong = rng.random() < 0.5

    def run(self) -> None:
        try:
            self._run()
        except (_Gone, TimeoutError):
            self.chaos.note("h2 endpoint: connection over")

    def _run(self) -> None:
        rng, peer = self.rng, self.peer
        at_accept = rng.random()
        if at_accept < 0.02:
            return reset(self.sock)
        if at_accept < 0.04:
            return None
        if at_accept < 0.06:
            self._send(rng.choice((b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", rng.randbytes(100), b"\0\0")))
            return None
        if at_accept < 0.10:
            peer.pump(rng.choice((0.05, 0.2)))            # the second is later than a connect may take
        if at_accept < 0.13:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.send_settings(self._settings())
        peer.opens_windows = rng.random() < 0.95
        while not self.chaos.stop.is_set() and not peer.end and not peer.refused:
            peer.pump(0.05)
            self._act()
            if self.goes_wrong and rng.random() < 0.02:
                self._go_wrong()

    def _settings(self) -> dict[int, int]:
        rng = self.rng
        values = {}
        if rng.random() < 0.5:
            values[h2.MAX_CONCURRENT_STREAMS] = rng.choice((0, 1, 2, 5, 100))
        if rng.random() < 0.4:
            values[h2.INITIAL_WINDOW_SIZE] = rng.choice((0, 1, 1000, 65_535, 1 << 20))
        if rng.random() < 0.5:
            values[h2.ENABLE_CONNECT_PROTOCOL] = 1
        return values

    def _send(self, data: bytes) -> None:
        self.peer.send(data)
        if self.peer.refused:
            raise _Gone

    # --- requests ----------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        rng, peer = self.rng, self.peer
        for stream, message in list(peer.reader.streams.items()):
            if stream in self.done or not message.fields:
                continue
            if message.reset is not None or peer.refused:
                self.done.add(stream)
                continue
            if stream not in self.plans:
                self.plans[stream] = self._plan(message)
            plan = self.plans[stream]
            if plan == "silent":
                continue
            if plan == "early" or message.complete or message.method == "CONNECT":
                if message.complete:
                    self._judge(message)
                self._answer(stream, message)
            elif plan.startswith("reset"):
                self.done.add(stream)
                peer.reset_stream(stream, rng.choice((h2.REFUSED_STREAM, h2.CANCEL, h2.INTERNAL_ERROR, h2.NO_ERROR, 99)))

    def _plan(self, message) -> str:
        way = self.rng.random()
        if way < 0.05:
            self.done.add(message.stream)
            self.peer.reset_stream(message.stream, self.rng.choice((h2.REFUSED_STREAM, h2.REFUSED_STREAM, h2.INTERNAL_ERROR)))
            return "done"
        if way < 0.08:
            return "reset later"
        if way < 0.12:
            return "silent"
        if way < 0.17:
            return "early"
        return "answer"

    def _judge(self, message) -> None:
        spoilt = any(b"spoilt" in value or b"spoilt" in name for name, value in message.fields)
        if message.method == "CONNECT" or spoilt:
            return
        numbers = message.all("x-number")
        if len(numbers) != 1 or not message.path.startswith("/"):
            raise WireError(f"nobody sent this: {message.fields}")
        expected = int(message.get("x-size") or 0)
        if message.body != body_of(int(numbers[0]), expected):
            raise WireError(f"body of request {numbers[0]} is not its own: {bytes(message.body[:40])!r}, {len(message.body)} of {expected}")

    def _answer(self, stream: int, message) -> None:
        rng, peer = self.rng, self.peer
        self.done.add(stream)
        number = (message.all("x-number") or ["0"])[0]
        number = int(number) if number.isascii() and number.isdigit() else 0
        status = rng.choice((200, 200, 200, 200, 404, 500, 502, 503, 204, 304))
        size = rng.choice((0, 5, 500, 5000, 20_000, 70_000, 300_000))
        body = b"" if message.method == "HEAD" or status in (204, 304) else body_of(number, size)
        head = [(":status", str(status)), ("x-number", str(number)), ("x-size", str(size))]
        way = rng.random()
        if message.method == "CONNECT":
            return self._tunnel(stream, way)
        for _ in range(rng.choice((0, 0, 0, 0, 1, 3, 12))):
            peer.send_headers(stream, [(":status", rng.choice(("100", "103")))])
        if way < 0.05:
            bad = rng.choice(([(":status", "2000")], [("x", "y")], [(":status", "200"), ("X", "y")], [(":status", "200"), ("a", "b\r\nc: d")],
                              [(":status", "101")], [(":status", "200"), ("connection", "close")], [(":status", "200"), ("x", "y" * 70_000)]))
            peer.send_headers(stream, bad, end_stream=rng.random() < 0.5)
            return
        if way < 0.3 and status not in (204, 304):
            head.append(("content-length", str(size)))
        if way > 0.95 and body:
            # Promised more, or less, than comes.
            head.append(("content-length", str(size + rng.choice((-1, 1)))))
            head[2] = ("x-lie", "1")
            head = [pair for i, pair in enumerate(head) if pair[0] != "content-length" or i == len(head) - 1]
            body = body_of(number, size)
        trailers = rng.choice((None, None, [("x-trailer", "1")], [("grpc-status", "0")])) if message.method != "HEAD" else None
        if not body and not trailers:
            peer.send_headers(stream, head, end_stream=True)
            return
        peer.send_headers(stream, head)
        if 0.3 < way < 0.4:
            # Some of it, and then no more: reset, or silence.
            part = body[: min(len(body), peer.window, max(peer.stream_window(stream), 0), rng.randint(0, 10_000), 16_384)]
            if part:
                peer.send_data(stream, part)
            if way < 0.37:
                peer.reset_stream(stream, rng.choice((h2.INTERNAL_ERROR, h2.NO_ERROR, h2.CANCEL)))
            return
        peer.queue_body(stream, body, trailers=trailers)

    def _tunnel(self, stream: int, way: float) -> None:
        peer = self.peer
        if way < 0.2:
            peer.send_headers(stream, [(":status", "403")], end_stream=True)
            return
        peer.send_headers(stream, [(":status", "200")])
        if way < 0.4:
            peer.reset_stream(stream, h2.CONNECT_ERROR)
        elif way < 0.8:
            peer.queue_body(stream, b"t" * self.rng.choice((1, 1000, 50_000)), end_stream=way < 0.6)

    # --- the connection ----------------------------------------------------------------------------------------------

    def _go_wrong(self) -> None:
        rng, peer = self.rng, self.peer
        streams = list(peer.reader.streams) or [1]
        stream = rng.choice(streams)
        way = rng.randrange(12)
        self.chaos.note(f"h2 endpoint: wrong {way}")
        if way == 0:
            reset(self.sock)
            raise _Gone
        if way == 1:
            raise _Gone
        if way == 2:
            peer.send(h2.goaway(rng.choice((0, stream, 2**31 - 1)), rng.choice((h2.NO_ERROR, h2.INTERNAL_ERROR))))
            if rng.random() < 0.5:
                raise _Gone
        elif way == 3:
            frame = h2.headers(stream, b"\x88" + b"\0" * 30)
            peer.send(frame[: rng.randrange(len(frame))])
            if rng.random() < 0.5:
                time.sleep(0.05)
            raise _Gone
        elif way == 4:
            self._send(rng.randbytes(rng.choice((9, 50))))
        elif way == 5:
            self._send(h2.data(stream, b"stray", end_stream=rng.random() < 0.5))
        elif way == 6:
            self._send(h2.rst_stream(stream, rng.randrange(16)))
            peer.reader.receiver_sent_reset(stream)
            self.done.add(stream)
            peer._bodies.pop(stream, None)
        elif way == 7:
            peer.send_settings({h2.MAX_CONCURRENT_STREAMS: rng.choice((0, 1, 100))})
        elif way == 8:
            peer.send_settings({h2.INITIAL_WINDOW_SIZE: rng.choice((0, 1, 100_000))})
        elif way == 9:
            self._send(h2.push_promise(stream, 2, b"\x82"))
        elif way == 10:
            self._send(h2.ping() * rng.choice((1, 10, 2000)))
        else:
            self._send(h2.continuation(stream, b"\x88", end_headers=False))
