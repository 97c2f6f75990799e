"""Watches: handing every change to every reader, in order. Bounded per reader; knows no store.

Rules that hold for each reader:
  ordered     what it gets has ever higher revisions, except that a snapshot may begin anew
  gap-free    between two events lies nothing; what would be one becomes a snapshot
  bounded     at most `max_pending` changes wait for it; then they are dropped and a snapshot is read when it comes back
  no burden   a slow reader costs the others nothing, one that is gone costs nothing at all (the hub holds it weakly)
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Self

from ..errors import StoreUnavailable
from ..model.change import Change, Changes, Event, Position, Snapshot

MAX_PENDING = 4_096  # changes; a reader that far behind is served faster by one snapshot

ReadSnapshot = Callable[[Collection[str] | None], Awaitable[Snapshot[bytes]]]


class Watch:
    """One reader: an asynchronous iterator of events, ended by `close` or by the store."""

    def __init__(self, read_snapshot: ReadSnapshot, kinds: Collection[str] | None, max_pending: int) -> None:
        self.kinds = None if kinds is None else frozenset(kinds)
        self.position: Position | None = None
        """Up to where this reader has been told everything: resume from here."""
        self.collapsed = 0
        """How often it was too slow."""
        self._read_snapshot = read_snapshot
        self._max_pending = max_pending
        self._queue: deque[Changes[bytes]] = deque()
        self._pending = 0
        self._awaits_snapshot = False
        self.is_closed = False
        self._wake = asyncio.Event()

    # -- for the hub ------------------------------------------------------------------------------------------------

    def offer(self, batch: Changes[bytes]) -> None:
        """Queues what happened. Never waits, never fails."""
        if self._awaits_snapshot or self.is_closed:
            return
        wanted = batch.changes
        if self.kinds is not None:
            wanted = tuple(change for change in wanted if change.kind in self.kinds)
        if not wanted and self._queue:
            # Nothing for this reader: what waits for it simply leads a little further.
            self._queue[-1] = Changes(batch.position, self._queue[-1].changes)
            return
        if self._pending + len(wanted) > self._max_pending:
            self.collapse()
            self.collapsed += 1
            return
        self._queue.append(Changes(batch.position, wanted))
        self._pending += len(wanted)
        self._wake.set()

    def collapse(self) -> None:
        """Drops what waits; the next event will be a snapshot."""
        self._drop()
        self._awaits_snapshot = True
        self._wake.set()

    def resume(self, since: Position, past: Changes[bytes]) -> None:
        """Begins after `since` with what history tells. What was offered in the meantime stays behind it."""
        if self._awaits_snapshot:
            return
        self.position = since
        if self.kinds is not None:
            past = Changes(past.position, tuple(change for change in past.changes if change.kind in self.kinds))
        if len(past.changes) + self._pending > self._max_pending:
            self.collapse()
            return
        self._queue.appendleft(past)
        self._pending += len(past.changes)
        self._wake.set()

    # -- for the reader ---------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[bytes]:
        while not self.is_closed:
            if self._awaits_snapshot:
                return await self._snapshot()
            changes = self._take()
            if changes:
                assert self.position is not None
                return Changes(self.position, tuple(changes))
            if self._awaits_snapshot:
                continue
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """No more events; whoever waits for one stops waiting."""
        self.is_closed = True
        self._drop()
        self._wake.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        self._queue.clear()
        self._pending = 0

    def _take(self) -> list[Change[bytes]]:
        """All that waits, without what this reader knows already; moves its position."""
        taken: list[Change[bytes]] = []
        while self._queue:
            batch = self._queue.popleft()
            self._pending -= len(batch.changes)
            if self.position is None or self.position.epoch != batch.position.epoch:
                # Another life of the store: revisions of two lives cannot be put in order.
                self.collapse()
                return []
            if batch.position.revision <= self.position.revision:
                continue
            taken += [change for change in batch.changes if change.revision > self.position.revision]
            self.position = batch.position
        return taken

    async def _snapshot(self) -> Snapshot[bytes]:
        # From here on changes are queued again: those the snapshot has in it already are left out by their revision.
        self._awaits_snapshot = False
        try:
            snapshot = await self._read_snapshot(self.kinds)
        except BaseException:
            self.collapse()
            raise
        self.position = snapshot.position
        return snapshot


class Hub:
    """All readers of one store."""

    def __init__(self, read_snapshot: ReadSnapshot) -> None:
        self._read_snapshot = read_snapshot
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, kinds: Collection[str] | None, max_pending: int) -> Watch:
        """A new reader; what is published from now on is queued for it."""
        if self._is_closed:
            raise StoreUnavailable("the store is closed", is_unsent=True)
        watch = Watch(self._read_snapshot, kinds, max_pending)
        self._watches.add(watch)
        return watch

    def publish(self, batch: Changes[bytes]) -> None:
        """Tells every reader. Batches come in the order of their revisions."""
        for watch in tuple(self._watches):
            if watch.is_closed:
                self._watches.discard(watch)
            else:
                watch.offer(batch)

    def lose(self) -> None:
        """Something may have been missed: every reader begins again with a snapshot."""
        for watch in tuple(self._watches):
            watch.collapse()

    def close(self) -> None:
        """Ends every reader."""
        self._is_closed = True
        for watch in tuple(self._watches):
            watch.close()
        self._watches.clear()
