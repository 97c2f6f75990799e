"""Names outside the mesh, as this machine's own resolver knows them: asked, kept fresh while they are used, bounded.

The system's resolver, with its hosts file and its search list, is what the application would have asked without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

from .authority import authority_of

REFRESH_S = 30.0  # getaddrinfo tells no TTL; most of them are longer
RETRY_S = 5.0
MAX_AT_ONCE = 16  # each takes a thread, until the resolver answers or gives up
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
            found = await self._resolve(path)
            # What was good stays while the resolver has nothing better.
            now = found if found or not self._known.get(path) else self._known[path]
            if now != self._known.get(path):
                self._known[path] = now
                on_change()
            await asyncio.sleep(REFRESH_S if found else RETRY_S)

    async def _resolve(self, path: str) -> tuple[str, ...]:
        authority = authority_of(path)
        if authority is None:
            return ()
        if authority.is_address:
            return (authority.path,)
        host, port = authority.host, authority.port
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def tell(found: tuple[str, ...]) -> None:
            self._places.release()
            if not answered.done():
                answered.set_result(found)

        def ask() -> None:
            found = _ask(host, port)
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(tell, found)

        # Not an executor's: those are waited for at the end, and a resolver may take half a minute to give up.
        try:
            threading.Thread(target=ask, name="meshcore-resolver", daemon=True).start()
        except RuntimeError:  # the system has no thread to give
            tell(())
        return await answered


def _ask(host: str, port: int) -> tuple[str, ...]:
    """What the system's resolver says. Blocks."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    hosts = ((row[0], str(row[4][0])) for row in rows)
    texts = (f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}" for family, host in hosts)
    return tuple(dict.fromkeys(text for text in texts if "%" not in text))[:MAX_ADDRESSES]
