"""Buffers against a bytearray each: the bytes are the bytes, and the pool's limit holds whatever the order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshcore._fastpath import BufferPoolDoor

LARGEST = 524288
KIB = 1024


def piece(seed, n):
    return bytes((seed + i * 7) % 251 for i in range(min(n, 251))) * (n // 251 + 1)


class Buffers(RuleBasedStateMachine):
    places = st.integers(0, 3)
    lengths = st.one_of(st.integers(0, 100), st.integers(0, 9000), st.integers(0, LARGEST + 100))

    @initialize(limit=st.sampled_from([0, 2048, 20000, 200_000, 1_500_000, 1 << 40]))
    def start(self, limit):
        self.limit = limit
        self.pool = BufferPoolDoor(limit)
        self.held: dict[int, bytearray] = {}

    @rule(place=places, n=lengths, seed=st.integers(0, 255))
    def append(self, place, n, seed):
        data = piece(seed, n)[:n]
        if self.pool.append(place, data):
            self.held.setdefault(place, bytearray()).extend(data)
        else:
            assert len(self.held.get(place, b"")) + n > LARGEST or self.limit < 1 << 40, "refused with room to spare"

    @rule(place=places, share=st.floats(0, 1))
    def consume(self, place, share):
        n = int(len(self.held.get(place, b"")) * share)
        if n:
            self.pool.consume(place, n)
            del self.held[place][:n]

    @rule(place=places)
    def give_back(self, place):
        self.pool.give_back(place)
        self.held.pop(place, None)

    @invariant()
    def every_buffer_holds_its_bytes(self):
        for place in range(4):
            held = self.held.get(place)
            assert self.pool.content(place) == (None if held is None else bytes(held))

    @invariant()
    def the_limit_holds(self):
        in_use = sum(self.pool.size_bytes(place) for place in range(4))
        assert self.pool.in_use_bytes == in_use <= self.limit

    @invariant()
    def what_is_kept_for_reuse_is_bounded(self):
        assert self.pool.kept_bytes <= 5 * (1 << 20)


TestBuffers = Buffers.TestCase
TestBuffers.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_the_limit_counts_reused_buffers_like_new_ones():
    pool = BufferPoolDoor(LARGEST)
    for n in (2048, 8192, 32768, 131072, LARGEST):
        assert pool.append(0, b"x" * n)
        pool.give_back(0)
    assert pool.append(0, b"x" * LARGEST)
    assert not pool.append(1, b"x")
    assert pool.in_use_bytes <= LARGEST
    assert pool.refused == 1


def test_consumed_bytes_make_room_without_another_buffer():
    pool = BufferPoolDoor(2048)
    assert pool.append(0, b"a" * 2000)
    for _ in range(100):
        pool.consume(0, 1000)
        assert pool.append(0, b"b" * 1000)
    assert pool.content(0) == b"b" * 2000
    assert pool.size_bytes(0) == pool.in_use_bytes == 2048


@pytest.mark.parametrize("n", [2048, 8192, 32768, 131072, LARGEST])
def test_a_buffer_filled_to_its_last_byte_keeps_its_size(n):
    pool = BufferPoolDoor(1 << 30)
    assert pool.append(0, b"x" * n)
    assert pool.size_bytes(0) == n
    assert pool.append(0, b"")
    assert pool.size_bytes(0) == n


def test_more_than_the_largest_class_is_made_to_measure_and_not_kept():
    pool = BufferPoolDoor(1 << 30)
    assert pool.append(0, b"x" * LARGEST)
    assert pool.append(0, b"y")
    assert pool.content(0) == b"x" * LARGEST + b"y"
    assert pool.size_bytes(0) == LARGEST + 1


@given(st.lists(st.binary(max_size=3000), max_size=30))
def test_any_sequence_of_appends_is_their_concatenation(pieces):
    pool = BufferPoolDoor(1 << 30)
    for data in pieces:
        assert pool.append(0, data)
    assert (pool.content(0) or b"") == b"".join(pieces)
