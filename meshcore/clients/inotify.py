"""inotify(7): that something in folders changed. Tells that, never what: who is told reads again, so nothing is lost.

Why by ctypes: three calls of libc. Packages for it wrap the same calls in threads or are no longer kept.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

# sys/inotify.h
CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, ATTRIB = 0x400, 0x800, 0x4
CHANGES = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ATTRIB
NONBLOCK, CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Watches of folders. `async for _ in inotify` wakes after changes in any of them, at once if there were some."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(NONBLOCK | CLOEXEC), "inotify_init1")
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._on_readable)

    def add(self, folder: str | Path) -> int:
        """Watches a folder from now on; adding it again is the same watch. OSError when it is not there."""
        mark = _libc.inotify_add_watch(self._fd, os.fsencode(folder), CHANGES)
        return _checked(mark, str(folder))

    def remove(self, mark: int) -> None:
        """Ends a watch; one that ended by itself is no error."""
        _libc.inotify_rm_watch(self._fd, mark)

    def __aiter__(self) -> AsyncIterator[None]:
        return self._changes()

    async def _changes(self) -> AsyncIterator[None]:
        while self._fd >= 0:
            await self._changed.wait()
            self._changed.clear()
            yield

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _on_readable(self) -> None:
        # An overflow of the queue (IN_Q_OVERFLOW) is an event as well: it, too, means "read again".
        try:
            while os.read(self._fd, 65_536):
                self._changed.set()
        except BlockingIOError:
            pass


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
