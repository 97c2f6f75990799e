"""Sources: one watcher for each key in use, the last good answer while the world is away. Knows no protocol.

A watcher that breaks is started again after a wait that grows; what it said last stays, and is stale from then on. A key
that nobody follows is let go after `linger_s`. Theirs to beat: linkerd/linkerd#1730, #2121, #1230, #1766.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import msgspec

from ..errors import MeshError
from ..naming import Failed, Path, Pending
from .live import Live, Stale
from .states import State

_log = logging.getLogger(__name__)

RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits after failures in a row, each cut by up to a half; the last one stays. Theirs waited up to ten minutes."""
LINGER_S = 30.0
"""A name asked for twice within it costs the catalogue one watch."""
MOST_KEYS = 10_000
"""Names come from requests: a scan must not become as many watches of the catalogue (linkerd#1766)."""


class SourceError(MeshError):
    """The world does not answer, or answers what cannot be understood."""

    default_source = "upstream"


class SourceHealth(msgspec.Struct, frozen=True):
    """How a source does: for metrics and checks."""

    keys: int
    stale_keys: int
    oldest_stale_s: float
    updates: int
    failures: int


class SourceCell(Live[State]):
    """What is known of one key."""

    def __init__(self, source: Source, key: Path) -> None:
        super().__init__(Pending())
        self.key = key
        self._source = source
        self._stale: Stale | None = None
        self._task: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self.failures = 0

    @property
    def stale(self) -> Stale | None:
        return self._stale

    def hear(self, state: State) -> None:
        """The source said something; a failure that it tells of itself is one, and leaves the last good answer."""
        if isinstance(state, Failed):
            self.lose(state.message)
            return
        self.failures = 0
        self._source.updates += 1
        if self._stale is not None:
            self._stale = None
            self._tell()
        self._set(state)

    def lose(self, why: str) -> None:
        """The source does not answer. Only where nothing good is known it is told as a failure."""
        self.failures += 1
        self._source.failures += 1
        if isinstance(self._now, (Pending, Failed)):
            self._set(Failed(why))
        elif self._stale is None:
            self._stale = Stale(time.time(), why)
            self._tell()

    def _begin(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._task is None and not self._source.is_closed:
            self._source.cells[self.key] = self
            self._task = asyncio.create_task(self._follow(), name=f"{self._source.name} {self.key}")

    def _end(self) -> None:
        if self._task is not None:
            self._lingering = asyncio.get_running_loop().call_later(self._source.linger_s, self.stop)

    def stop(self, why: str = "") -> None:
        """Ends the watcher. Who closes the source says why, and what was known stays; else it is forgotten."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._source.cells.get(self.key) is self:
            del self._source.cells[self.key]
        if why:
            self.lose(why)
        else:
            self._stale, self._now, self.failures = None, Pending(), 0

    async def _follow(self) -> None:
        source = self._source
        while True:
            try:
                if len(source.cells) > source.most_keys:
                    raise SourceError(f"{source.name}: more than {source.most_keys} names are in use")
                await source.follow(self.key, self.hear)
                why = f"{source.name}: the watch of {self.key} ended"
            except (MeshError, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            except Exception as error:
                _log.exception("%s: watching %s broke in an unforeseen way", source.name, self.key)
                why = f"{source.name}: {type(error).__name__}: {error}"
            if self.failures == 0:
                _log.warning("%s: %s cannot be watched: %s", source.name, self.key, why)
            self.lose(why)
            wait_s = source.retry_s[min(self.failures, len(source.retry_s)) - 1]
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))


class Source(ABC):
    """Where states of keys come from."""

    retry_s: ClassVar[tuple[float, ...]] = RETRY_S

    def __init__(self, name: str, *, linger_s: float = LINGER_S, most_keys: int = MOST_KEYS) -> None:
        self.name = name
        self.linger_s = linger_s
        self.most_keys = most_keys
        self.cells: dict[Path, SourceCell] = {}
        self.updates = self.failures = 0
        self.is_closed = False

    @abstractmethod
    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        """Tells the state of a key, and again when it changes, until it is cancelled. Raises when the world is away.

        `Failed` is for one that will notice by itself when it is over: it keeps the last good answer, as raising does.
        """

    def cell(self, key: Path) -> SourceCell:
        """The live state of a key; the same one for all who ask while it is in use."""
        return self.cells.get(key) or SourceCell(self, key)

    def health(self) -> SourceHealth:
        stale = [cell.stale for cell in self.cells.values() if cell.stale is not None]
        oldest_s = time.time() - min(one.since for one in stale) if stale else 0.0
        return SourceHealth(len(self.cells), len(stale), max(0.0, oldest_s), self.updates, self.failures)

    async def close(self) -> None:
        """Ends every watcher; what was known stays known, and stale."""
        self.is_closed = True
        cells = tuple(self.cells.values())
        tasks = [cell._task for cell in cells if cell._task is not None]
        for cell in cells:
            cell.stop(f"{self.name} is closed")
        await asyncio.gather(*tasks, return_exceptions=True)
