"""A dtab in a file (`io.l5d.fs` interpreter): live, by inotify. A file that is no dtab keeps the last good one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path as File

from ..naming import EMPTY_DTAB, Dtab, NamingError, check, read_dtab
from ..namers.live import Live

MOST_BYTES = 8 * 1024 * 1024
FOLDER_IS_BACK_S = 1.0

log = logging.getLogger("meshcore.binder")


class DtabFile(Live[Dtab]):
    """Read once at the start, which raises what is wrong; then as often as it changes, which is told and changes nothing."""

    def __init__(self, file: File) -> None:
        super().__init__(EMPTY_DTAB)
        self.file = file
        self._now = self._read()
        self._task: asyncio.Task[None] | None = None

    def _read(self) -> Dtab:
        with self.file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise NamingError(f"{self.file}: more than 8 MiB")
        try:
            dtab = read_dtab(raw.decode())
        except UnicodeDecodeError as error:
            raise NamingError(f"{self.file}: byte {error.start} is not UTF-8") from None
        except NamingError as error:
            raise NamingError(f"{self.file}: {error}") from None
        for fault in check(dtab):
            log.warning("%s: %s", self.file, fault.message)
        return dtab

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"dtab {self.file}")

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _follow(self) -> None:
        from ..clients.inotify import Inotify

        while True:
            with contextlib.suppress(OSError):  # the folder is gone: look again for it
                async with Inotify() as inotify:
                    inotify.add(self.file.parent)
                    self._read_again()
                    async for _ in inotify:
                        self._read_again()
            await asyncio.sleep(FOLDER_IS_BACK_S)

    def _read_again(self) -> None:
        try:
            self._set(self._read())
        except NamingError as error:
            log.error("the last good table stays: %s", error)
        except OSError as error:
            log.error("the last good table stays: %s: %s", self.file, error.strerror or error)
