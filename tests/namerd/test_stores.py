"""Every store of tables keeps what it says: memory, SQLite, a real etcd, a real ZooKeeper, Consul by its protocol."""

import asyncio
import contextlib
import secrets

import pytest

from controlplane.namerd.book import Book
from controlplane.namerd.consul_tables import ConsulTables
from controlplane.namerd.memory_tables import MemoryTables
from controlplane.namerd.store_tables import StoreTables
from controlplane.namerd.tables import AlreadyThere, Missing, WrongVersion
from controlplane.namerd.zookeeper_tables import ZooKeeperTables
from controlplane.store import SqliteStore
from controlplane.store.etcd import EtcdStore
from meshcore.clients.consul import ConsulClient
from meshcore.clients.zookeeper import ZooKeeperClient
from tests.namers.consul_server import ConsulServer
from tests.namers.worlds import LONG_S

KEPT = 5


@pytest.fixture(params=["memory", "sqlite", "etcd", "zookeeper", "consul"])
def place(request, tmp_path):
    """Opens the same store again and again: `async with place() as tables`. The others are replicas where there can be some."""
    name = secrets.token_hex(4)
    if request.param == "memory":
        kept = MemoryTables(kept=KEPT)

        @contextlib.asynccontextmanager
        async def opened():
            yield kept
    elif request.param == "sqlite":
        stores = []

        @contextlib.asynccontextmanager
        async def opened():
            if stores:  # one process, one opening
                yield stores[0]
                return
            async with StoreTables(SqliteStore(tmp_path / "tables.db"), kept=KEPT) as tables:
                stores.append(tables)
                yield tables
                stores.clear()
    elif request.param == "etcd":
        url = request.getfixturevalue("shared_etcd").url

        def opened():
            return StoreTables(EtcdStore([url], prefix=f"tables-{name}"), kept=KEPT)
    elif request.param == "zookeeper":
        hosts = request.getfixturevalue("zookeeper").hosts

        def opened():
            return ZooKeeperTables(ZooKeeperClient(hosts), f"/tables-{name}", kept=KEPT)
    else:
        server = ConsulServer()

        @contextlib.asynccontextmanager
        async def opened():
            async with contextlib.AsyncExitStack() as stack:
                if not server.url:
                    await stack.enter_async_context(server)
                yield await stack.enter_async_context(
                    ConsulTables(ConsulClient(server.url), f"tables/{name}", kept=KEPT)
                )
    opened.kind = request.param
    return opened


async def test_a_table_is_written_read_and_removed(place):
    async with place() as tables:
        assert await tables.get("a") is None
        first = await tables.create("a", "/x=>/1", "me")
        assert await tables.get("a") == first
        with pytest.raises(AlreadyThere):
            await tables.create("a", "/x=>/2", "me")
        second = await tables.put("a", "/x=>/2", "me", first.version)
        assert second.revision > first.revision and second.version != first.version
        with pytest.raises(WrongVersion):
            await tables.put("a", "/x=>/3", "me", first.version)
        with pytest.raises(WrongVersion):
            await tables.put("a", "/x=>/3", "me", b"nonsense")
        with pytest.raises(Missing):
            await tables.put("b", "", "me", first.version)
        await tables.put("a", "/x=>/4", "you")
        await tables.put("b", "/y=>/1", "you")
        with pytest.raises(WrongVersion):
            await tables.delete("a", "me", first.version)
        assert await tables.delete("a", "me") > second.revision
        assert await tables.get("a") is None
        with pytest.raises(Missing):
            await tables.delete("a", "me")
        assert [(one.text, one.by) for one in await tables.history("a")] == [
            ("/x=>/1", "me"),
            ("/x=>/2", "me"),
            ("/x=>/4", "you"),
            (None, "me"),
        ]
        again = await tables.create("a", "/x=>/5", "me")
        assert again.revision > second.revision
        assert [one.text for one in await tables.history("a", 2)] == [None, "/x=>/5"]


async def test_history_is_bounded_and_in_order(place):
    async with place() as tables:
        for number in range(KEPT * 2):
            await tables.put("a", f"/x=>/{number}", "me")
        records = await tables.history("a")
        assert [one.text for one in records] == [f"/x=>/{number}" for number in range(KEPT, KEPT * 2)]
        revisions = [one.revision for one in records]
        assert revisions == sorted(set(revisions)) and revisions[-1] == (await tables.get("a")).revision


async def test_of_writers_over_one_version_exactly_one_gets_through(place):
    async with place() as tables:
        version = (await tables.create("a", "/x=>/0", "me")).version
        results = await asyncio.gather(
            *(tables.put("a", f"/x=>/{number}", "me", version) for number in range(8)), return_exceptions=True
        )
        done = [one for one in results if not isinstance(one, Exception)]
        assert len(done) == 1 and all(isinstance(one, WrongVersion) for one in results if one not in done)
        assert (await tables.get("a")).text == done[0].text


async def test_of_those_who_create_at_once_exactly_one_does(place):
    async with place() as tables:
        results = await asyncio.gather(
            *(tables.create("a", f"/x=>/{number}", "me") for number in range(8)), return_exceptions=True
        )
        assert sum(isinstance(one, AlreadyThere) for one in results) == 7


async def test_another_replica_reads_every_revision_in_order(place):
    if place.kind in ("memory", "sqlite"):
        pytest.skip("one process, one replica")
    async with place() as here, place() as there:
        book = Book(there)
        await book.open()
        watched = book.namespace("a")
        told = []

        async def read() -> None:
            async for revision in watched.revisions(0):
                told.append(revision.text)
                if revision.text == "/x=>/last":
                    return

        reading = asyncio.create_task(read())
        for number in range(KEPT - 1):
            await here.put("a", f"/x=>/{number}", "me")
        await here.put("a", "/x=>/last", "me")
        async with asyncio.timeout(LONG_S):
            await reading
        assert told == [*(f"/x=>/{number}" for number in range(KEPT - 1)), "/x=>/last"]
        await here.delete("a", "me")
        await watched.latest.settled_when(lambda one: one.text is None, LONG_S)
        assert book.names.now == ()
        await book.close()
