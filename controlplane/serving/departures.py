"""Members whose stream broke: taken out after a grace, and before their lease ends, unless it looks as if it was not they that broke.

A process that dies closes its connections, and its callers need not wait for the end of a lease to hear of it. Who comes back
within the grace has a new lease, and nothing hangs on the old one. Where more have gone than are left, the way to
them broke, or this replica stood still: then leases decide, as they do where a connection is lost without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator

from ..errors import StoreUnavailable
from ..store import Store

GRACE_S = 1.5  # a proxy's first tries to come again take less than a second
MAX_WAITING = 10_000  # beyond, leases decide
_log = logging.getLogger("controlplane.departures")


class Departures:
    """Those who keep a claim here, and those who did a moment ago."""

    def __init__(self, store: Store, is_draining: Callable[[], bool] = lambda: False, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._is_draining = is_draining
        self._grace_s = grace_s
        self._waiting: set[asyncio.Task[None]] = set()
        self._lately: deque[float] = deque()
        self.here = 0
        self.taken_out = 0
        self.left_to_leases = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """One who keeps a claim, as long as the block lasts."""
        self.here += 1
        try:
            yield
        finally:
            self.here -= 1

    def broke(self, lease: int) -> None:
        """The stream that kept this lease ended without a word."""
        if lease and len(self._waiting) < MAX_WAITING and not self._is_draining():
            loop = asyncio.get_running_loop()
            self._lately.append(loop.time())
            task = loop.create_task(self._end(lease))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _end(self, lease: int) -> None:
        await asyncio.sleep(self._grace_s)
        if self._is_draining():
            return
        if (lately := self._broke_lately()) > self.here:
            self.left_to_leases += 1
            _log.warning("%d streams of members broke at once and %d are left: their leases decide", lately, self.here)
            return
        with contextlib.suppress(StoreUnavailable):  # then it ends by itself
            await self._store.revoke(lease)
            self.taken_out += 1

    def _broke_lately(self) -> int:
        """How many, those that came back included: at any decision about one of those that broke together, all of them."""
        since = asyncio.get_running_loop().time() - 2 * self._grace_s
        while self._lately and self._lately[0] < since:
            self._lately.popleft()
        return len(self._lately)

    async def close(self) -> None:
        """Nobody is taken out by the end of a replica."""
        for task in tuple(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
