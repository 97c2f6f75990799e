"""A worker's table of bound names, against a dict: whatever meets in a bucket stays apart."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshcore._fastpath import BindingTableDoor

# Few buckets, hashes and keys: names that meet are the rule here, not the exception.
hashes = st.sampled_from([0, 1, 1 << 48, (1 << 48) + 1, 2**64 - 1])
slots = st.integers(0, 1)
keys = st.sampled_from([b"/svc/a", b"/svc/b", b"/svc/ab", b"/svc/a\0/x=>/y", b"/svc/\0"])


class Table(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.door = BindingTableDoor()
        self.model = set()

    @rule(hash=hashes, slot=slots, key=keys)
    def add_or_remove(self, hash, slot, key):
        if (hash, slot, key) in self.model:
            self.door.remove(hash, slot, key)
            self.model.remove((hash, slot, key))
        else:
            self.door.add(hash, slot, key)
            self.model.add((hash, slot, key))

    @rule(hash=hashes, slot=slots, key=keys)
    def find(self, hash, slot, key):
        assert self.door.find(hash, slot, key) == (key if (hash, slot, key) in self.model else None)

    @invariant()
    def all_are_there(self):
        assert self.door.count == len(self.model)
        for hash, slot, key in self.model:
            assert self.door.find(hash, slot, key) == key


TestTable = Table.TestCase


@given(st.sets(st.binary(min_size=1, max_size=40), min_size=2, max_size=40))
def test_no_two_names_and_no_two_routes_have_one_hash(names):
    table = BindingTableDoor()
    found = {table.hash_of(slot, name) for name in names for slot in (0, 1)}
    assert len(found) == 2 * len(names)


def test_ten_thousand_names_spread_over_the_buckets():
    """No bucket is long: a find costs the same however many are bound."""
    table = BindingTableDoor()
    filled: dict[int, int] = {}
    for number in range(10_000):
        bucket = table.hash_of(3, b"/svc/1.1/GET/web-%d.shop.example" % number) >> 48
        filled[bucket] = filled.get(bucket, 0) + 1
    assert max(filled.values()) <= 6
