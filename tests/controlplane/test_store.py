"""What every store promises about entries, transactions and leases."""

import asyncio

import pytest

from controlplane.errors import Conflict, Invalid, LeaseExpired
from controlplane.store import Delete, Expect, Put


async def test_what_was_put_is_read_back_with_its_revision(place):
    async with place.store() as store:
        assert await store.get("service", "a/web") is None
        position = await store.put("service", "a/web", b"one")
        entry = await store.get("service", "a/web")
        assert (entry.kind, entry.key, entry.value, entry.revision) == ("service", "a/web", b"one", position.revision)
        later = await store.put("service", "a/web", b"")
        assert later.revision > position.revision and later.epoch == position.epoch
        assert (await store.get("service", "a/web")).value == b""


async def test_a_list_has_the_kinds_and_the_prefix_asked_for_in_order(place):
    async with place.store() as store:
        for kind, key in [
            ("service", "b/x"),
            ("service", "a/y"),
            ("service", "a/x"),
            ("service", "ab/x"),
            ("endpoint", "a/x/1"),
            ("service_x", "a/x"),
        ]:
            await store.put(kind, key, key.encode())
        keys = [(entry.kind, entry.key) for entry in (await store.list(["service"], "a/")).entries]
        assert keys == [("service", "a/x"), ("service", "a/y")]
        everything = (await store.list()).entries
        assert [(entry.kind, entry.key) for entry in everything] == sorted(
            (entry.kind, entry.key) for entry in everything
        )
        assert len(everything) == 6
        assert [entry.kind for entry in (await store.list(None, "a/")).entries] == [
            "endpoint",
            "service",
            "service",
            "service_x",
        ]
        assert (await store.list([])).entries == ()
        assert (await store.list(["endpoint", "service_x"], "a/x")).entries[0].value == b"a/x/1"


async def test_a_list_of_many_entries_is_of_one_position(place):
    """More than one page of etcd, with a writer between the pages."""
    async with place.store() as store:
        for start in range(0, 2500, 100):
            await store.apply(*(Put("service", f"a/s{n:04}", b"old") for n in range(start, start + 100)))

        async def write():
            for n in range(0, 2500, 50):
                await store.put("service", f"a/s{n:04}", b"new")

        writing = asyncio.create_task(write())
        while not writing.done():
            snapshot = await store.list(["service"])
            assert len(snapshot.entries) == 2500
            # One after the other were they written: the new ones must be the first ones, without a hole.
            states = [entry.value for entry in snapshot.entries[::50]]
            assert states == sorted(states, key=lambda value: value == b"old")
            assert max(entry.revision for entry in snapshot.entries) <= snapshot.position.revision
        await writing


async def test_a_write_that_expects_another_revision_changes_nothing(place):
    async with place.store() as store:
        first = await store.put("service", "a/web", b"one", expected=0)
        with pytest.raises(Conflict) as caught:
            await store.put("service", "a/web", b"two", expected=0)
        assert (caught.value.expected, caught.value.actual, caught.value.retryable) == (0, first.revision, True)
        await store.put("service", "a/web", b"two", expected=first.revision)
        with pytest.raises(Conflict):
            await store.delete("service", "a/web", expected=first.revision)
        with pytest.raises(Conflict):
            await store.apply(Expect("service", "a/web", 0), Put("service", "a/other", b"x"))
        assert await store.get("service", "a/other") is None
        assert (await store.get("service", "a/web")).value == b"two"


async def test_a_transaction_is_done_whole_or_not_at_all(place):
    async with place.store() as store:
        await store.put("service", "a/old", b"x")
        position = await store.apply(
            Put("service", "a/one", b"1"), Put("endpoint", "a/one/1", b"2"), Delete("service", "a/old")
        )
        snapshot = await store.list()
        assert {entry.key: entry.revision for entry in snapshot.entries} == {
            "a/one": position.revision,
            "a/one/1": position.revision,
        }
        with pytest.raises(Conflict):
            await store.apply(
                Put("service", "a/two", b"1"), Delete("service", "a/one"), Put("service", "a/three", b"", expected=5)
            )
        assert (await store.list()).entries == snapshot.entries


async def test_deleting_what_is_not_there_does_nothing(place):
    async with place.store() as store:
        await store.delete("service", "a/none")
        await store.delete("service", "a/none", expected=0)
        await store.put("service", "a/some", b"x")
        await store.delete("service", "a/some")
        assert await store.get("service", "a/some") is None


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [Put("Service", "a/x", b"")],
        [Put("service", "", b"")],
        [Put("service", "a//x", b"")],
        [Put("service", "a/x/", b"")],
        [Put("service", "a/ü", b"")],
        [Put("service", "a/x\0y", b"")],
        [Put("service", "a/" + "x" * 700, b"")],
        [Put("service", "a/x", b"x" * 300_000)],
        [Put("service", f"a/{n}", b"x" * 250_000) for n in range(5)],
        [Put("service", f"a/{n}", b"") for n in range(101)],
        [Put("service", "a/x", b""), Delete("service", "a/x")],
        [Put("service", "a/x", b"", expected=-1)],
        [Put("service", "a/x", b"", lease=2**63)],
    ],
    ids=range(14),
)
async def test_what_a_store_cannot_hold_is_refused_with_a_reason(place, operations):
    async with place.store() as store:
        with pytest.raises(Invalid) as caught:
            await store.apply(*operations)
        assert caught.value.problems and "expected" in str(caught.value)
        assert (await store.list()).entries == ()


