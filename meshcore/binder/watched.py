"""A live value that something far away feeds. While that is away the last good value stays, and is stale.

What feeds it is a coroutine that tells values until it breaks; then it is begun again, after waits that grow. It runs
while somebody follows the value, and a little longer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..namers.live import Live, Stale
from ..namers.source import LINGER_S, RETRY_S

# A value that was learnt from elsewhere is watched after this time, at the latest, and after half of it at the soonest. An edit of one table
# leads all proxies of a namerd to the same new ids: they ask for them one after the other, and not while the edit itself is told.
LEARNT_S = 1.0

T = TypeVar("T")
Tell = Callable[[T], None]

log = logging.getLogger("meshcore.binder")


class Tally:
    """What all watches of one place have seen together; it outlives each of them."""

    __slots__ = ("failures", "updates")

    def __init__(self) -> None:
        self.updates = self.failures = 0


class Watched(Live[T]):
    """`follow` tells each value; `failed` makes a value of a reason, for as long as nothing good is known."""

    def __init__(
        self, what: str, first: T, follow: Callable[[Tell[T]], Awaitable[None]], failed: Callable[[str], T],
        tally: Tally, *, linger_s: float = LINGER_S,
    ) -> None:  # fmt: skip
        super().__init__(first)
        self._what = what
        self._first = first
        self._follow = follow
        self._failed = failed
        self._tally = tally
        self._linger_s = linger_s
        self._is_known = self._is_learnt = False
        self._failures = 0
        self._stale: Stale | None = None
        self._task: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def stale(self) -> Stale | None:
        return self._stale

    @property
    def is_watching(self) -> bool:
        return self._task is not None

    def _begin(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._what)

    def _end(self) -> None:
        if self._task is not None:
            self._lingering = asyncio.get_running_loop().call_later(self._linger_s, self._forget)

    def _forget(self) -> None:
        """Nobody came back: what was known may be wrong by the time that somebody does."""
        self.stop()
        self._now, self._stale, self._is_known, self._failures = self._first, None, False, 0
        self._is_learnt = False

    def stop(self) -> None:
        """End what feeds it. The value stays."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def learn(self, value: T) -> None:
        """A first value, told by another way. One that is watched knows better."""
        if not self._is_known:
            self._is_known = self._is_learnt = True
            self._set(value)
        elif self._is_learnt and self._task is None:
            self._set(value)

    def _tell_value(self, value: T) -> None:
        self._failures = 0
        self._tally.updates += 1
        self._is_known, self._is_learnt = True, False
        if self._stale is not None:
            self._stale = None
            log.info("%s is there again", self._what)
        self._set(value)

    async def _run(self) -> None:
        if self._is_learnt:
            await asyncio.sleep(LEARNT_S * random.uniform(0.5, 1.0))
        while True:
            try:
                await self._follow(self._tell_value)
                why = "the other side ended the watch"
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever a client of the network raises: it is told, and tried again
                why = f"{error}" or type(error).__name__
            self._lost(why)
            wait = RETRY_S[min(self._failures, len(RETRY_S)) - 1]
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))

    def _lost(self, why: str) -> None:
        self._failures += 1
        self._tally.failures += 1
        if not self._is_known:
            self._set(self._failed(why))
        elif self._stale is None and self._failures > 1:
            # One break is a restart or a connection's end, and is mended within the first retry.
            self._stale = Stale(time.time(), why)
            log.warning("%s is away, its last answer stays: %s", self._what, why)
            self._tell()
