"""The model in a store: typed values in, typed values out, every write checked. Owns no storage and no rule of a kind.

Reading never fails as a whole for one bad record: what this version cannot read is passed over and named in
`unreadable`, so that one record written by a newer version, or by hand, does not stall everybody
(linkerd/linkerd#1759).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import TypeVar

import msgspec

from .audit import Audit
from .errors import Unreadable
from .model import KINDS, Change, Changes, Entry, Event, Named, Position, Snapshot, decode, encode
from .store import Delete, Lease, Operation, Put, Store

N = TypeVar("N", bound=Named)


class Listing(msgspec.Struct, frozen=True):
    """Entries at a position, and the keys of those that cannot be read."""

    position: Position
    entries: tuple[Entry[Named], ...]
    unreadable: tuple[str, ...] = ()


class Catalogue:
    """Services, workloads, endpoints and policies of one mesh. Changes are audited under the name of who asked."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self.store = store
        self._audit = audit

    async def get(self, kind: type[N], key: str) -> Entry[N] | None:
        """One value; Unreadable when it is there and cannot be read."""
        entry = await self.store.get(kind.kind, key)
        if entry is None:
            return None
        value = decode(kind.kind, key, entry.value)
        assert isinstance(value, kind)
        return Entry(kind.kind, key, value, entry.revision, entry.lease)

    async def list(self, *kinds: type[Named], prefix: str = "") -> Listing:
        """All values of these kinds (none named: of all kinds) whose key begins with `prefix`."""
        snapshot = await self.store.list([kind.kind for kind in kinds] or KINDS, prefix)
        entries, unreadable = _readable(snapshot.entries)
        return Listing(snapshot.position, entries, unreadable)

    async def put(self, *values: Named, by: str, expected: int | None = None) -> Position:
        """Writes values, all or none. `expected` is the revision of each; what has a lease vanishes with it."""
        operations: list[Operation] = []
        for value in values:
            lease = getattr(value, "lease", 0)
            operations.append(Put(value.kind, value.key, encode(value), expected, lease))
        return await self._apply("model_put", by, operations)

    async def delete(self, kind: type[Named], key: str, *, by: str, expected: int | None = None) -> Position:
        """Removes one value."""
        return await self._apply("model_delete", by, [Delete(kind.kind, key, expected)])

    async def register(self, *values: Named, ttl_s: int, by: str) -> Lease:
        """Writes workloads and endpoints that live as long as their owner shows that it does."""
        for value in values:
            encode(value)  # a lease is not granted for what will be refused
        lease = await self.store.grant(ttl_s)
        try:
            await self.put(*(msgspec.structs.replace(value, lease=lease.id) for value in values), by=by)
        except BaseException:
            await self.store.revoke(lease.id)
            raise
        return lease

    async def _apply(self, event: str, by: str, operations: Sequence[Operation]) -> Position:
        what = [f"{operation.kind} {operation.key}" for operation in operations]
        try:
            position = await self.store.apply(*operations)
        except Exception as error:
            self._audit.record(event, outcome="failed", actor=by, what=what, why=str(error)[:300])
            raise
        self._audit.record(event, outcome="done", actor=by, what=what, revision=position.revision)
        return position

    async def watch(self, since: Position | None = None, *kinds: type[Named]) -> AsyncIterator[Event[Named]]:
        """Events with typed values. What cannot be read is told as deleted: nobody acts on half a record."""
        async with await self.store.watch(since, [kind.kind for kind in kinds] or KINDS) as watch:
            async for event in watch:
                if isinstance(event, Snapshot):
                    yield Snapshot(event.position, _readable(event.entries)[0])
                else:
                    yield Changes(event.position, tuple(_typed(change) for change in event.changes))


def _readable(entries: Collection[Entry[bytes]]) -> tuple[tuple[Entry[Named], ...], tuple[str, ...]]:
    found, unreadable = [], []
    for entry in entries:
        try:
            value = decode(entry.kind, entry.key, entry.value)
        except Unreadable:
            unreadable.append(f"{entry.kind} {entry.key}")
        else:
            found.append(Entry(entry.kind, entry.key, value, entry.revision, entry.lease))
    return tuple(found), tuple(unreadable)


def _typed(change: Change[bytes]) -> Change[Named]:
    try:
        value = None if change.value is None else decode(change.kind, change.key, change.value)
    except Unreadable:
        value = None
    return Change(change.revision, change.kind, change.key, value)
