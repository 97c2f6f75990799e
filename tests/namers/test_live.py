"""Live values: no change is lost, none is told twice, and nothing runs that nobody follows."""

import asyncio
import random

import pytest

from meshcore.namers import Cell, Derived, fixed
from meshcore.naming import Pending

from .worlds import turns


async def test_a_watch_begins_with_the_present_value():
    async with Cell(7).watch() as values:
        assert await anext(values) == 7


async def test_a_slow_reader_gets_the_newest_value_next_and_the_last_one_always():
    cell = Cell(0)
    async with cell.watch() as values:
        assert await anext(values) == 0
        for number in range(1, 100):
            cell.set(number)
            if number % 10 == 0:
                await turns()
        assert await anext(values) == 99


async def test_equal_values_are_told_once():
    cell = Cell("hello")
    seen = []
    async with cell.watch() as values:
        for text in ("hello", "hello", "goodbye"):
            cell.set(text)
            seen.append(await anext(values)) if text not in seen else None
    assert seen == ["hello", "goodbye"]


async def test_many_changes_in_one_turn_are_one_call():
    cell, calls = Cell(0), []
    cell.subscribe(lambda: calls.append(cell.now))
    for number in range(1, 50):
        cell.set(number)
    assert calls == []  # never from inside of the change
    await turns()
    assert calls == [49]


async def test_nobody_is_called_after_unsubscribing_not_even_by_a_neighbour_in_the_same_turn():
    cell, calls = Cell(0), []
    leave = []
    cell.subscribe(lambda: leave[0]())
    leave.append(cell.subscribe(lambda: calls.append(1)))
    cell.set(1)
    await turns()
    assert calls == []


async def test_a_derived_value_follows_what_it_read_last_and_nothing_else():
    switch, left, right = Cell(True), Cell("l"), Cell("r")
    derived = Derived(lambda read: read(left) if read(switch) else read(right))
    leave = derived.subscribe(lambda: None)
    assert derived.now == "l" and left.is_followed and not right.is_followed
    switch.set(False)
    await turns()
    assert derived.now == "r" and right.is_followed and not left.is_followed
    leave()
    assert not any(cell.is_followed for cell in (switch, left, right))


async def test_a_derived_value_that_nobody_follows_is_computed_of_the_present():
    cell = Cell(2)
    derived = cell.map(lambda number: number * 10)
    cell.set(3)
    assert derived.now == 30 and not cell.is_followed


async def test_settling_waits_for_what_is_pending_and_no_longer_than_told():
    cell = Cell(Pending())
    assert await cell.settled(0.01) == Pending()
    asyncio.get_running_loop().call_soon(cell.set, "known")
    assert await cell.settled(10) == "known"
    assert await fixed(5).settled(0) == 5


@pytest.mark.parametrize("seed", range(20))
async def test_random_graphs_end_with_what_a_plain_computation_gives(seed):
    """Glitches in the middle are allowed; the last value must be the one computed of the last inputs."""
    rng = random.Random(seed)
    cells = [Cell(rng.randrange(5)) for _ in range(6)]
    nodes = list(cells)
    formulas = []
    for _ in range(15):
        condition, yes, no = (rng.choice(nodes) for _ in range(3))
        node = Derived(lambda read, c=condition, y=yes, n=no: read(y) + 1 if read(c) % 2 else read(n))
        formulas.append((node, condition, yes, no))
        nodes.append(node)
    followers = [node.subscribe(lambda: None) for node in rng.sample(nodes, 8)]
    for _ in range(50):
        rng.choice(cells).set(rng.randrange(5))
        if rng.random() < 0.3:
            await turns(rng.randrange(4))
    await turns(60)
    plain = {cell: cell.now for cell in cells}
    for node, condition, yes, no in formulas:
        plain[node] = plain[yes] + 1 if plain[condition] % 2 else plain[no]
        assert node.now == plain[node]
    for leave in followers:
        leave()
    assert not any(node.is_followed for node in nodes)
