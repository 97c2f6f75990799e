"""A name bound by a real namerd to `a | b`: requests go over to b while a has nobody left, and come back with a."""

import asyncio
import contextlib
import socket

import pytest

from meshcore.binder.namerd_http import HttpInterpreter
from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.binder.policies import Policies
from meshcore.config.addresses import split_address
from tests.binder.conftest import Bound

from .served import DTAB, memory, served

# An ejected endpoint is asked again soon: a test does not wait for seconds.
QUICK = Policies.of_all(breaker={"consecutive_failures": 1, "backoff": "50ms", "max_backoff": "50ms", "panic_percent": 0})
PATIENCE_S = 20


class Answering:
    """A server that answers with its name, and can be away."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        with socket.create_server(("127.0.0.1", 0)) as place:
            self.port = place.getsockname()[1]

    async def start(self) -> None:
        self._open: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self._name), self._name))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


async def ask(address) -> bytes:
    """The body of an answer, which must be a 200."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return body


async def until(address, expected: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await ask(address) != expected:
            await asyncio.sleep(0.01)


BOTH = pytest.mark.parametrize("kind", ["http", "mesh"])


@contextlib.asynccontextmanager
async def shop(kind):
    """(namerd, address of a proxy whose names it binds, servers a and b)."""
    servers = Answering("a"), Answering("b")
    for one in servers:
        await one.start()
    table = "/svc/web => " + " | ".join(f"/$/inet/127.0.0.1/{one.port}" for one in servers)
    async with served(memory(default=table)) as namerd:

        def interpreter():
            host, port = split_address(namerd.namerd.addresses[kind])
            return (HttpInterpreter if kind == "http" else MeshInterpreter)(host, port, "default")

        running = Bound("", interpreter=interpreter, clients=QUICK)
        try:
            yield namerd, running.address, *servers
        finally:
            await asyncio.to_thread(running.stop)
            for one in servers:
                await one.stop()


@BOTH
async def test_requests_go_over_while_the_winner_has_nobody_and_no_request_fails(kind):
    async with shop(kind) as (_, address, a, _):
        assert [await ask(address) for _ in range(3)] == [b"a"] * 3
        await a.stop()
        assert [await ask(address) for _ in range(20)] == [b"b"] * 20
        await a.start()
        await until(address, b"a")


@BOTH
async def test_an_edit_takes_the_alternative_away_and_gives_it_back(kind):
    async with shop(kind) as (namerd, address, a, b):
        assert await ask(address) == b"a"
        first, second = (f"/$/inet/127.0.0.1/{one.port}" for one in (a, b))
        for tree, expected in ((second, b"b"), (f"{second} | {first}", b"b"), (f"{first} | {second}", b"a")):
            assert (await namerd.ask("PUT", "/dtabs/default", f"/svc/web => {tree}", kind=DTAB)).status == 204
            await until(address, expected)
        await a.stop()
        await until(address, b"b")
