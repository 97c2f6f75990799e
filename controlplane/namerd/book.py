"""The tables of one replica: each parsed, its last good form live, its latest revisions in order. Writes nothing to a store.

Rules:
  last good   a table that does not parse never replaces the one before it; it is told in log, metrics and checks
  in order    whoever reads revisions gets each one once, in order, as long as it is not slower than the journal is long
  no gap      what a store tells only as a whole is filled in from its records
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

import msgspec

from meshcore.errors import MeshError
from meshcore.namers import Cell
from meshcore.naming import EMPTY_DTAB, Dtab, NamingError, read_dtab

from .tables import MAX_TABLE_BYTES, Record, Step, Table, Tables, Whole

_log = logging.getLogger(__name__)

JOURNAL = 256
"""Revisions of one namespace that are held for readers; one that is further behind gets the newest."""
REMEMBERED = 16
"""Texts of writes under way."""
RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0)
PROBE_S = 2.0
"""Between two questions whether the store answers: a watch of one that is away may simply be silent."""


class Revision(msgspec.Struct, frozen=True):
    """One table as it was. `dtab` is None for a removal and for a text that is none, then `fault` says why."""

    revision: int
    version: bytes
    text: str | None
    dtab: Dtab | None
    fault: str = ""
    by: str = ""
    time_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.fault


class Namespace:
    """One namespace, whether it has a table or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dtab: Cell[Dtab] = Cell(EMPTY_DTAB)
        """The last good table; empty where there is none."""
        self.good: Cell[Revision | None] = Cell(None)
        """The same with its version; None where there is none."""
        self.latest: Cell[Revision | None] = Cell(None)
        """What the store has, good or not; None before anything was heard of it."""
        self.journal: deque[Revision] = deque(maxlen=JOURNAL)
        self._arrived = asyncio.Event()

    @property
    def fault(self) -> str:
        """Why what the store has is not what is used; "" when it is."""
        latest = self.latest.now
        return latest.fault if latest is not None else ""

    @property
    def exists(self) -> bool:
        latest = self.latest.now
        return latest is not None and latest.text is not None

    def arrive(self, revision: Revision) -> None:
        """The next one. What is not newer than the last is known already."""
        last = self.latest.now
        if last is not None and revision.revision <= last.revision:
            return
        self.latest.set(revision)
        self.journal.append(revision)
        if revision.is_good:
            self.dtab.set(revision.dtab or EMPTY_DTAB)
            self.good.set(revision if revision.text is not None else None)
        else:
            _log.error("the table '%s' in the store is bad and is not used: %s", self.name, revision.fault)
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    async def revisions(self, after: int) -> AsyncIterator[Revision]:
        """Every revision behind `after`, in order; the newest alone when the journal does not reach back so far."""
        while True:
            arrived = self._arrived
            pending = [one for one in self.journal if one.revision > after]
            for one in pending:
                after = one.revision
                yield one
            if not pending:
                await arrived.wait()

    def holds(self, revision: int, version: bytes) -> bool:
        """Whether the journal knows this revision, so that a reader may go on from it."""
        return any(one.revision == revision and one.version == version for one in self.journal)


