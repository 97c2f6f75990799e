"""Steady load while something breaks: threads of plain clients, every answer kept. Knows no proxy and breaks nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter

from tests.scenario.clients import RawClient
from tests.scenario.wire import WireError


class Load:
    """`n_clients` keep-alive clients ask without pause until stopped; `answers` counts statuses, "cut" and "refused"."""

    def __init__(self, address: tuple[str, int], n_clients: int = 8, method: str = "GET", path: str = "/", headers=()):
        self.address, self.method, self.path, self.headers = address, method, path, headers
        self.answers: Counter = Counter()
        self.reasons: Counter = Counter()
        self.slowest_s = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(n_clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def wait(self, n: int, timeout_s: float = 20) -> None:
        """Until n more answers have come, of whatever kind."""
        target = sum(self.answers.values()) + n
        deadline = time.monotonic() + timeout_s
        while sum(self.answers.values()) < target:
            assert time.monotonic() < deadline, f"no progress: {self.answers}"
            time.sleep(0.005)

    def _run(self) -> None:
        client = None
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                if client is None:
                    client = RawClient(self.address)
                client.request(self.method, self.path, self.headers)
                answer = client.read_response()
                outcome = answer.status
                if answer.reason:
                    with self._lock:
                        self.reasons[answer.reason] += 1
                leave = answer.get("connection") == "close"
            except ConnectionRefusedError:
                outcome, leave = "refused", True
            except (AssertionError, WireError, TimeoutError, OSError):
                outcome, leave = "cut", True
            with self._lock:
                self.answers[outcome] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            if leave and client is not None:
                client.close()
                client = None
        if client is not None:
            client.close()


def open_connections(address: tuple[str, int], n: int, first_bytes: bytes = b"") -> list[socket.socket]:
    """n connections that have sent `first_bytes` and nothing more."""
    opened = []
    for _ in range(n):
        sock = socket.create_connection(address, 10)
        if first_bytes:
            sock.sendall(first_bytes)
        opened.append(sock)
    return opened
