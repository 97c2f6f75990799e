"""The soak's clients: one process, many connections, each request with an id that must come back once.

Every `close_every`-th request asks for the connection to be closed, so that connections are opened all the time and a
refusal would be seen. GET and POST alternate: what may be retried and what must not.
"""

from __future__ import annotations

import selectors
import socket
import time
from multiprocessing.connection import Connection
from typing import NamedTuple


class Outcome(NamedTuple):
    """Ids are those of the first ten troubles of each kind; the numbers are whole."""

    answered: int
    wrong: list[str]
    lost: list[str]
    refused: list[str]
    seconds: float
    slowest_ms: float


class _Visitor:
    def __init__(self, address: tuple[str, int]):
        self.address = address
        self.sock: socket.socket | None = None
        self.buffer = bytearray()
        self.number = -1
        self.asked_at = 0.0
        self.closing = False


def run(report: Connection, address: tuple[str, int], n: int, connections: int, close_every: int) -> None:
    """Send ids 0..n-1, report progress as ints, then the Outcome."""
    selector = selectors.DefaultSelector()
    wrong, lost, refused = [], [], []
    answered, next_id, slowest = 0, 0, 0.0
    started = reported = time.monotonic()

    def ask(visitor: _Visitor) -> None:
        nonlocal next_id
        while next_id < n:
            visitor.number, next_id = next_id, next_id + 1
            if visitor.sock is None:
                try:
                    visitor.sock = socket.create_connection(visitor.address, 10)
                except OSError as error:
                    refused.append(f"{visitor.number}: {error}")
                    continue
                visitor.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(visitor.sock, selectors.EVENT_READ, visitor)
            visitor.closing = visitor.number % close_every == 0
            visitor.asked_at = time.monotonic()
            try:
                visitor.sock.sendall(_request(visitor.number, visitor.closing))
                return
            except OSError as error:
                lost.append(f"{visitor.number}: not sent, {error}")
                leave(visitor)
        leave(visitor)

    def leave(visitor: _Visitor) -> None:
        if visitor.sock is not None:
            selector.unregister(visitor.sock)
            visitor.sock.close()
            visitor.sock = None
        visitor.buffer.clear()

    visitors = [_Visitor(address) for _ in range(connections)]
    for visitor in visitors:
        ask(visitor)
    while any(visitor.sock is not None for visitor in visitors):
        events = selector.select(30)
        if not events:
            lost += [f"{v.number}: no answer in 30 s" for v in visitors if v.sock is not None]
            break
        for key, _ in events:
            visitor = key.data
            if visitor.sock is None:
                continue
            try:
                data = visitor.sock.recv(65536)
            except OSError as error:
                data = b""
                wrong.append(f"{visitor.number}: {error}")
            if not data:
                lost.append(f"{visitor.number}: connection ended before the answer")
                leave(visitor)
                ask(visitor)
                continue
            visitor.buffer += data
            body = _answer(visitor.buffer)
            if body is None:
                continue
            slowest = max(slowest, time.monotonic() - visitor.asked_at)
            if body == b"%d" % visitor.number:
                answered += 1
            else:
                wrong.append(f"{visitor.number}: {bytes(visitor.buffer[:200])!r}")
            announced = b"\r\nconnection: close" in bytes(visitor.buffer).lower()
            visitor.buffer.clear()
            if visitor.closing or announced:
                leave(visitor)
            ask(visitor)
        if time.monotonic() - reported > 0.5:
            reported = time.monotonic()
            report.send(answered)
    troubles = [len(wrong), len(lost), len(refused)]
    for kind, number in zip((wrong, lost, refused), troubles):
        kind[10:] = [f"… {number} in all"] if number > 10 else []
    report.send(Outcome(answered, wrong, lost, refused, time.monotonic() - started, slowest * 1000))


def _request(number: int, closing: bool) -> bytes:
    end = b"Connection: close\r\n" if closing else b""
    if number % 2:
        return b"POST /id/%d HTTP/1.1\r\nHost: soak.test\r\n%sContent-Length: 5\r\n\r\nhello" % (number, end)
    return b"GET /id/%d HTTP/1.1\r\nHost: soak.test\r\n%s\r\n" % (number, end)


def _answer(buffer: bytearray) -> bytes | None:
    """The body of a whole 200, b"" for any other answer, None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return b""
    length = int(head[at + 17 :].split(b"\r\n", 1)[0])
    if len(buffer) < end + 4 + length:
        return None
    return bytes(buffer[end + 4 :]) if head.startswith(b"http/1.1 200") else b""