class Book:
    """All namespaces of a store, followed for as long as the book is open."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.names: Cell[tuple[str, ...]] = Cell(())
        """The namespaces that have a table, sorted."""
        self.fault = ""
        """Why the store cannot be followed at this moment."""
        self.revisions = self.bad_revisions = self.outages = 0
        self._with_table: dict[str, Namespace] = {}
        self._all: weakref.WeakValueDictionary[str, Namespace] = weakref.WeakValueDictionary()
        self._ready = asyncio.Event()
        self._is_open = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Returns when the tables are known, however long the store takes: who answered before would deny names that exist."""
        self._tasks.append(asyncio.create_task(self._follow(), name="tables"))
        await self._ready.wait()
        self._tasks.append(asyncio.create_task(self._probe(), name="probe of the tables"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.tables.close()

    def namespace(self, name: str) -> Namespace:
        """A namespace; one without a table is as one with an empty one, and may get one at any time.

        Who asks holds it for as long as its cells are followed: one without a table is forgotten with its last holder.
        """
        found = self._all.get(name)
        if found is None:
            found = self._all[name] = Namespace(name)
        return found

    def bad(self) -> list[Namespace]:
        """The namespaces whose stored table is not the one in use."""
        return [one for one in self._with_table.values() if one.fault]

    def __len__(self) -> int:
        return len(self._with_table)

    async def written(self, namespace: str, revision: int, timeout_s: float = 5.0) -> None:
        """Waits until a write of ours has come back, so that who wrote it reads it here. Never fails: it may be slow."""
        known = self.namespace(namespace)  # held here: the book holds those without a table weakly
        await known.latest.settled_when(lambda one: one is not None and one.revision >= revision, timeout_s)

    # -- following

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if not self._is_open:
                    await self.tables.open()
                    self._is_open = True
                async with contextlib.aclosing(self.tables.watch()) as events:  # type: ignore[type-var]
                    async for event in events:
                        if isinstance(event, Whole):
                            await self._take_whole(event)
                        else:
                            self._take_step(event)
                        failures = 0
                        self._mend()
                        self._ready.set()
                why = "the watch ended"
            except MeshError as error:
                why = str(error)
            except Exception as error:
                _log.exception("following the tables broke in an unforeseen way")
                why = f"{type(error).__name__}: {error}"
            failures += 1
            self._break(why)
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S)) - 1] * random.uniform(0.5, 1.0))

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S * random.uniform(0.8, 1.0))
            try:
                await self.tables.get("probe")
            except MeshError as error:
                self._break(str(error))
            else:
                self._mend()

    def _break(self, why: str) -> None:
        if not self.fault:
            self.outages += 1
            _log.warning("the store of the tables is away: %s", why)
        self.fault = why

    def _mend(self) -> None:
        if self.fault:
            _log.warning("the store of the tables is back")
        self.fault = ""

    def _take_step(self, step: Step) -> None:
        if step.table is None:
            self._arrive(step.namespace, Revision(step.revision, b"", None, None))
        else:
            self._arrive(step.namespace, read(step.table))
        self._list()

    async def _take_whole(self, whole: Whole) -> None:
        """What was missed is read from the records, so that a reader of revisions misses none."""
        there = {table.namespace: table for table in whole.tables}
        heard_of = [name for name, one in self._all.items() if one.latest.now is not None]
        for name in {*there, *heard_of}:
            table = there.get(name)
            known = self._all.get(name)
            last = known.latest.now if known is not None else None
            if last is not None and (table is None or table.revision > last.revision):
                newest = table.revision if table is not None else None
                for record in await self.tables.history(name):
                    if record.revision > last.revision and (newest is None or record.revision < newest):
                        self._arrive(name, _of_record(name, record))
            if table is not None:
                if last is not None and table.revision < last.revision:
                    self._forget(name)  # the store is another one, or older than it was
                self._arrive(name, read(table))
            elif (now := self.namespace(name).latest.now) is not None and now.text is not None:
                self._arrive(name, Revision(now.revision + 1, b"", None, None))
        self._list()

    def _forget(self, name: str) -> None:
        _log.warning("the store has an older revision of '%s' than it told before: it was restored or replaced", name)
        known = self.namespace(name)
        known.journal.clear()
        known.latest.set(None)

    def _arrive(self, name: str, revision: Revision) -> None:
        known = self.namespace(name)
        self.revisions += 1
        self.bad_revisions += not revision.is_good
        known.arrive(revision)
        if known.exists:
            self._with_table[name] = known
        else:
            self._with_table.pop(name, None)

    def _list(self) -> None:
        self.names.set(tuple(sorted(self._with_table)))


def read(table: Table) -> Revision:
    """A table with its text taken apart, or with what is wrong with it."""
    dtab, fault = parsed(table.text)
    return Revision(table.revision, table.version, table.text, dtab, fault)


def _of_record(name: str, record: Record) -> Revision:
    dtab, fault = (None, "") if record.text is None else parsed(record.text)
    return Revision(record.revision, record.version, record.text, dtab, fault, record.by, record.time_s)


_written: OrderedDict[str, Dtab] = OrderedDict()


def remember(text: str, dtab: Dtab) -> None:
    """What is being written here need not be parsed once more when it comes back from the store."""
    _written[text] = dtab
    while len(_written) > REMEMBERED:
        _written.popitem(last=False)


def parsed(text: str) -> tuple[Dtab | None, str]:
    """(table, "") or (None, what is wrong)."""
    if (known := _written.get(text)) is not None:
        return known, ""
    if len(text.encode(errors="surrogatepass")) > MAX_TABLE_BYTES:
        return None, f"more than {MAX_TABLE_BYTES} bytes"
    try:
        return read_dtab(text), ""
    except NamingError as error:
        return None, str(error)
    except RecursionError:
        return None, "nested too deeply"
