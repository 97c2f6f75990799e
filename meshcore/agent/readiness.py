"""Whether the application takes connections: callers are told of a member only while it does.

A look at the kernel's table of listening sockets costs the application nothing. Where nobody listens in our own network
namespace (a container's port that is forwarded, for one), a connection is tried and closed again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

STARTING_S = 0.1  # between two looks until it listens for the first time
RUNNING_S = 1.0  # and from then on
MISSES = 3  # in a row: an application that is started anew in between is not noticed
CONNECT_S = 1.0
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h


class Readiness:
    """`run` calls on_change, at first with True, whenever the application begins or ceases to listen at `port`."""

    def __init__(self, port: int, on_change: Callable[[bool], None]) -> None:
        self._port = port
        self._on_change = on_change

    async def run(self) -> None:
        await self._until_it_listens()
        misses = 0
        while True:
            await asyncio.sleep(RUNNING_S)
            misses = 0 if await listens(self._port) else misses + 1
            if misses == MISSES:
                self._on_change(False)
                await self._until_it_listens()
                misses = 0

    async def _until_it_listens(self) -> None:
        while not await listens(self._port):
            await asyncio.sleep(STARTING_S)
        self._on_change(True)


async def listens(port: int) -> bool:
    """Whether somebody takes connections at this port of this machine."""
    if any(_is_listed(table, port) for table in _TABLES):
        return True
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_S):
            # Not from 127.0.0.1: a port that nobody holds may be given to the very socket that asks for it, which then meets itself.
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        writer.close()
        return True
    return False


def _is_listed(table: Path, port: int) -> bool:
    """Listening sockets come first in the table (proc(5)): the connections behind them are not read."""
    wanted = f":{port:04X}"
    with contextlib.suppress(OSError), table.open() as lines:
        next(lines, None)
        for line in lines:
            _, local, _, state = line.split(None, 4)[:4]
            if state != _LISTEN:
                return False
            if local.endswith(wanted):
                return True
    return False
