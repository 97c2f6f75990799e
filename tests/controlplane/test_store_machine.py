"""Any sequence of operations, against a dict that does the same: contents, conflicts, and what each reader is told."""

import asyncio
import secrets

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from controlplane.errors import Conflict
from controlplane.model import Snapshot
from controlplane.store import Delete, Expect, Put
from tests.controlplane.places import EtcdPlace, SqlitePlace
from tests.controlplane.test_store_watch import Mirror

KEYS = [(kind, key) for kind in ("service", "endpoint") for key in ("a/x", "a/y", "b/x")]
WHICH = st.sampled_from(KEYS)
VALUE = st.binary(max_size=8)
EXPECTED = st.sampled_from(["any", "right", "wrong", "none"])
SEVERAL = st.lists(
    st.tuples(WHICH, VALUE, EXPECTED, st.sampled_from(["put", "delete", "expect"])),
    min_size=1,
    max_size=4,
    unique_by=lambda one: one[0],
)


class StoreMachine(RuleBasedStateMachine):
    """The oracle is `entries` and `revisions`; `mirrors` are readers, each at its own speed."""

    make_place = None

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = type(self).make_place()
        self.store = None
        self.entries: dict = {}
        self.revisions: dict = {}
        self.watches: dict = {}

    def run(self, coroutine):
        return self.runner.run(asyncio.wait_for(coroutine, 30))

    @initialize()
    def open(self):
        self.store = self.place.store()
        self.run(self.store.open())
        self.mirrors = {name: Mirror() for name in ("all", "narrow")}
        self.connect("all", 1000)
        self.connect("narrow", 3)

    def connect(self, name, max_pending):
        self.watches[name] = (self.run(self.store.watch(self.mirrors[name].position, None, max_pending)), max_pending)

    def operation(self, which, value, expected, verb):
        kind, key = which
        actual = self.revisions.get(which, 0)
        wanted = {"any": None, "right": actual, "wrong": actual + 1, "none": 0}[expected]
        if verb == "put":
            return Put(kind, key, value, wanted)
        return (
            Delete(kind, key, wanted) if verb == "delete" else Expect(kind, key, actual if wanted is None else wanted)
        )

    @rule(several=SEVERAL)
    def apply(self, several):
        operations = [self.operation(*one) for one in several]
        conflict = next(
            (
                one
                for one in operations
                if one.expected is not None and one.expected != self.revisions.get((one.kind, one.key), 0)
            ),
            None,
        )
        try:
            position = self.run(self.store.apply(*operations))
        except Conflict as caught:
            assert conflict is not None, caught
            assert (caught.kind, caught.key, caught.expected) == (conflict.kind, conflict.key, conflict.expected)
            assert caught.actual == self.revisions.get((conflict.kind, conflict.key), 0)
            return
        assert conflict is None, f"{conflict} was to fail"
        for one in operations:
            which = (one.kind, one.key)
            if isinstance(one, Put):
                assert position.revision > self.revisions.get(which, 0)
                self.entries[which], self.revisions[which] = one.value, position.revision
            elif isinstance(one, Delete):
                self.entries.pop(which, None)
                self.revisions.pop(which, None)

    @rule(keep=st.integers(0, 3))
    def compact(self, keep):
        self.run(self.store.compact(keep))

    @rule()
    def reopen(self):
        self.run(self.store.close())
        self.store = self.place.store()
        self.run(self.store.open())
        for name, (_, max_pending) in list(self.watches.items()):
            self.connect(name, max_pending)

    @rule(name=st.sampled_from(["all", "narrow"]))
    def resume(self, name):
        self.watches[name][0].close()
        self.connect(name, self.watches[name][1])

    @rule(name=st.sampled_from(["all", "narrow"]))
    def catch_up(self, name):
        """A reader that reads until a write of ours arrives has everything that was before it."""
        token = secrets.token_bytes(8)
        which = ("token", name)
        position = self.run(self.store.put(*which, token))
        self.entries[which], self.revisions[which] = token, position.revision
        mirror, watch = self.mirrors[name], self.watches[name][0]

        async def read():
            while mirror.entries.get(which) != token:
                mirror.apply(await anext(watch))

        self.run(read())
        assert mirror.entries == self.entries

    @invariant()
    def the_store_has_what_the_oracle_has(self):
        if self.store is not None:
            snapshot = self.run(self.store.list())
            assert isinstance(snapshot, Snapshot)
            assert {(one.kind, one.key): (one.value, one.revision) for one in snapshot.entries} == {
                which: (value, self.revisions[which]) for which, value in self.entries.items()
            }

    def teardown(self):
        if self.store is not None:
            self.run(self.store.close())
        self.runner.close()


@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
def test_any_sequence_of_operations_gives_what_a_dict_gives(kind, tmp_path, request):
    server = request.getfixturevalue("shared_etcd") if kind == "etcd" else None

    def make_place():
        if server is not None:
            return EtcdPlace(server)
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        return SqlitePlace(folder)

    machine = type("Machine", (StoreMachine,), {"make_place": staticmethod(make_place)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
