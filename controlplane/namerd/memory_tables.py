"""Tables in memory, `io.l5d.inMemory`: one replica, gone with it. The others are for what must last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from .store_tables import version_of
from .tables import KEPT, AlreadyThere, Missing, Record, Step, Table, Tables, Whole, WrongVersion


class MemoryTables(Tables):
    """Versions are numbers from 1, as namerd's are."""

    def __init__(self, tables: Mapping[str, str] | None = None, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._revision = 0
        self._tables: dict[str, Table] = {}
        self._records: dict[str, list[Record]] = {}
        self._steps: list[Step] = []
        self._stepped = asyncio.Event()
        for name, text in (tables or {}).items():
            self._write(name, text, "configuration")

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def get(self, namespace: str) -> Table | None:
        return self._tables.get(namespace)

    async def create(self, namespace: str, text: str, by: str) -> Table:
        if namespace in self._tables:
            raise AlreadyThere(f"there is a table '{namespace}' already")
        return self._write(namespace, text, by)

    async def put(self, namespace: str, text: str, by: str, version: bytes | None = None) -> Table:
        self._expect(namespace, version)
        return self._write(namespace, text, by)

    async def delete(self, namespace: str, by: str, version: bytes | None = None) -> int:
        self._expect(namespace, version)
        if namespace not in self._tables:
            raise Missing(f"there is no table '{namespace}'")
        del self._tables[namespace]
        return self._record(namespace, None, by)

    def _expect(self, namespace: str, version: bytes | None) -> None:
        if version is None:
            return
        if namespace not in self._tables:
            raise Missing(f"there is no table '{namespace}'")
        if self._tables[namespace].version != version:
            raise WrongVersion(f"table '{namespace}' has another version by now")

    def _write(self, namespace: str, text: str, by: str) -> Table:
        revision = self._record(namespace, text, by)
        table = Table(namespace, text, version_of(revision), revision)
        self._tables[namespace] = table
        self._steps[-1] = Step(namespace, revision, table)
        return table

    def _record(self, namespace: str, text: str | None, by: str) -> int:
        self._revision += 1
        version = version_of(self._revision) if text is not None else b""
        records = self._records.setdefault(namespace, [])
        records.append(Record(self._revision, version, text, by, time.time()))
        del records[: -self._kept]
        self._steps.append(Step(namespace, self._revision, None))
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()
        return self._revision

    async def history(self, namespace: str, most: int = KEPT) -> list[Record]:
        return self._records.get(namespace, [])[-most:]

    async def watch(self) -> AsyncIterator[Whole | Step]:
        """One reader: what it has taken is forgotten."""
        self._steps.clear()
        yield Whole(tuple(self._tables.values()))
        while True:
            stepped = self._stepped
            steps, self._steps = self._steps, []
            for step in steps:
                yield step
            if not steps:
                await stepped.wait()
