"""One connection to each of many proxies, asked again and again until each has answered as expected. One thread.

Each is asked at a pace, and as soon as it says that it was told something: an answer counts, a saying does not. Asked every ten
milliseconds instead, a hundred proxies of one machine served for the most part who watched them.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import time

# Between an answer that is the old one and the next request.
PACE_S = 0.05
# The same of one that says it was told: what the figure may be too long by.
SOON_S = 0.002
_BODY_AT = b"\r\n\r\n"


class Asker:
    """One connection. It never has more than one request on its way."""

    __slots__ = ("_received", "_request", "due", "is_told", "socket", "waits")

    def __init__(self, address: tuple[str, int], host: str) -> None:
        self.socket = socket.create_connection(address, timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()
        self._received = b""
        self.due = 0.0
        self.is_told = self.waits = False

    def send(self) -> None:
        self.socket.sendall(self._request)
        self.waits = True

    def receive(self) -> bytes | None:
        """The body of the answer, once it is whole."""
        more = self.socket.recv(65536)
        if not more:
            raise SystemExit("a proxy closed the connection")
        received = self._received + more
        body = received.find(_BODY_AT) + len(_BODY_AT)
        if body < len(_BODY_AT) or body == len(received):
            self._received = received
            return None
        if not received.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"a request failed: {received.decode(errors='replace')}")
        self._received = b""
        self.waits = False
        return received[body:]


class Askers:
    """Cheap on purpose: what they take of the machine, those who are measured lack. `told`: a pipe of proxies' numbers, see fleet."""

    def __init__(self, addresses: list[tuple[str, int]], host: str, told: int) -> None:
        self._askers = [Asker(address, host) for address in addresses]
        self._by_fd = {one.socket.fileno(): number for number, one in enumerate(self._askers)}
        self._told = told
        self._epoll = select.epoll()
        for fd in (told, *self._by_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._due: list[tuple[float, int]] = []
        self.requests = 0

    def until(self, expected: bytes, patience_s: float) -> list[float]:
        """When each of them first heard it, by time.perf_counter."""
        heard: dict[int, float] = {}
        begun = time.perf_counter()
        self._due.clear()
        for number, one in enumerate(self._askers):
            one.is_told = False
            self._ask_at(number, begun + PACE_S * number / len(self._askers))
        while len(heard) < len(self._askers):
            now = time.perf_counter()
            if now > begun + patience_s:
                raise SystemExit(f"{len(self._askers) - len(heard)} proxies did not move")
            self._ask_who_is_due(now)
            for fd, _ in self._epoll.poll(max(0.0, self._due[0][0] - now) if self._due else PACE_S):
                if fd == self._told:
                    self._hear_told()
                    continue
                number = self._by_fd[fd]
                one = self._askers[number]
                body = one.receive()
                if body is None:
                    continue
                now = time.perf_counter()
                if body == expected:
                    heard[number] = now
                else:
                    self._ask_at(number, now + (SOON_S if one.is_told else PACE_S))
        return [heard[number] for number in range(len(self._askers))]

    def _ask_at(self, number: int, due: float) -> None:
        self._askers[number].due = due
        heapq.heappush(self._due, (due, number))

    def _ask_who_is_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, number = heapq.heappop(self._due)
            one = self._askers[number]
            if due == one.due and not one.waits:  # neither put off since, nor put forward and asked already
                one.send()
                self.requests += 1

    def _hear_told(self) -> None:
        now = time.perf_counter()
        for number in memoryview(os.read(self._told, 4096)).cast("I"):
            self._askers[number].is_told = True
            if not self._askers[number].waits:
                self._ask_at(number, now)

    def close(self) -> None:
        self._epoll.close()
        for one in self._askers:
            one.socket.close()
