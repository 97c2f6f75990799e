"""The book of a replica: a bad table never replaces a good one, nothing is told twice, what was missed is read from the records."""

import asyncio
import json
import secrets
import signal

from controlplane.namerd.book import JOURNAL, Book, Namespace, read
from controlplane.namerd.memory_tables import MemoryTables
from controlplane.namerd.settings import Etcd
from controlplane.namerd.store_tables import HISTORY, KIND, StoreTables
from controlplane.namerd.tables import Table, Whole
from controlplane.namerd.zookeeper_tables import ZooKeeperTables
from controlplane.store import Put, SqliteStore
from controlplane.store.etcd import EtcdStore
from meshcore.clients.zookeeper import ZooKeeperClient
from meshcore.naming import EMPTY_DTAB, read_dtab
from tests.controlplane.places import EtcdServer
from tests.namers.worlds import LONG_S, becomes

from .served import DTAB, configured, line, served


class Opened:
    """`async with Opened(tables) as book`."""

    def __init__(self, tables) -> None:
        self.book = Book(tables)

    async def __aenter__(self) -> Book:
        await self.book.open()
        return self.book

    async def __aexit__(self, *_) -> None:
        await self.book.close()


async def test_a_table_that_somebody_wrote_badly_is_not_used_and_is_shouted_about(caplog):
    tables = MemoryTables({"default": "/svc=>/good"})
    async with Opened(tables) as book:
        namespace = book.namespace("default")
        await tables.put("default", "/svc=>???", "a script")
        await becomes(namespace.latest, lambda one: one.revision == 2)
        assert namespace.dtab.now == read_dtab("/svc=>/good") and namespace.good.now.revision == 1
        assert [one.name for one in book.bad()] == ["default"] and book.bad_revisions == 1
        assert "simple expected" in namespace.fault and "the table 'default' in the store is bad" in caplog.text
        await tables.put("default", "/svc=>/better", "somebody")
        await becomes(namespace.dtab, lambda dtab: dtab == read_dtab("/svc=>/better"))
        assert book.bad() == []


async def test_over_http_a_bad_table_is_told_and_can_be_replaced(shared_etcd):
    prefix = f"bad-{secrets.token_hex(4)}"
    storage = Etcd(endpoints=[shared_etcd.url], pathPrefix=f"/{prefix}")
    async with served(configured(storage)) as one, EtcdStore([shared_etcd.url], prefix=prefix) as store:
        await one.ask("PUT", "/dtabs/default", "/svc=>/$/inet/127.0.0.1/1", kind=DTAB)
        async with one.watch("/dtabs/default?watch=true&resume=") as lines:
            assert "dtab" in json.loads(await line(lines))
            await store.put(KIND, "default", b"this is no table at all")
            told = json.loads(await line(lines))
            assert "fault" in told and "dtab" not in told
        got = await one.ask("GET", "/dtabs/default", accept=DTAB)
        assert got.text == "/svc=>/$/inet/127.0.0.1/1\n" and "the stored table is bad" in got.headers["Warning"]
        assert (await one.json("/bind/default?path=/svc"))["bound"]["id"] == "/$/inet/127.0.0.1/1"
        assert "default" in (await one.json("/faults"))["tables"]
        url = f"http://{one.namerd.addresses['admin']}/metrics"
        async with one.session.get(url) as answer:
            assert "\nnamerd_bad_tables 1\n" in await answer.text()


async def test_a_reader_further_behind_than_the_journal_gets_the_newest(monkeypatch):
    tables = MemoryTables()
    async with Opened(tables) as book:
        reader = book.namespace("a").revisions(0)
        for number in range(JOURNAL + 50):
            await tables.put("a", f"/n=>/{number}", "me")
        await becomes(book.namespace("a").latest, lambda one: one is not None and one.revision == JOURNAL + 50)
        first = await anext(reader)
        told = [first.revision] + [(await anext(reader)).revision for _ in range(JOURNAL - 1)]
        assert told == list(range(51, JOURNAL + 51))
        await reader.aclose()


async def test_what_the_store_tells_only_as_a_whole_is_filled_in_from_the_records(tmp_path):
    """As after an outage in which the history of the store was compacted away."""
    store = SqliteStore(tmp_path / "tables.db")
    tables = StoreTables(store)
    async with Opened(tables) as book:
        namespace = book.namespace("a")
        await tables.put("a", "/n=>/0", "me")
        await becomes(namespace.latest, lambda one: one is not None)
        reader = namespace.revisions(0)
        assert (await anext(reader)).text == "/n=>/0"
        book._tasks[0].cancel()
        for number in range(1, 10):
            await tables.put("a", f"/n=>/{number}", "me")
        await tables.delete("a", "me")
        await tables.put("a", "/n=>/10", "me")
        book._tasks[0] = asyncio.create_task(book._follow())
        told = [(await anext(reader)).text for _ in range(11)]
        assert told == [*(f"/n=>/{number}" for number in range(1, 10)), None, "/n=>/10"]
        await reader.aclose()


