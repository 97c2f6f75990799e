"""One connection that asks by name and waits for each answer. Measures, judges nothing."""

from __future__ import annotations

import socket
import time


class Client:
    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, host: str) -> tuple[bytes, float]:
        """(body, seconds). An answer that is not 200 ends the run."""
        begun = time.perf_counter()
        self._socket.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
        received = b""
        missing = 1
        while missing > 0:
            more = self._socket.recv(65536)
            if not more:
                raise SystemExit(f"{host}: the proxy closed the connection")
            received += more
            head, end, body = received.partition(b"\r\n\r\n")
            missing = _length_of(head) - len(body) if end else 1
        took = time.perf_counter() - begun
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"{host}: {head.decode(errors='replace')}")
        return body, took

    def close(self) -> None:
        self._socket.close()


def _length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bench_name(number: int) -> str:
    """The host that the load instrument asks for by that number."""
    return f"n{number:06}.test"
