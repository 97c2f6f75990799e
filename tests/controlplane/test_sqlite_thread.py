"""When a write counts as done: not before its commit is on disk."""

import asyncio
import sqlite3
import threading

import pytest

from controlplane.errors import LeaseExpired, StoreUnavailable
from controlplane.store import SqliteStore
from controlplane.store.sqlite_thread import SqliteThread


class Gated(sqlite3.Connection):
    """A connection whose commits wait until they are let through, and can be made to fail."""

    may_commit = threading.Event()
    is_committing = threading.Event()
    fails = False

    def execute(self, statement, *values):
        if statement == "COMMIT":
            Gated.is_committing.set()
            assert Gated.may_commit.wait(20)
            if Gated.fails:
                raise sqlite3.OperationalError("disk I/O error")
        return super().execute(statement, *values)


def gated(tmp_path, told, doubts):
    Gated.may_commit.clear()
    Gated.is_committing.clear()
    Gated.fails = False

    def connect():
        db = sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False, factory=Gated)
        db.executescript("CREATE TABLE IF NOT EXISTS t (x)")
        return db

    return SqliteThread(connect, told.append, lambda: doubts.append(1))


def insert(value):
    def job(db):
        db.execute("INSERT INTO t VALUES (?)", (value,))
        return value

    return job


async def test_nobody_hears_of_a_write_before_its_commit(tmp_path):
    told, doubts = [], []
    thread = gated(tmp_path, told, doubts)
    writing = [asyncio.ensure_future(thread.write(insert(n))) for n in range(3)]
    await asyncio.to_thread(Gated.is_committing.wait, 20)
    for _ in range(100):
        await asyncio.sleep(0)
    assert told == [] and not any(one.done() for one in writing)
    Gated.may_commit.set()
    assert await asyncio.gather(*writing) == [0, 1, 2] == told
    await thread.stop()


async def test_a_commit_that_fails_fails_every_write_in_it_and_raises_doubt(tmp_path):
    told, doubts = [], []
    thread = gated(tmp_path, told, doubts)
    Gated.fails = True
    Gated.may_commit.set()
    ends = await asyncio.gather(*(thread.write(insert(n)) for n in range(3)), return_exceptions=True)
    assert all(isinstance(end, StoreUnavailable) and not end.is_unsent for end in ends)
    assert told == [] and doubts
    Gated.fails = False
    assert await thread.write(insert(7)) == 7
    assert await thread.read(lambda db: [row[0] for row in db.execute("SELECT x FROM t")]) == [7]
    await thread.stop()
    with pytest.raises(StoreUnavailable):
        await thread.write(insert(8))


async def test_what_a_write_that_fails_had_done_is_undone_and_nothing_else(tmp_path):
    told, doubts = [], []
    thread = gated(tmp_path, told, doubts)
    Gated.may_commit.set()

    def broken(db):
        db.execute("INSERT INTO t VALUES (666)")
        raise LeaseExpired(5)

    ends = await asyncio.gather(
        thread.write(insert(1)), thread.write(broken), thread.write(insert(2)), return_exceptions=True
    )
    assert ends[0] == 1
    assert isinstance(ends[1], LeaseExpired)
    assert ends[2] == 2
    assert await thread.read(lambda db: [row[0] for row in db.execute("SELECT x FROM t")]) == [1, 2]
    assert doubts == []
    await thread.stop()


async def test_the_store_asks_for_full_durability(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db") as store:
        pragmas = [
            await store._thread.read(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("journal_mode", "synchronous")
        ]
        assert pragmas == ["wal", 2]
