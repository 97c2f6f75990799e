"""The stack: everything pushed comes out once, oldest first, and whoever finds it empty owes the one wake-up."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import StackDoor


@given(st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), max_size=100))
def test_what_was_pushed_is_taken_whole_and_oldest_first(steps):
    stack, waiting = StackDoor(), []
    for step in steps:
        if step is None:
            assert stack.take() == waiting
            waiting = []
        else:
            assert stack.push(step) == (not waiting)
            waiting.append(step)
    assert stack.take() == waiting
    assert stack.take() == []


def test_many_threads_push_and_each_batch_taken_was_announced_exactly_once():
    stack, threads, each = StackDoor(), 4, 20_000
    announced = []
    pushers = [threading.Thread(target=lambda k=k: announced.append(stack.push(k * each, each))) for k in range(threads)]
    for pusher in pushers:
        pusher.start()
    taken, batches = [], 0
    while len(taken) < threads * each:
        batch = stack.take()
        batches += bool(batch)
        taken += batch
    for pusher in pushers:
        pusher.join()
    assert sorted(taken) == list(range(threads * each))
    for k in range(threads):
        own = [number for number in taken if number // each == k]
        assert own == sorted(own)
    assert sum(announced) == batches
