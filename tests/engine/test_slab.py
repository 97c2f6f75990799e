"""The slab against a dict: items never overlap, stale tokens find nothing, the limit holds."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshcore._fastpath import SlabDoor

PAYLOAD = 24


class Items(RuleBasedStateMachine):
    @initialize(limit=st.sampled_from([1, 3, 255, 256, 257, 700]))
    def start(self, limit):
        self.limit = limit
        self.slab = SlabDoor(PAYLOAD, limit)
        self.held: dict[int, bytes] = {}
        self.stale: set[int] = set()

    @rule(n=st.integers(1, 300), fill=st.binary(min_size=PAYLOAD, max_size=PAYLOAD))
    def take(self, n, fill):
        for i in range(n):
            token = self.slab.take()
            if len(self.held) == self.limit:
                assert token is None
                return
            assert token is not None and token not in self.held and token not in self.stale
            payload = i.to_bytes(4, "big") + fill[4:]
            self.slab.write(token, payload)
            self.held[token] = payload

    @rule(n=st.integers(1, 300), newest=st.booleans())
    def give_back(self, n, newest):
        for _ in range(min(n, len(self.held))):
            token = next(reversed(self.held) if newest else iter(self.held))
            del self.held[token]
            self.stale.add(token)
            self.slab.give_back(token)

    @invariant()
    def every_held_item_is_what_was_written_and_no_stale_one_is_found(self):
        assert self.slab.in_use == len(self.held)
        assert all(self.slab.read(token) == payload for token, payload in self.held.items())
        assert all(self.slab.read(token) is None for token in self.stale)


TestItems = Items.TestCase
TestItems.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_the_newest_free_item_is_reused_first_under_a_new_token():
    slab = SlabDoor(8, 10)
    first, second = slab.take(), slab.take()
    slab.give_back(first)
    slab.give_back(second)
    again = slab.take()
    assert again != second and again & 0xFFFFFFFF == second & 0xFFFFFFFF


def test_a_token_of_the_last_use_finds_nothing():
    slab = SlabDoor(8, 1)
    tokens = []
    for _ in range(1000):
        tokens.append(slab.take())
        slab.give_back(tokens[-1])
    assert len(set(tokens)) == 1000
    assert all(slab.read(token) is None for token in tokens)


def test_a_fresh_item_is_zero():
    slab = SlabDoor(40, 300)
    assert {slab.read(slab.take()) for _ in range(300)} == {bytes(40)}
