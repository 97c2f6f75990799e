"""Real proxies with requests on their way all the time, their names bound by namerds that come and go. No request may fail."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from meshcore.binder.namerd_http import HttpInterpreter
from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.naming import Path
from tests.binder.conftest import Bound

PATIENCE_S = 60
NAMES = 20
"""Of each proxy; they share one id, and each is a watch of its own at the namerd."""
PER_CONNECTION = 50
"""Requests, after which a client comes anew: connections are a part of what must not fail."""


class Backends:
    """Servers that answer with their number. A table sends to one of them; which, its number tells."""

    def __init__(self, count: int = 3) -> None:
        self._count = count

    async def start(self) -> None:
        self._servers = [await asyncio.start_server(self._answering(number), "127.0.0.1", 0) for number in range(self._count)]
        self.ports = [server.sockets[0].getsockname()[1] for server in self._servers]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    def entry(self, table: int) -> str:
        """What the table of that number says of all names below /web."""
        return f"/web => /$/inet/127.0.0.1/{self.ports[table % self._count]}"

    def of(self, table: int) -> bytes:
        return b"%d" % (table % self._count)

    def _answering(self, number: int):
        body = b"%d" % number

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        return answer


class Client:
    """Asks one proxy for its names in turn, and never stops before it is told to."""

    def __init__(self, what: str, address: tuple[str, int], pace_s: float) -> None:
        self.what = what
        self._address = address
        self._pace_s = pace_s
        self.requests = 0
        self.connections = 0
        self.last: dict[str, bytes] = {}
        """The latest answer for each name."""

    def behind(self, answer: bytes) -> dict[str, bytes]:
        """The names whose latest answer is another one."""
        return {f"name-{name}": self.last.get(f"name-{name}", b"") for name in range(NAMES) if self.last.get(f"name-{name}") != answer}

    async def run(self) -> None:
        for name in itertools.cycle(range(NAMES)):
            if self.requests % PER_CONNECTION == 0:
                reader, writer = await self._connect()
            self.last[f"name-{name}"] = await self._ask(reader, writer, f"name-{name}")
            self.requests += 1
            if self.requests % PER_CONNECTION == 0:
                writer.close()
            await asyncio.sleep(self._pace_s)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.open_connection(*self._address)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        assert head.startswith(b"HTTP/1.1 200 "), f"{self.what}, request {self.requests} for {host}: {head.decode()}{body.decode(errors='replace')}"
        return body


class Traffic:
    """Two proxies beside each namerd, one that asks over HTTP and one over gRPC, each with a client."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self.clients: list[Client] = []

    @contextmanager
    def through(self, namerds: list[tuple[int, int]], namespace: str) -> Iterator[None]:
        """Proxies beside these namerds (HTTP port, gRPC port), while the block runs."""
        running = []
        try:
            for number, (http, mesh) in enumerate(namerds):
                for kind, port in ((HttpInterpreter, http), (MeshInterpreter, mesh)):
                    lookup = {"by": "header_token", "prefix": "/web"}
                    # An idle connection may be closed as a request comes: that is the client's to expect, and not the question.
                    made = Bound("", lookup=lookup, prefix=Path.of("web"), timeouts={"keep_alive": "1h"},
                                 interpreter=lambda kind=kind, port=port: kind("127.0.0.1", port, namespace))  # fmt: skip
                    running.append(made)
                    self.clients.append(Client(f"proxy of namerd {number} over {kind.__name__}", made.address, self._pace_s))
            yield
        finally:
            for one in running:
                one.stop()

    @property
    def requests(self) -> int:
        return sum(client.requests for client in self.clients)

    async def reaches(self, answer: bytes) -> None:
        """Until each client has heard it for every name: no proxy and no name is left behind."""
        deadline = time.monotonic() + 60
        while behind := [f"{client.what}: {client.behind(answer)}" for client in self.clients if client.behind(answer)]:
            assert time.monotonic() < deadline, f"still elsewhere than {answer!r}: {behind}"
            await asyncio.sleep(0.02)
