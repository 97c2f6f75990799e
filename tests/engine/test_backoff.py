"""Waits that grow: doubling and decorrelated, as a breaker shows them."""

from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import BreakerDoor

S = 1_000_000_000


def waits(count, first, longest, seed=1):
    """Of ejections in a row, each probe failing."""
    door, now, found = BreakerDoor(1, first, longest, 0, seed, decorrelated=True), 0, []
    assert door.on_failure(now)
    for _ in range(count):
        found.append(door.until_ns - now)
        now = door.until_ns
        door.on_pick(now)
        assert door.on_failure(now)
    return found


@given(st.integers(0, 2**64 - 1), st.integers(1, 3600 * S), st.integers(0, 24 * 3600 * S))
def test_each_decorrelated_wait_lies_between_the_first_and_three_times_the_one_before(seed, first, longest):
    found = waits(20, first, longest, seed)
    assert found[0] == first
    for before, after in zip(found, found[1:], strict=False):
        assert first <= after <= max(first, min(3 * before, longest))


def test_decorrelated_waits_reach_the_longest_and_do_not_stay_there():
    found = waits(500, S, 10 * S)
    assert max(found) > 9 * S and min(found[100:]) < 2 * S


def test_those_who_failed_together_do_not_come_back_together():
    assert len({waits(2, S, 60 * S, seed)[1] for seed in range(100)}) > 95


def test_a_first_wait_that_is_the_longest_is_constant():
    assert set(waits(50, 7 * S, 7 * S)) == {7 * S}


def test_a_success_begins_anew():
    door = BreakerDoor(1, S, 60 * S, 0, 3, decorrelated=True)
    door.on_failure(0)
    now = door.until_ns
    door.on_pick(now)
    door.on_failure(now)
    door.on_pick(now := door.until_ns)
    door.on_success(now)
    door.on_failure(now)
    assert door.until_ns - now == S
