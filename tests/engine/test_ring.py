"""The ring against a deque: in order, lossy only when full, and each loss counted."""

import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import RingDoor


@given(st.sampled_from([1, 2, 4, 64]), st.lists(st.booleans(), max_size=300))
def test_records_come_out_in_order_and_a_full_ring_drops_the_newest(n_slots, writes):
    ring, oracle, dropped = RingDoor(4, n_slots), deque(), 0
    for i, is_write in enumerate(writes):
        if is_write:
            record = i.to_bytes(4, "big")
            fits = len(oracle) < n_slots
            assert ring.write(record) is fits
            if fits:
                oracle.append(record)
            else:
                dropped += 1
        else:
            assert ring.read() == (oracle.popleft() if oracle else None)
        assert ring.dropped == dropped
    while oracle:
        assert ring.read() == oracle.popleft()
    assert ring.read() is None


@pytest.mark.parametrize("record_bytes", [1, 3, 8, 500])
def test_neighbouring_records_do_not_touch(record_bytes):
    ring = RingDoor(record_bytes, 8)
    records = [bytes([i]) * record_bytes for i in range(8)]
    assert all(ring.write(record) for record in records)
    assert [ring.read() for _ in records] == records


@pytest.mark.parametrize("n_slots", [1, 2, 1024])
def test_a_reader_on_another_thread_sees_every_record_whole_and_in_order(n_slots):
    n = 3000 if n_slots < 1024 else 200_000
    ring = RingDoor(8, n_slots)
    writer = threading.Thread(target=ring.write_numbers, args=(n,))
    writer.start()
    wrong = ring.read_numbers(n)
    writer.join()
    assert wrong == 0
    assert ring.read() is None
