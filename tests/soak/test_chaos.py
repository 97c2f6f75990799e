"""The turmoil in small: two seconds in which everything goes wrong, and nothing wrong comes of it."""

import pytest

from tests.conftest import SEED
from tests.soak.chaos import Turmoil


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_gets_a_wrong_answer_and_nothing_is_left_over(only_meshcore, workers):
    turmoil = Turmoil(SEED, workers=workers)
    turmoil.run(2)
    assert not turmoil.wrong, f"MESHCORE_SEED={SEED}: {turmoil.wrong[:10]}, {dict(turmoil.outcomes)}"
    assert turmoil.outcomes["right"] > 20, dict(turmoil.outcomes)
