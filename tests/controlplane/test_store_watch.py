"""What every store promises to those who watch it: order, no gap, bounds, and a way back."""

import asyncio
import gc

import pytest

from controlplane.errors import StoreUnavailable
from controlplane.model import Change, Changes, Position, Snapshot
from controlplane.store import Delete, Put


async def told(watch, until: bytes) -> list:
    """The events up to the change whose value is `until`."""
    events = []
    async for event in watch:
        events.append(event)
        values = (
            [change.value for change in event.changes]
            if isinstance(event, Changes)
            else [e.value for e in event.entries]
        )
        if until in values:
            return events
    raise AssertionError("the watch ended")


def changes_of(events) -> list[tuple[str, bytes | None]]:
    return [(change.key, change.value) for event in events if isinstance(event, Changes) for change in event.changes]


class Mirror:
    """A reader's own copy of a store, kept by what it is told; refuses what is out of order."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}
        self.position: Position | None = None
        self.snapshots = 0

    def apply(self, event) -> None:
        if isinstance(event, Snapshot):
            self.snapshots += 1
            self.entries = {(entry.kind, entry.key): entry.value for entry in event.entries}
        else:
            assert self.position is not None and self.position.is_before(event.position)
            last = self.position.revision
            for change in event.changes:
                assert change.revision >= last, "out of order"
                assert change.revision > self.position.revision, "told twice"
                last = change.revision
                if change.is_deleted:
                    self.entries.pop((change.kind, change.key), None)
                else:
                    self.entries[change.kind, change.key] = change.value
            assert last <= event.position.revision
        self.position = event.position


async def test_a_watch_begins_with_a_snapshot_and_goes_on_with_every_change_in_order(place):
    async with place.store() as store:
        await store.put("service", "a/zero", b"0")
        async with await store.watch() as watch:
            first = await anext(watch)
            assert [entry.key for entry in first.entries] == ["a/zero"]
            wanted = []
            for n in range(60):
                await store.put("service", f"a/s{n % 7}", str(n).encode())
                wanted.append((f"a/s{n % 7}", str(n).encode()))
                if n % 10 == 9:
                    await store.delete("service", f"a/s{n % 7}")
                    wanted.append((f"a/s{n % 7}", None))
            await store.put("service", "a/end", b"end")
            assert changes_of(await told(watch, b"end")) == [*wanted, ("a/end", b"end")]
            assert watch.collapsed == 0


async def test_the_changes_of_one_transaction_come_together(place):
    async with place.store() as store:
        async with await store.watch((await store.list()).position) as watch:
            await store.apply(Put("service", "a/x", b"1"), Put("endpoint", "a/x/1", b"2"), Delete("service", "a/none"))
            event = await anext(watch)
            assert {(change.kind, change.key) for change in event.changes} == {
                ("service", "a/x"),
                ("endpoint", "a/x/1"),
            }
            assert len({change.revision for change in event.changes}) == 1


async def test_a_watch_of_some_kinds_is_told_of_no_other(place):
    async with place.store() as store:
        async with await store.watch(None, ["endpoint"]) as watch:
            assert (await anext(watch)).entries == ()
            await store.put("service", "a/x", b"no")
            await store.put("endpoint", "a/x/1", b"one")
            await store.put("service", "a/y", b"no")
            await store.put("endpoint", "a/x/1", b"two")
            events = await told(watch, b"two")
            assert changes_of(events) == [("a/x/1", b"one"), ("a/x/1", b"two")]
            # What it was not told of moves it on all the same: it can resume from there.
            position = await store.put("service", "a/z", b"no")
            await store.put("endpoint", "a/x/1", b"three")
            await told(watch, b"three")
            assert watch.position.revision > position.revision


async def test_a_reader_resumes_where_it_stood(place):
    async with place.store() as store:
        positions = [await store.put("service", "a/x", str(n).encode()) for n in range(20)]
        for at in (0, 7, 18, 19):
            async with await store.watch(positions[at]) as watch:
                await store.put("service", "a/end", str(at).encode() + b"end")
                events = await told(watch, str(at).encode() + b"end")
                seen = [value for key, value in changes_of(events) if key == "a/x"]
                assert seen == [str(n).encode() for n in range(at + 1, 20)]
                assert not any(isinstance(event, Snapshot) for event in events)


async def test_a_reader_resumes_across_a_restart(own_place):
    async with own_place.store() as store:
        position = await store.put("service", "a/x", b"one")
        await store.put("service", "a/x", b"two")
        await store.delete("service", "a/x")
    async with own_place.store() as store, await store.watch(Position.parse(str(position))) as watch:
        await store.put("service", "a/x", b"three")
        assert changes_of(await told(watch, b"three")) == [("a/x", b"two"), ("a/x", None), ("a/x", b"three")]


@pytest.mark.parametrize(
    "forge",
    [
        lambda position: Position("0" * 16, position.revision, position.mark),
        lambda position: Position(position.epoch, position.revision + 1_000_000, position.mark),
        lambda position: Position(position.epoch, position.revision, "f" * 16),
        lambda position: Position(position.epoch, 0, position.mark),
        lambda position: Position(position.epoch, 2**62, "0" * 16),
    ],
    ids=["another life", "the future", "another history", "before everything", "the far future"],
)
async def test_a_position_that_history_does_not_hold_begins_with_a_snapshot(place, forge):
    async with place.store() as store:
        position = await store.put("service", "a/x", b"one")
        async with await store.watch(forge(position)) as watch:
            event = await anext(watch)
            assert isinstance(event, Snapshot) and [entry.key for entry in event.entries] == ["a/x"]
            await store.put("service", "a/x", b"two")
            assert changes_of(await told(watch, b"two")) == [("a/x", b"two")]


async def test_what_was_compacted_away_becomes_a_snapshot_and_goes_on_from_there(place):
    async with place.store() as store:
        positions = [await store.put("service", f"a/s{n}", b"x") for n in range(30)]
        async with await store.watch(positions[28]) as watch:
            await store.put("service", "a/s0", b"caught up")
            await told(watch, b"caught up")
        await store.delete("service", "a/s0")
        await store.compact(5)
        async with await store.watch(positions[3]) as watch:
            event = await anext(watch)
            assert isinstance(event, Snapshot) and len(event.entries) == 29
            await store.put("service", "a/end", b"end")
            assert changes_of(await told(watch, b"end")) == [("a/end", b"end")]
        async with await store.watch(positions[28]) as watch:
            await store.put("service", "a/end", b"again")
            assert changes_of(await told(watch, b"again"))[:3] == [
                ("a/s29", b"x"),
                ("a/s0", b"caught up"),
                ("a/s0", None),
            ]


async def test_a_slow_reader_gets_a_snapshot_and_nobody_else_notices(place):
    async with place.store() as store:
        slow = await store.watch(max_pending=10)
        quick = await store.watch()
        await anext(slow)
        await anext(quick)
        for n in range(50):
            await store.put("service", f"a/s{n}", b"x")
        await store.put("service", "a/end", b"end")
        assert len(changes_of(await told(quick, b"end"))) == 51
        event = await anext(slow)
        assert isinstance(event, Snapshot) and len(event.entries) == 51
        assert slow.collapsed >= 1 and quick.collapsed == 0
        assert slow._pending <= 10
        await store.put("service", "a/more", b"more")
        assert changes_of(await told(slow, b"more")) == [("a/more", b"more")]


async def test_what_comes_late_and_out_of_order_is_ignored(place):
    """A replica that lags might say again what its reader knows from another (linkerd/linkerd#685)."""
    async with place.store() as store:
        old = await store.put("service", "a/x", b"five")
        new = await store.put("service", "a/x", b"six")
        async with await store.watch(new) as watch:
            watch.offer(Changes(old, (Change(old.revision, "service", "a/x", b"five"),)))
            await store.put("service", "a/x", b"seven")
            assert changes_of(await told(watch, b"seven")) == [("a/x", b"seven")]


async def test_a_reader_that_is_gone_is_forgotten(place):
    async with place.store() as store:
        closed = await store.watch()
        closed.close()
        with pytest.raises(StopAsyncIteration):
            await anext(closed)
        dropped = await store.watch()
        del dropped
        gc.collect()
        async with await store.watch((await store.list()).position) as kept:
            await store.put("service", "a/x", b"x")
            await told(kept, b"x")
            assert len(store._hub) == 1


async def test_closing_the_store_ends_its_watches(place):
    store = place.store()
    await store.open()
    watch = await store.watch()
    await anext(watch)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises((StopAsyncIteration, RuntimeError)):
        await waiting
    with pytest.raises(StoreUnavailable):
        await store.put("service", "a/x", b"x")


async def test_a_reader_that_gives_up_during_a_snapshot_gets_it_the_next_time(place):
    async with place.store() as store:
        await store.put("service", "a/x", b"x")
        async with await store.watch() as watch:
            for _ in range(3):
                given_up = asyncio.create_task(anext(watch))
                await asyncio.sleep(0)
                given_up.cancel()
                await asyncio.gather(given_up, return_exceptions=True)
            assert isinstance(await anext(watch), Snapshot)


async def test_a_new_epoch_tells_every_reader_everything_anew(place):
    async with place.store() as store:
        position = await store.put("service", "a/x", b"x")
        async with await store.watch(position) as watch:
            await store.begin_epoch()
            event = await anext(watch)
            assert isinstance(event, Snapshot) and [entry.key for entry in event.entries] == ["a/x"]
            assert event.position.epoch != position.epoch and not position.is_before(event.position)
            await store.put("service", "a/y", b"y")
            assert changes_of(await told(watch, b"y")) == [("a/y", b"y")]
        async with await store.watch(position) as watch:
            assert isinstance(await anext(watch), Snapshot)


async def test_many_readers_of_different_speed_end_with_what_the_store_has(place):
    """Writers, deleters, readers that come and go and resume: every mirror equals the store in the end."""
    async with place.store() as store:
        done = asyncio.Event()

        async def write(number):
            for n in range(60):
                key = f"a/s{(n * 7 + number) % 20}"
                await store.apply(
                    Delete("service", key) if n % 5 == 4 else Put("service", key, f"{number}.{n}".encode())
                )

        async def read(pause_every, leave_every, max_pending):
            mirror, count = Mirror(), 0
            while True:
                async with await store.watch(mirror.position, max_pending=max_pending) as watch:
                    async for event in watch:
                        mirror.apply(event)
                        count += 1
                        if mirror.entries.get(("service", "a/end")) == b"end":
                            return mirror
                        if pause_every and count % pause_every == 0:
                            await asyncio.sleep(0.01)
                        if leave_every and count % leave_every == 0:
                            break

        readers = [
            asyncio.create_task(read(*how)) for how in [(0, 0, 4096), (3, 0, 8), (2, 5, 16), (0, 3, 4096), (1, 1, 4)]
        ]
        await asyncio.gather(*(write(number) for number in range(4)))
        await store.put("service", "a/end", b"end")
        done.set()
        mirrors = await asyncio.gather(*readers)
        wanted = {(entry.kind, entry.key): entry.value for entry in (await store.list()).entries}
        for mirror in mirrors:
            assert mirror.entries == wanted
        assert mirrors[0].snapshots == 1
