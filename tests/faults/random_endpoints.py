"""Endpoints that answer in every way but a good one, and that too. Owns their sockets; knows no proxy.

They read requests strictly and know their own: what only looks like a request, or a body that is another's, is trouble.
"""

from __future__ import annotations

import collections
import random
import socket
import threading
import time

from tests.scenario.servers import reset
from tests.scenario.wire import Reader, WireError

PATIENCE_S = 20.0                       # every timeout of the proxy is far below: longer is stuck


def body_of(number: int, size: int) -> bytes:
    """What request `number` carries, and its answer: recognisable at any place."""
    unit = b"%010d" % number
    return (unit * (size // 10 + 1))[:size]


class Chaos:
    """What the actors share: the seed, what was seen, what was wrong."""

    def __init__(self, seed: int):
        self.seed = seed
        self.stop = threading.Event()
        self.troubles: list[str] = []
        self.seen: collections.Counter = collections.Counter()
        self._number = 0
        self._lock = threading.Lock()

    def rng(self, *name) -> random.Random:
        return random.Random(f"{self.seed}-{name}")

    def number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def note(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def trouble(self, what: str) -> None:
        with self._lock:
            if len(self.troubles) < 20:
                self.troubles.append(what)


class Endpoint:
    """A port that is sometimes open, and whoever answers there."""

    def __init__(self, chaos: Chaos, name: str, answerer=None):
        self.chaos = chaos
        self.name = name
        self._answerer = answerer or Answerer
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.open()

    def open(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.port))
        except OSError:
            listener.close()
            return
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()

    def hang_up(self) -> None:
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            rng = self.chaos.rng("endpoint", self.name, self.connections)
            threading.Thread(target=self._serve, args=(sock, rng), daemon=True).start()

    def _serve(self, sock: socket.socket, rng: random.Random) -> None:
        sock.settimeout(PATIENCE_S)
        self._open.add(sock)
        try:
            self._answerer(self.chaos, sock, rng).run()
        except (OSError, EOFError):
            pass
        except WireError as error:
            self.chaos.trouble(f"{self.name} cannot read what the proxy sent: {error}")
        except Exception as error:
            self.chaos.trouble(f"{self.name}: {error!r}")
        finally:
            self._open.discard(sock)
            sock.close()


class Answerer:
    """One connection of an endpoint: reads requests strictly, answers them in every way but a good one, and that too."""

    def __init__(self, chaos: Chaos, sock: socket.socket, rng: random.Random):
        self.chaos, self.sock, self.rng = chaos, sock, rng
        self.reader = Reader("request")
        self.number = 0
        self.is_spoilt = False          # by a client that broke what it sent: nothing is known of it

    def run(self) -> None:
        at_accept = self.rng.random()
        if at_accept < 0.02:
            return reset(self.sock)
        if at_accept < 0.04:
            return None
        if at_accept < 0.05:
            self.sock.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return self.sock.shutdown(socket.SHUT_WR)
        if at_accept < 0.07:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while self._one():
            pass

    def _one(self) -> bool:
        head = self._head()
        numbers = [value for key, value in head.fields if key.lower() == b"x-number"]
        self.is_spoilt = b"spoilt" in b"".join(key + value for key, value in head.fields)
        if self.is_spoilt:
            numbers = [b"0"]
        if not head.target.startswith(b"/") or len(numbers) != 1:
            raise WireError(f"nobody sent this: {bytes(head.raw[:200])!r}")
        self.number = int(numbers[0])
        way = self.rng.random()
        if way < 0.04:
            reset(self.sock)
            return False
        if way < 0.07:
            return False
        if way < 0.10:
            return self._answer_early(head)
        if way < 0.13:
            self._drip(b"HTTP/1.1 100 Continue\r\n\r\n" * self.rng.choice((1, 1, 2, 12)))
        if head.get("upgrade") and way < 0.7:
            return self._switch()
        self._body()
        if way < 0.15:
            time.sleep(self.rng.choice((0.05, 0.6)))      # the second is later than the route allows
        return self._answer(head.method == b"HEAD")

    def _head(self):
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(self.rng.choice((1, 100, 65536, 65536, 65536)))
            if not data:
                raise EOFError
            head += data
        self.reader.feed(head)
        return self.reader.messages[0] if self.reader.messages else self.reader.partial

    def _feed(self) -> None:
        data = self.sock.recv(self.rng.choice((1, 100, 65536, 65536, 65536)))
        if not data:
            raise EOFError
        self.reader.feed(data)

    def _body(self) -> None:
        while not self.reader.messages:
            if self.rng.random() < 0.02:
                time.sleep(0.005)
            self._feed()
        message = self.reader.messages.popleft()
        expected = message.get("x-size")
        if not self.is_spoilt and message.body != body_of(self.number, int(expected or 0)):
            raise WireError(f"body of request {self.number} is not its own: {message.body[:40]!r}, {len(message.body)} of {expected}")

    def _drip(self, data: bytes) -> None:
        style = self.rng.random()
        if style < 0.6 or not data:
            self.sock.sendall(data)
            return
        cuts = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.randint(1, 6)))
        for start, end in zip([0, *cuts], [*cuts, len(data)]):
            self.sock.sendall(data[start:end])
            if style > 0.9:
                time.sleep(0.002)

    def _fields(self, *lines: str) -> bytes:
        return "".join(f"{line}\r\n" for line in (f"X-Number: {self.number}", *lines)).encode() + b"\r\n"

    def _answer(self, is_head: bool) -> bool:
        rng = self.rng
        status = rng.choice((200, 200, 200, 200, 404, 500, 502, 503, 204, 304))
        size = rng.choice((0, 5, 500, 5000, 20_000, 70_000, 300_000))
        body = b"" if is_head or status in (204, 304) else body_of(self.number, size)
        line = f"HTTP/1.1 {status} X\r\n".encode()
        way = rng.random()
        if way < 0.05:
            self._drip(rng.choice((b"\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", b"\0" * 50,
                                   b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, b"HTTP/1.1 101 X\r\nUpgrade: no\r\nConnection: upgrade\r\n\r\n")))
            return False
        if status in (204, 304):
            self._drip(line + self._fields())
            return True
        if way < 0.35:
            framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in self._parts(body)) + b"0\r\n"
            framed += rng.choice((b"\r\n", b"\r\n", b"X-Trailer: 1\r\n\r\n"))
            data = line + self._fields("Transfer-Encoding: chunked", f"X-Size: {size}") + (b"" if is_head else framed)
        elif way < 0.42:
            self._drip(line + self._fields("Connection: close", "X-Ends: close", f"X-Size: {size}") + body)
            return False
        else:
            data = line + self._fields(f"Content-Length: {size}", f"X-Size: {size}") + body
        ending = rng.random()
        if ending < 0.06 and not is_head:
            self._drip(data[: rng.randrange(len(data))])
            if rng.random() < 0.5:
                reset(self.sock)
            return False
        if ending < 0.09 and len(data) < 4000:
            # Poison: an answer nobody asked for, in the same segment.
            self.sock.sendall(data + b"HTTP/1.1 200 OK\r\nX-Number: 0\r\nContent-Length: 0\r\n\r\n")
            return True
        self._drip(data)
        return ending < 0.9             # a keep-alive lie: closed without a word

    def _parts(self, body: bytes):
        at = 0
        while at < len(body):
            n = self.rng.choice((1, 10, 1000, 50_000))
            yield body[at : at + n]
            at += n

    def _answer_early(self, head) -> bool:
        body = b"" if head.method == b"HEAD" else b"early"
        self.sock.sendall(b"HTTP/1.1 413 Too Large\r\n" + self._fields("Content-Length: 5") + body)
        after = self.rng.random()
        if after < 0.3:
            return False
        if after < 0.5:
            time.sleep(0.05)
        self._body()
        return True

    def _switch(self) -> bool:
        self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n" + self._fields())
        for _ in range(self.rng.randint(0, 20)):
            data = self.sock.recv(65536)
            if not data:
                break
            self.sock.sendall(data)
        way = self.rng.random()
        if way < 0.3:
            reset(self.sock)
        elif way < 0.6:
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65536):
                pass
        return False
