"""Tables in the store of the control plane: SQLite or etcd. A write and its record are one transaction."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from ..errors import Conflict, Unreadable
from ..model.change import Entry, Snapshot
from ..store import Delete, Operation, Put, Store
from .tables import KEPT, AlreadyThere, Missing, Record, Step, Table, Tables, Whole, WrongVersion

KIND, HISTORY = "dtab", "dtab_history"
TRIES = 50
"""Of a write without a version, against others that write at the same time. Each try means that another one got through."""


class Stored(msgspec.Struct, frozen=True):
    """The value of both kinds. `number` counts the writes of a namespace, from 1; removals count."""

    number: int
    text: str | None
    by: str = ""
    time_s: float = 0.0


_decode = msgspec.json.Decoder(Stored).decode
_encode = msgspec.json.Encoder().encode


class StoreTables(Tables):
    """Over any store of the control plane."""

    def __init__(self, store: Store, *, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._kept = kept
        self._clock = clock

    async def open(self) -> None:
        await self.store.open()

    async def close(self) -> None:
        await self.store.close()

    async def get(self, namespace: str) -> Table | None:
        entry = await self.store.get(KIND, namespace)
        return None if entry is None else _table(entry)

    async def create(self, namespace: str, text: str, by: str) -> Table:
        def decide(entry: Entry[bytes] | None) -> None:
            if entry is not None:
                raise AlreadyThere(f"there is a table '{namespace}' already")

        return _written(namespace, text, await self._write(namespace, text, by, decide))

    async def put(self, namespace: str, text: str, by: str, version: bytes | None = None) -> Table:
        return _written(namespace, text, await self._write(namespace, text, by, _expecting(namespace, version)))

    async def delete(self, namespace: str, by: str, version: bytes | None = None) -> int:
        expecting = _expecting(namespace, version)

        def decide(entry: Entry[bytes] | None) -> None:
            if entry is None:
                raise Missing(f"there is no table '{namespace}'")
            expecting(entry)

        return await self._write(namespace, None, by, decide)

    async def _write(
        self, namespace: str, text: str | None, by: str, decide: Callable[[Entry[bytes] | None], None]
    ) -> int:
        """Decides by the entry as it is now, and writes only over that one."""
        for attempt in range(TRIES):
            entry = await self.store.get(KIND, namespace)
            decide(entry)
            number = await self._next_number(namespace, entry)
            value = _encode(Stored(number, text, by, self._clock()))
            revision = 0 if entry is None else entry.revision
            here: Operation = Delete(KIND, namespace, revision) if text is None else Put(KIND, namespace, value, revision)
            operations = [here, Put(HISTORY, _record_key(namespace, number), value, 0)]
            if number > self._kept:
                operations.append(Delete(HISTORY, _record_key(namespace, number - self._kept)))
            try:
                return (await self.store.apply(*operations)).revision
            except Conflict:
                await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 10)))
        raise WrongVersion(f"table '{namespace}' is being written by others all the time: gave up after {TRIES} tries")

    async def _next_number(self, namespace: str, entry: Entry[bytes] | None) -> int:
        if entry is not None:
            return _stored(entry).number + 1
        records = (await self.store.list([HISTORY], f"{namespace}/")).entries
        return max((int(record.key.rpartition("/")[2]) for record in records), default=0) + 1

    async def history(self, namespace: str, most: int = KEPT) -> list[Record]:
        records = (await self.store.list([HISTORY], f"{namespace}/")).entries
        return [_record(entry) for entry in records[-most:]]

    async def watch(self) -> AsyncIterator[Whole | Step]:
        async with await self.store.watch(None, [KIND]) as events:
            async for event in events:
                if isinstance(event, Snapshot):
                    yield Whole(tuple(_table(entry) for entry in event.entries))
                    continue
                for change in event.changes:
                    table = None
                    if change.value is not None:
                        table = _table(Entry(KIND, change.key, change.value, change.revision))
                    yield Step(change.key, change.revision, table)


def _expecting(namespace: str, version: bytes | None) -> Callable[[Entry[bytes] | None], None]:
    def decide(entry: Entry[bytes] | None) -> None:
        if version is None:
            return
        if entry is None:
            raise Missing(f"there is no table '{namespace}'")
        if version_of(entry.revision) != version:
            raise WrongVersion(f"table '{namespace}' has another version by now")

    return decide


def version_of(revision: int) -> bytes:
    """Eight bytes, as namerd's store in memory has them."""
    return revision.to_bytes(8, "big")


def _record_key(namespace: str, number: int) -> str:
    return f"{namespace}/{number:012}"


def _stored(entry: Entry[bytes]) -> Stored:
    try:
        return _decode(entry.value)
    except msgspec.MsgspecError as error:
        raise Unreadable(entry.kind, entry.key, str(error)[:200]) from None


def _table(entry: Entry[bytes]) -> Table:
    """What somebody else wrote there may be anything: it is told as a table that cannot be read."""
    try:
        text = _decode(entry.value).text or ""
    except msgspec.MsgspecError:
        text = entry.value.decode(errors="replace")
    return Table(entry.key, text, version_of(entry.revision), entry.revision)


def _written(namespace: str, text: str, revision: int) -> Table:
    return Table(namespace, text, version_of(revision), revision)


def _record(entry: Entry[bytes]) -> Record:
    stored = _stored(entry)
    return Record(entry.revision, version_of(entry.revision), stored.text, stored.by, stored.time_s)
