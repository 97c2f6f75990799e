"""Stores that are killed, restarted and brought back older than they were."""

import asyncio
import random
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from controlplane.errors import StoreUnavailable
from controlplane.model import Position, Snapshot
from controlplane.store import SqliteStore
from controlplane.store.etcd import EtcdStore
from tests.controlplane.places import ETCD, EtcdServer, free_ports
from tests.controlplane.test_store_watch import changes_of, told

ROUNDS = 4


def test_kill_9_during_writes_loses_nothing_that_was_acknowledged(own_place):
    acknowledged: set[int] = set()
    for _ in range(ROUNDS):
        last_seen = len(acknowledged) + random.randrange(20, 200)
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.controlplane.writer", *own_place.writer_words()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        seen = 0
        for line in writer.stdout:
            acknowledged.add(int(line))
            seen += 1
            if seen >= last_seen:
                break
        assert seen >= last_seen, f"the writer ended by itself: {writer.wait()}"
        own_place.crash(writer)
        acknowledged |= {int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        writer.stdout.close()
        assert found(own_place) >= acknowledged


def found(place) -> set[int]:
    async def read():
        async with place.store() as store:
            entries = (await store.list(["written"], "n/")).entries
            assert all(entry.value == entry.key[2:].encode() * 20 for entry in entries)
            revisions = {entry.revision for entry in entries}
            assert len(revisions) == len(entries), "two transactions had one revision"
            return {int(entry.key[2:]) for entry in entries}

    return asyncio.run(read())


async def test_a_restored_store_gives_a_snapshot_to_who_has_seen_what_it_lost(own_place):
    """The revision a reader has seen exists again after the restore, with another content: it must not be continued."""
    async with own_place.store() as store:
        await store.put("service", "a/kept", b"kept")
    own_place.back_up()
    async with own_place.store() as store:
        await store.put("service", "a/lost", b"lost")
        seen = await store.put("service", "a/lost", b"lost too")
    own_place.restore()
    async with own_place.store() as store:
        behind = await (await store.watch(seen)).__anext__()
        assert isinstance(behind, Snapshot) and [entry.key for entry in behind.entries] == ["a/kept"]
        last = seen
        for n in range(40):
            last = await store.put("service", "a/new", str(n).encode())
        assert last.revision > seen.revision
        async with await store.watch(seen) as watch:
            event = await anext(watch)
            assert isinstance(event, Snapshot) and {entry.key for entry in event.entries} == {"a/kept", "a/new"}


@pytest.fixture
def etcd(tmp_path):
    if ETCD is None:
        pytest.skip("etcd is not installed: Debian package etcd-server")
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def test_a_watch_goes_on_through_a_restart_of_etcd_without_a_gap(etcd):
    async with EtcdStore([etcd.url]) as store, EtcdStore([etcd.url], timeout_s=1.0) as other:
        async with await store.watch() as watch:
            assert isinstance(await anext(watch), Snapshot)
            await other.put("service", "a/x", b"before")
            await told(watch, b"before")
            etcd.stop(signal.SIGKILL)
            with pytest.raises(StoreUnavailable):
                await other.put("service", "a/x", b"nobody hears")
            etcd.start()
            for n in range(5):
                await other.put("service", "a/x", str(n).encode())
            events = await told(watch, b"4")
            assert not any(isinstance(event, Snapshot) for event in events)
            assert changes_of(events) == [("a/x", str(n).encode()) for n in range(5)]


async def test_a_replica_that_sees_etcd_brought_back_older_begins_a_new_epoch(etcd):
    async with EtcdStore([etcd.url]) as store:
        before = await store.put("service", "a/kept", b"kept")
        await asyncio.to_thread(restart_with_backup, etcd, "take")
        async with await store.watch(before) as watch:
            await store.put("service", "a/lost", b"lost")
            await told(watch, b"lost")
            await asyncio.to_thread(restart_with_backup, etcd, "give")
            event = await anext(watch)
            assert isinstance(event, Snapshot) and [entry.key for entry in event.entries] == ["a/kept"]
            assert event.position.epoch != before.epoch
            await store.put("service", "a/new", b"new")
            assert changes_of(await told(watch, b"new")) == [("a/new", b"new")]
        # Both replicas are of one mind about it.
        async with EtcdStore([etcd.url]) as other:
            assert (await other.list()).position.epoch == event.position.epoch


def restart_with_backup(etcd, what):
    backup = etcd.folder / "backup"
    etcd.stop(signal.SIGTERM if what == "take" else signal.SIGKILL)
    if what == "take":
        shutil.copytree(etcd.folder / "data", backup)
    else:
        shutil.rmtree(etcd.folder / "data")
        shutil.copytree(backup, etcd.folder / "data")
    etcd.start()


async def test_compaction_behind_the_back_of_a_replica_is_survived(etcd):
    """Its stream was down while history was cut beyond where it stood."""
    async with EtcdStore([etcd.url]) as store:
        async with await store.watch() as watch:
            await anext(watch)
            epoch = watch.position.epoch
            store._stream.cancel()
            await asyncio.gather(store._stream, return_exceptions=True)
            for n in range(10):
                await store.put("service", f"a/s{n}", b"x")
            await store.compact(0)
            store._stream = asyncio.create_task(store._follow())
            event = await anext(watch)
            assert isinstance(event, Snapshot) and len(event.entries) == 10
            assert event.position.epoch == epoch, "nothing was lost: it is the same life"


async def test_a_stream_over_compacted_history_ends_instead_of_being_silent(etcd):
    """Compaction may come between looking whether history holds a position and opening the stream from it."""
    async with EtcdStore([etcd.url]) as store:
        positions = [await store.put("service", "a/x", str(n).encode()) for n in range(5)]
        await store.compact(0)
        with pytest.raises(StoreUnavailable, match="compacted"):
            async with store._events(positions[0]) as batches:
                await anext(batches)


async def test_two_replicas_hear_each_other(etcd):
    async with EtcdStore([etcd.url]) as one, EtcdStore([etcd.url]) as two:
        async with await one.watch(None, ["service"]) as watch:
            await anext(watch)
            position = await two.put("service", "a/x", b"x")
            assert changes_of(await told(watch, b"x")) == [("a/x", b"x")]
        # A proxy goes from one replica to the other with the position it has.
        async with await one.watch(position) as watch:
            await two.put("service", "a/y", b"y")
            assert changes_of(await told(watch, b"y")) == [("a/y", b"y")]


async def test_a_member_that_is_down_is_passed_over(etcd):
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with EtcdStore([dead, etcd.url]) as store:
        await store.put("service", "a/x", b"x")
        assert (await store.get("service", "a/x")).value == b"x"
    with pytest.raises(StoreUnavailable) as caught:
        await EtcdStore([dead]).open()
    assert caught.value.is_unsent and dead in str(caught.value)


async def test_only_one_process_writes_a_sqlite_store(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db"):
        with pytest.raises(StoreUnavailable, match="in use"):
            await SqliteStore(tmp_path / "mesh.db").open()
    async with SqliteStore(tmp_path / "mesh.db") as store:
        await store.put("service", "a/x", b"x")
    assert (tmp_path / "mesh.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_something_else_is_not_touched(tmp_path):
    path = tmp_path / "notes.db"
    path.write_bytes(b"these are my notes, and they are no database at all" * 100)
    with pytest.raises(StoreUnavailable):
        await SqliteStore(path).open()
    assert path.read_bytes().startswith(b"these are my notes")


async def test_history_of_a_sqlite_store_is_bounded_in_number_and_bytes(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db", kept_changes=50, kept_bytes=100_000) as store:
        for n in range(300):
            await store.put("service", "a/x", str(n).encode())
        assert await rows(store) <= 60
        for _ in range(30):
            await store.put("service", "a/x", b"x" * 20_000)
        assert await rows(store) <= 7
        position = (await store.list()).position
        await store.put("service", "a/x", b"end")
        async with await store.watch(position) as watch:
            assert changes_of(await told(watch, b"end")) == [("a/x", b"end")]


async def rows(store) -> int:
    return await store._thread.read(lambda db: db.execute("SELECT count(*) FROM history").fetchone()[0])


async def test_a_full_disk_fails_the_write_and_loses_nothing_else(tmp_path):
    """The limit on file sizes stands in for the disk: writing beyond it fails in the same place."""
    path = tmp_path / "mesh.db"
    async with SqliteStore(path) as store:
        await store.put("service", "a/before", b"x")
        log_bytes = path.with_name("mesh.db-wal").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with await store.watch() as watch:
            await anext(watch)
            resource.setrlimit(resource.RLIMIT_FSIZE, (log_bytes + 100_000, limits[1]))
            try:
                with pytest.raises(StoreUnavailable):
                    await store.put("service", "a/big", b"x" * 200_000)
                assert [entry.key for entry in (await store.list()).entries] == ["a/before"]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            await store.put("service", "a/after", b"end")
            await told(watch, b"end")
    async with SqliteStore(path) as store:
        assert [entry.key for entry in (await store.list()).entries] == ["a/after", "a/before"]


async def test_a_write_that_cannot_be_done_does_not_fail_those_that_share_its_commit(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db") as store:

        def poison(db):
            db.execute("INSERT INTO entries VALUES ('service', 'a/poison', 'x', 1, 0)")
            db.execute("INSERT INTO no_such_table VALUES (1)")

        written = await asyncio.gather(
            store.put("service", "a/0", b"x"),
            store._thread.write(poison),
            store.put("service", "a/2", b"x"),
            return_exceptions=True,
        )
        assert [isinstance(one, StoreUnavailable) for one in written] == [False, True, False]
        assert [entry.key for entry in (await store.list()).entries] == ["a/0", "a/2"]


def test_a_position_is_read_back_from_its_text_and_nothing_else_is():
    position = Position("0123456789abcdef", 42, "fedcba9876543210")
    assert Position.parse(str(position)) == position
    for text in (
        "",
        "x",
        "0123456789abcdef:42",
        "0123456789abcdef:-1:fedcba9876543210",
        "0123456789abcdef:042:fedcba9876543210",
        "0123456789ABCDEF:42:fedcba9876543210",
        str(position) + "\n",
        "0123456789abcdef:9999999999999999999:fedcba9876543210",
    ):
        assert Position.parse(text) is None, text
