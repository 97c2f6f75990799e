"""Downstreams for tests: a client that sends any octets in any pieces and reads answers strictly. Knows no proxy."""

from __future__ import annotations

import random
import socket
import time

from tests.scenario.servers import PATIENCE_S, reset
from tests.scenario.wire import Message, Reader

# Between two pieces of a split input: long enough for the other side to wake and read the first piece alone.
PIECE_GAP_S = 0.00002


def request_bytes(method: str, target: str, headers: dict[str, str] | list[tuple[str, str]] = (), body: bytes = b"", *,
                  host: str = "a.test", version: str = "1.1") -> bytes:
    """A request by length."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    lines = [f"{method} {target} HTTP/{version}"]
    if not any(name.lower() == "host" for name, _ in pairs):
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in pairs]
    if body and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in pairs):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class RawClient:
    """One client connection. `end` is None while the peer may still send, then "fin" or "rst"."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int = 0):
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader("response")
        self.end: str | None = None
        self.refused = False  # the peer would not take all we sent

    # --- sending ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # Proxies may refuse early and close while we still send; the answer, if any, is still to be read.
            self.refused = True

    def send_pieces(self, pieces: list[bytes], gap_s: float = PIECE_GAP_S) -> None:
        for piece in pieces:
            if self.refused:
                return
            self.send(piece)
            if gap_s:
                time.sleep(gap_s)

    def request(self, method: str, target: str = "/", headers=(), body: bytes = b"", *, host: str = "a.test", version: str = "1.1") -> None:
        """Send a request by length and remember its method for the reading of the answer."""
        self.reader.expect(method)
        self.send(request_bytes(method, target, headers, body, host=host, version=version))

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        reset(self.sock)

    # --- receiving -------------------------------------------------------------------------------------------------

    def receive(self, at_most: int = 65536) -> bytes:
        """Whatever comes next; empty at the end."""
        if self.end:
            return b""
        try:
            data = self.sock.recv(at_most)
        except ConnectionResetError:
            data, self.end = b"", "rst"
        if data:
            self.reader.feed(data)
        else:
            self.end = self.end or "fin"
            if self.end == "fin":
                self.reader.feed_end()
        return data

    def read_message(self) -> Message | None:
        """The next message, interim ones included; None when the connection ends instead."""
        while not self.reader.messages:
            if not self.receive() and not self.reader.messages:
                return None
        return self.reader.messages.popleft()

    def read_response(self) -> Message:
        """The next final response, the interim ones before it in `.interim`. It must come, complete."""
        interim = []
        while True:
            message = self.read_message()
            if message is None:
                raise AssertionError(f"connection ended ({self.end}) before a complete response; partial: {self.reader.partial}")
            if message.status >= 200 or message.status == 101:
                message.interim = interim
                return message
            interim.append(message)

    def get(self, target: str = "/", headers=(), **options) -> Message:
        self.request("GET", target, headers, **options)
        return self.read_response()

    def post(self, target: str = "/", body: bytes = b"", headers=(), **options) -> Message:
        self.request("POST", target, headers, body, **options)
        return self.read_response()

    def receive_tunnel(self, n: int) -> bytes:
        """Exactly n octets of a tunnel, fewer only at its end."""
        while len(self.reader.tunnel) < n:
            if not self.receive():
                break
        data = bytes(self.reader.tunnel[:n])
        del self.reader.tunnel[:n]
        return data

    def read_to_end(self) -> str:
        """Read until the peer stops; how it did: "fin" or "rst"."""
        while self.end is None:
            self.receive()
        return self.end

    @property
    def truncated(self) -> bool:
        """True when the connection is over and its last message is visibly incomplete."""
        return self.end is not None and self.reader.partial is not None


def one_piece(data: bytes) -> list[bytes]:
    return [data]


def every_byte(data: bytes, at_most: int = 3000) -> list[bytes]:
    """Single octets; above `at_most` of them the tail goes in equal larger pieces, so that time stays bounded."""
    if len(data) <= at_most:
        return [data[i : i + 1] for i in range(len(data))]
    head, rest = data[: at_most // 2], data[at_most // 2 :]
    size = -(-len(rest) // (at_most // 2))
    return every_byte(head) + [rest[i : i + size] for i in range(0, len(rest), size)]


def random_pieces(data: bytes, rng: random.Random, at_most: int = 64) -> list[bytes]:
    """2 to `at_most` pieces cut at random places."""
    cuts = sorted({rng.randrange(1, len(data)) for _ in range(rng.randint(1, at_most - 1))}) if len(data) > 1 else []
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
