"""One connection to each of many proxies, asked again and again until each has answered as expected. One thread."""

from __future__ import annotations

import selectors
import socket
import time

# Between an answer that is the old one and the next request: what the figure may be too long by.
PACE_S = 0.01


class Asker:
    """One connection. It never has more than one request on its way."""

    def __init__(self, address: tuple[str, int], host: str) -> None:
        self.socket = socket.create_connection(address, timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()
        self._received = b""
        self.due = 0.0
        self.waits = False

    def send(self) -> None:
        self.socket.sendall(self._request)
        self.waits = True

    def receive(self) -> bytes | None:
        """The body of the answer, once it is whole."""
        more = self.socket.recv(65536)
        if not more:
            raise SystemExit("a proxy closed the connection")
        self._received += more
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or not body:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"a request failed: {self._received.decode(errors='replace')}")
        self._received = b""
        self.waits = False
        return body


class Askers:
    def __init__(self, addresses: list[tuple[str, int]], host: str) -> None:
        self._askers = [Asker(address, host) for address in addresses]
        self._selector = selectors.DefaultSelector()
        for one in self._askers:
            self._selector.register(one.socket, selectors.EVENT_READ, one)
        self.requests = 0

    def until(self, expected: bytes, patience_s: float) -> list[float]:
        """When each of them first heard it, by time.perf_counter."""
        heard: dict[Asker, float] = {}
        left = set(self._askers)
        deadline = time.perf_counter() + patience_s
        while left:
            now = time.perf_counter()
            if now > deadline:
                raise SystemExit(f"{len(left)} proxies did not move")
            for one in left:
                if not one.waits and one.due <= now:
                    self.requests += 1
                    one.send()
            for key, _ in self._selector.select(PACE_S / 4):
                asker: Asker = key.data
                body = asker.receive()
                if body is None:
                    continue
                now = time.perf_counter()
                asker.due = now + PACE_S
                if body == expected:
                    heard[asker] = now
                    left.discard(asker)
        return [heard[one] for one in self._askers]

    def close(self) -> None:
        for one in self._askers:
            one.socket.close()