async def test_of_concurrent_writers_with_one_expectation_exactly_one_wins(place):
    async with place.store() as store:
        await store.put("service", "a/counter", b"0")

        async def add(times):
            lost = 0
            for _ in range(times):
                while True:
                    entry = await store.get("service", "a/counter")
                    try:
                        await store.put(
                            "service", "a/counter", str(int(entry.value) + 1).encode(), expected=entry.revision
                        )
                        break
                    except Conflict:
                        lost += 1
            return lost

        lost = sum(await asyncio.gather(*(add(10) for _ in range(8))))
        assert (await store.get("service", "a/counter")).value == b"80"
        assert lost > 0, "nothing ran at the same time: this test proved nothing"


async def test_what_was_written_under_a_lease_vanishes_with_it_and_a_watch_is_told(place):
    async with place.store() as store:
        lease = await store.grant(1)
        await store.apply(
            Put("endpoint", "a/web/1", b"x", lease=lease.id),
            Put("endpoint", "a/web/2", b"y", lease=lease.id),
            Put("endpoint", "a/web/3", b"z"),
        )
        assert (await store.get("endpoint", "a/web/1")).lease == lease.id
        async with await store.watch((await store.list()).position) as watch:
            gone = set()
            while len(gone) < 2:
                event = await anext(watch)
                assert all(change.is_deleted for change in event.changes)
                gone |= {change.key for change in event.changes}
        assert gone == {"a/web/1", "a/web/2"}
        assert [entry.key for entry in (await store.list()).entries] == ["a/web/3"]
        with pytest.raises(LeaseExpired):
            await store.keep_alive(lease.id)
        with pytest.raises(LeaseExpired):
            await store.put("endpoint", "a/web/1", b"x", lease=lease.id)
        await store.revoke(lease.id)


async def test_a_lease_that_is_kept_alive_outlives_one_that_is_not(place):
    async with place.store() as store:
        kept, left = await store.grant(1), await store.grant(1)
        await store.apply(
            Put("endpoint", "a/web/kept", b"", lease=kept.id), Put("endpoint", "a/web/left", b"", lease=left.id)
        )

        async def live():
            while True:
                assert (await store.keep_alive(kept.id)).ttl_s >= 1
                await asyncio.sleep(0.1)

        living = asyncio.create_task(live())
        async with await store.watch((await store.list()).position) as watch:
            assert [change.key for change in (await anext(watch)).changes] == ["a/web/left"]
        # Longer than its time without a sign of life would have been.
        second = await store.grant(1)
        await store.put("endpoint", "a/web/second", b"", lease=second.id)
        async with await store.watch((await store.list()).position) as watch:
            assert [change.key for change in (await anext(watch)).changes] == ["a/web/second"]
        assert not living.done(), living.result()
        living.cancel()
        assert (await store.get("endpoint", "a/web/kept")) is not None


async def test_a_write_without_a_lease_frees_an_entry_from_the_one_it_had(place):
    async with place.store() as store:
        lease = await store.grant(60)
        await store.put("endpoint", "a/web/1", b"x", lease=lease.id)
        await store.put("endpoint", "a/web/1", b"y")
        await store.revoke(lease.id)
        assert (await store.get("endpoint", "a/web/1")).lease == 0


async def test_a_lease_nobody_granted_is_not_accepted(place):
    async with place.store() as store:
        for attempt in (store.keep_alive(4711), store.put("endpoint", "a/web/1", b"", lease=4711)):
            with pytest.raises(LeaseExpired):
                await attempt
        for ttl_s in (0, -1, 86_401):
            with pytest.raises(Invalid):
                await store.grant(ttl_s)
        await store.revoke(4711)


async def test_entries_leases_and_epoch_outlive_the_process(place):
    async with place.store() as store:
        lease = await store.grant(600)
        position = await store.apply(Put("service", "a/web", b"x"), Put("endpoint", "a/web/1", b"y", lease=lease.id))
    async with place.store() as store:
        assert [entry.key for entry in (await store.list(["service", "endpoint"])).entries] == ["a/web/1", "a/web"]
        assert (await store.keep_alive(lease.id)).ttl_s == 600
        assert (await store.list()).position.epoch == position.epoch
        assert (await store.get("service", "a/web")).revision == position.revision
