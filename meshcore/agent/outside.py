"""Names outside the mesh, as this machine's own resolver knows them: asked, kept fresh while they are used, bounded.

The system's resolver, with its hosts file and its search list, is what the application would have asked without us.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from .authority import authority_of

REFRESH_S = 30.0  # getaddrinfo tells no TTL; most of them are longer
RETRY_S = 5.0
MAX_AT_ONCE = 16  # each takes a thread
MAX_ADDRESSES = 64


class Outside:
    """Follows names until they are dropped. On one loop."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...] | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    def follow(self, path: str, on_change: Callable[[], None]) -> None:
        """Ask for it now and from time to time; on_change when its addresses change. Nothing when it is followed already."""
        if path not in self._tasks:
            self._known[path] = None
            self._tasks[path] = asyncio.get_running_loop().create_task(self._follow(path, on_change))

    def addresses(self, path: str) -> tuple[str, ...] | None:
        """What is known: None while nothing is, () for a name that does not exist."""
        return self._known.get(path)

    def drop(self, path: str) -> None:
        self._known.pop(path, None)
        if (task := self._tasks.pop(path, None)) is not None:
            task.cancel()

    def close(self) -> None:
        for path in list(self._tasks):
            self.drop(path)

    async def _follow(self, path: str, on_change: Callable[[], None]) -> None:
        while True:
            async with self._places:
                found = await _resolve(path)
            # What was good stays while the resolver has nothing better.
            now = found if found or not self._known.get(path) else self._known[path]
            if now != self._known.get(path):
                self._known[path] = now
                on_change()
            await asyncio.sleep(REFRESH_S if found else RETRY_S)


async def _resolve(path: str) -> tuple[str, ...]:
    authority = authority_of(path)
    if authority is None:
        return ()
    if authority.is_address:
        return (authority.path,)
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(authority.host, authority.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    hosts = ((row[0], str(row[4][0])) for row in rows)
    texts = (f"[{host}]:{authority.port}" if family == socket.AF_INET6 else f"{host}:{authority.port}" for family, host in hosts)
    return tuple(dict.fromkeys(text for text in texts if "%" not in text))[:MAX_ADDRESSES]
