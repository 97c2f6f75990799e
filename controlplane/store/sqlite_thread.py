"""One thread that owns one SQLite connection, and commits the writes that wait for it together. Knows no table.

Why not aiosqlite: it is a thread and a queue as well, but with one commit, and so one fsync, for each write. Here all
writes that wait when a commit ends share the next one: a thousand registrations at once cost a few fsyncs.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from meshcore.errors import MeshError

from ..errors import StoreUnavailable

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]

MOST_IN_ONE_COMMIT = 256  # bounds how long the first of them waits
MAX_WAITING = 10_000  # jobs; beyond it callers are told at once that the store cannot keep up


class Ticket:
    """A job, and who waits for its result."""

    __slots__ = ("failure", "future", "is_write", "job", "result")

    def __init__(self, job: Job, is_write: bool, future: asyncio.Future[Any]) -> None:
        self.job, self.is_write, self.future = job, is_write, future
        self.result: Any = None
        self.failure: Exception | None = None


class SqliteThread:
    """Runs jobs in the order they came. `committed(result)` is called on the loop for each write, before its caller
    goes on."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        committed: Callable[[Any], None],
        doubted: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._committed = committed
        self._doubted = doubted
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="sqlite", daemon=True)
        self._thread.start()

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Runs it outside of a transaction, behind every write that was asked for before."""
        result: T = await self._submit(job, is_write=False)
        return result

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Runs it in a transaction; returns when that is on disk. What it raises undoes it, and only it."""
        result: T = await self._submit(job, is_write=True)
        return result

    async def stop(self) -> None:
        """Finishes what was asked for, closes the connection."""
        if not self._is_stopping:
            self._is_stopping = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _submit(self, job: Job, is_write: bool) -> asyncio.Future[Any]:
        if self._is_stopping or not self._thread.is_alive():
            raise StoreUnavailable("the store is closed", is_unsent=True)
        if self._queue.qsize() >= MAX_WAITING:
            raise StoreUnavailable(f"{MAX_WAITING} operations wait for the disk already", is_unsent=True)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(Ticket(job, is_write, future))
        return future

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        held: Ticket | None = None
        while True:
            ticket = held or self._queue.get()
            held = None
            if ticket is None:
                break
            group = [ticket]
            if ticket.is_write:
                while len(group) < MOST_IN_ONE_COMMIT:
                    try:
                        following = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if following is None or not following.is_write:
                        held = following
                        if following is None:
                            self._queue.put(None)
                        break
                    group.append(following)
                self._write(group)
            else:
                self._read(ticket)
            self._tell(group)
        if self._connection is not None:
            self._connection.close()

    def _read(self, ticket: Ticket) -> None:
        try:
            ticket.result = ticket.job(self._connected())
        except MeshError as error:
            ticket.failure = error
        except sqlite3.Error as error:
            ticket.failure = StoreUnavailable(f"SQLite: {error}", is_unsent=True)
            self._reconnect_later()
        except Exception as error:
            ticket.failure = error

    def _write(self, group: list[Ticket]) -> None:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            for ticket in group:
                self._one(connection, ticket)
        except sqlite3.Error as error:
            # A full disk may have undone the whole transaction. Alone, each shows whether it was the cause.
            self._reconnect_later()
            if len(group) > 1:
                for ticket in group:
                    ticket.result = ticket.failure = None
                    self._write([ticket])
            else:
                group[0].failure = StoreUnavailable(f"SQLite: {error}", is_unsent=True)
            return
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # It may be on disk all the same: opening anew shows it, and readers are told all there is.
            self._reconnect_later()
            for ticket in group:
                ticket.failure = StoreUnavailable(f"SQLite: {error}; it may have been written")
            self._loop.call_soon_threadsafe(self._doubted)

    def _one(self, connection: sqlite3.Connection, ticket: Ticket) -> None:
        connection.execute("SAVEPOINT one")
        try:
            ticket.result = ticket.job(connection)
        except sqlite3.Error:
            raise
        except Exception as error:
            ticket.failure = error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _reconnect_later(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # rolls back what is open

    def _tell(self, group: list[Ticket]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._done, group)
        except RuntimeError:
            self._is_stopping = True  # the loop is closed: nobody waits any more

    def _done(self, group: list[Ticket]) -> None:
        for ticket in group:
            if ticket.is_write and ticket.failure is None:
                self._committed(ticket.result)
            if ticket.future.cancelled():
                continue
            if ticket.failure is not None:
                ticket.future.set_exception(ticket.failure)
            else:
                ticket.future.set_result(ticket.result)
