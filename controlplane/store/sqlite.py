"""The store of one control plane on one machine: SQLite in WAL mode. Owns tables and leases; a thread owns the file.

WAL with synchronous=FULL: a commit is on disk before anybody hears of it, and a crash at any moment loses nothing
that was acknowledged. One process writes (a lock file sees to it); `sqlite3 file .backup` may run beside it. Leases
count from the last sign of life on the monotonic clock, in memory: a step of the wall clock ends none, keeping one
alive writes nothing, and after a restart each has its full time again, because nobody could have renewed it
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import LeaseExpired, StoreUnavailable
from ..model.change import Changes, Entry, Position, Snapshot
from . import sqlite_tables as tables
from .interface import (
    Lease,
    Operation,
    Put,
    Store,
    check_operations,
    check_query,
    check_ttl,
)
from .sqlite_thread import SqliteThread
from .watching import MAX_PENDING, Hub, Watch

KEPT_CHANGES = 20_000  # a proxy that was away for a while resumes; one that was away longer reads a snapshot
KEPT_BYTES = 67_108_864


class SqliteStore(Store):
    """A store in one file. `kept_changes` and `kept_bytes` bound the history it keeps for readers that come back."""

    def __init__(
        self,
        path: str | Path,
        *,
        kept_changes: int = KEPT_CHANGES,
        kept_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self._kept_changes = kept_changes
        self._kept_bytes = kept_bytes
        self._clock = clock
        self._hub = Hub(self.list)
        self._thread: SqliteThread | None = None
        self._lock_file = -1
        self._deadlines: dict[int, tuple[float, int]] = {}
        self._lease_came = asyncio.Event()
        self._expiry: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._lock()
        self._thread = SqliteThread(self._connect, self._committed, self._hub.lose)
        try:
            leases = await self._thread.read(lambda db: db.execute("SELECT id, ttl_s FROM leases").fetchall())
        except BaseException:
            await self.close()
            raise
        now = self._clock()
        self._deadlines = {lease: (now + ttl_s, ttl_s) for lease, ttl_s in leases}
        self._expiry = asyncio.create_task(self._expire())

    async def close(self) -> None:
        self._hub.close()
        if self._expiry is not None:
            self._expiry.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._expiry
            self._expiry = None
        if self._thread is not None:
            await self._thread.stop()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _lock(self) -> None:
        try:
            self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_file)
            self._lock_file = -1
            message = f"{self.path} is in use by another control plane; several of them need etcd"
            raise StoreUnavailable(message, is_unsent=True) from None
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error.strerror}", is_unsent=True) from None

    def _connect(self) -> sqlite3.Connection:
        # Hashes of join tokens are in it: nobody else reads it. SQLite gives -wal and -shm the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA trusted_schema=OFF")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                tables.create(db, self.path)
            elif (
                version != tables.SCHEMA_VERSION
                or db.execute("PRAGMA application_id").fetchone()[0] != tables.APPLICATION_ID
            ):
                raise StoreUnavailable(f"{self.path} is not a store of this version (schema {version})", is_unsent=True)
        except BaseException:
            db.close()
            raise
        return db

    # -- reading ----------------------------------------------------------------------------------------------------

    async def get(self, kind: str, key: str) -> Entry[bytes] | None:
        check_query([kind], key)
        row = await self._open_thread().read(
            lambda db: db.execute(
                "SELECT value, revision, lease FROM entries WHERE kind=? AND key=?", (kind, key)
            ).fetchone()
        )
        return None if row is None else Entry(kind, key, *row)

    async def list(self, kinds: Collection[str] | None = None, prefix: str = "") -> Snapshot[bytes]:
        check_query(kinds, prefix)

        return await self._open_thread().read(partial(tables.read, kinds=kinds, prefix=prefix))

    async def watch(
        self, since: Position | None = None, kinds: Collection[str] | None = None, max_pending: int = MAX_PENDING
    ) -> Watch:
        check_query(kinds)
        watch = self._hub.add(kinds, max_pending)
        past = None
        if since is not None:
            past = await self._open_thread().read(lambda db: tables.changes_since(db, since, max_pending))
        if since is None or past is None:
            watch.collapse()
        else:
            watch.resume(since, past)
        return watch

    # -- writing ----------------------------------------------------------------------------------------------------

    async def apply(self, *operations: Operation) -> Position:
        check_operations(operations)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._deadlines:
                raise LeaseExpired(operation.lease)
        outcome = await self._open_thread().write(lambda db: tables.write(db, operations))
        return outcome.position

    async def compact(self, keep: int) -> None:
        await self._open_thread().write(lambda db: tables.forget(db, keep))

    async def begin_epoch(self) -> None:
        def job(db: sqlite3.Connection) -> None:
            tables.put_meta(db, epoch=secrets.token_hex(8))

        await self._open_thread().write(job)
        self._hub.lose()

    def _committed(self, result: Any) -> None:
        if isinstance(result, tables.Outcome) and result.batch is not None:
            self._hub.publish(result.batch)
            self._tidy(result.batch)

    _since_tidied = 0
    _bytes_since_tidied = 0

    def _tidy(self, batch: Changes[bytes]) -> None:
        """History is cut in steps of a tenth, not at every write."""
        self._since_tidied += len(batch.changes)
        self._bytes_since_tidied += sum(len(change.value or b"") for change in batch.changes)
        if self._since_tidied * 10 >= self._kept_changes or self._bytes_since_tidied * 10 >= self._kept_bytes:
            self._since_tidied = self._bytes_since_tidied = 0
            most_changes, most_bytes = self._kept_changes, self._kept_bytes
            with contextlib.suppress(StoreUnavailable):  # closed in between: the next life will cut
                future = asyncio.ensure_future(
                    self._open_thread().write(lambda db: tables.bound(db, most_changes, most_bytes))
                )
                future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _open_thread(self) -> SqliteThread:
        if self._thread is None:
            raise StoreUnavailable("the store is not open", is_unsent=True)
        return self._thread

    # -- leases -----------------------------------------------------------------------------------------------------

    async def grant(self, ttl_s: int) -> Lease:
        check_ttl(ttl_s)
        # Random, so that a lease of a life that a restore undid cannot be taken for one of this.
        lease = Lease(secrets.randbelow(2**62) + 1, ttl_s)

        def job(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO leases VALUES (?, ?)", (lease.id, ttl_s))

        await self._open_thread().write(job)
        self._deadlines[lease.id] = (self._clock() + ttl_s, ttl_s)
        self._lease_came.set()
        return lease

    async def keep_alive(self, lease: int) -> Lease:
        _, ttl_s = self._deadlines.get(lease, (0.0, 0))
        if not ttl_s:
            raise LeaseExpired(lease)
        self._deadlines[lease] = (self._clock() + ttl_s, ttl_s)
        return Lease(lease, ttl_s)

    async def revoke(self, lease: int) -> None:
        self._deadlines.pop(lease, None)
        await self._open_thread().write(lambda db: tables.end_lease(db, lease))

    async def expire_due(self) -> float | None:
        """Ends the leases whose time is over; returns the seconds until the next one ends, None when there is none."""
        now = self._clock()
        for lease in [lease for lease, (deadline, _) in self._deadlines.items() if deadline <= now]:
            ttl_s = self._deadlines.pop(lease)[1]
            try:
                await self._open_thread().write(partial(tables.end_lease, lease=lease))
            except StoreUnavailable:
                self._deadlines[lease] = (now + 1.0, ttl_s)  # the disk is full: its entries stay until it is not
        next_deadline = min((deadline for deadline, _ in self._deadlines.values()), default=None)
        return None if next_deadline is None else max(0.0, next_deadline - self._clock())

    async def _expire(self) -> None:
        while True:
            self._lease_came.clear()
            wait_s = await self.expire_due()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lease_came.wait(), wait_s)