async def test_a_resume_token_outlives_the_replica(shared_etcd):
    storage = Etcd(endpoints=[shared_etcd.url], pathPrefix=f"/resume-{secrets.token_hex(4)}")
    async with served(configured(storage)) as one:
        await one.ask("PUT", "/dtabs/a", "/n=>/0", kind=DTAB)
        async with one.watch("/dtabs/a?watch=true&resume=") as lines:
            token = json.loads(await line(lines))["token"]
        for number in range(1, 5):
            await one.ask("PUT", "/dtabs/a", f"/n=>/{number}", kind=DTAB)
    async with served(configured(storage)) as other, other.watch(f"/dtabs/a?watch=true&resume={token}") as lines:
        told = [json.loads(await line(lines))["dtab"][0]["dst"] for _ in range(4)]
        assert told == ["/1", "/2", "/3", "/4"]


async def test_a_namespace_that_nobody_has_heard_of_binds_as_an_empty_table():
    async with Opened(MemoryTables()) as book:
        namespace = book.namespace("none")
        assert namespace.dtab.now == EMPTY_DTAB and not namespace.exists and book.names.now == ()


async def test_a_store_that_is_away_is_told_and_names_are_bound_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("controlplane.namerd.book.PROBE_S", 0.1)
    server = EtcdServer(tmp_path)
    server.start()
    async with served(configured(Etcd(endpoints=[server.url], pathPrefix="/away"))) as one:
        await one.ask("PUT", "/dtabs/default", "/svc=>/$/inet/127.0.0.1/1", kind=DTAB)
        server.stop(signal.SIGKILL)
        async with asyncio.timeout(LONG_S):
            while not one.namerd.book.fault:
                await asyncio.sleep(0.01)
        assert (await one.json("/bind/default?path=/svc"))["bound"]["id"] == "/$/inet/127.0.0.1/1"
        assert (await one.ask("GET", "/dtabs/default", accept=DTAB)).status == 200
        put = await one.ask("PUT", "/dtabs/default", "/svc=>/x", kind=DTAB)
        assert put.status == 503 and put.headers["Retry-After"]
        async with one.session.get(f"http://{one.namerd.addresses['admin']}/ready") as answer:
            assert answer.status == 503
        server.start()
        async with asyncio.timeout(LONG_S):
            while one.namerd.book.fault:
                await asyncio.sleep(0.01)
        assert (await one.ask("PUT", "/dtabs/default", "/svc=>/$/inet/127.0.0.1/2", kind=DTAB)).status == 204
        assert (await one.json("/bind/default?path=/svc"))["bound"]["id"] == "/$/inet/127.0.0.1/2"
    server.stop()


async def test_what_a_namerd_of_others_writes_to_zookeeper_is_told(zookeeper):
    root = f"/others-{secrets.token_hex(4)}"
    async with ZooKeeperClient(zookeeper.hosts) as client, Opened(ZooKeeperTables(ZooKeeperClient(zookeeper.hosts), root)) as book:
        await client.create(f"{root}/default", b"/svc => /a", makes_parents=True)
        await becomes(book.names, lambda names: names == ("default",))
        assert book.namespace("default").dtab.now == read_dtab("/svc => /a")
        await client.delete(f"{root}/default")
        await becomes(book.names, lambda names: names == ())


async def test_records_that_are_none_are_passed_over(tmp_path):
    async with StoreTables(SqliteStore(tmp_path / "tables.db")) as tables:
        await tables.put("a", "/n=>/0", "me")
        await tables.store.apply(Put(HISTORY, "b/000000000001", b"{}"), Put(KIND, "c", b'{"number": 1, "text": "/x=>/y"}'))
        assert (await tables.get("c")).text == "/x=>/y"
        async with asyncio.timeout(LONG_S):
            assert (await tables.put("c", "/x=>/z", "me")).revision > 0


def test_a_revision_that_is_known_already_is_not_told_again():
    namespace = Namespace("default")
    for number in (5, 4, 5):
        namespace.arrive(read(Table("default", f"/svc=>/table/{number}", b"", number)))
    assert namespace.latest.now.revision == 5 and [one.revision for one in namespace.journal] == [5]
    assert namespace.dtab.now == read_dtab("/svc=>/table/5")


async def test_a_store_that_was_restored_from_an_older_backup_is_believed(caplog):
    class Restored(MemoryTables):
        """Its second reading is of a time before the first."""

        async def watch(self):
            for number in (10, 3):
                yield Whole((Table("default", f"/svc=>/table/{number}", b"", number),))
            await asyncio.sleep(LONG_S)

    async with Opened(Restored({})) as book:
        namespace = book.namespace("default")
        await becomes(namespace.dtab, lambda dtab: dtab == read_dtab("/svc=>/table/3"))
        assert namespace.latest.now.revision == 3 and "it was restored or replaced" in caplog.text
