"""A few seconds of everything at once; longer runs: python -m tests.faults.random_faults."""

import pytest

from tests.conftest import SEED
from tests.faults.random_faults import run

pytestmark = pytest.mark.usefixtures("only_meshcore")


def test_chaos_leaves_nothing_behind():
    chaos = run(seconds=4, seed=SEED, clients=12)
    assert not chaos.troubles, f"seed {chaos.seed}: {chaos.troubles}"
    assert chaos.seen["200 "] > 3 and chaos.seen["h2: 200 "] > 3 and chaos.seen["reload"] > 3, chaos.seen


def test_stop_in_the_middle_of_chaos_ends():
    chaos = run(seconds=1, seed=SEED, clients=12, stops_at_once=True)
    assert not chaos.troubles, f"seed {chaos.seed}: {chaos.troubles}"
