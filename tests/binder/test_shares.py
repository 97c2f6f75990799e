"""Weights of a union become whole numbers in the same proportion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore.binder.shares import MOST, whole_weights


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ((1.0, 1.0), (1, 1)),
        ((0.9, 0.1), (9, 1)),
        ((0.999, 0.001), (999, 1)),
        ((2.5, 7.5), (1, 3)),
        ((1.0, 0.0), (1, 0)),
        ((0.0, 0.0), (1, 1)),
        ((1e9, 1.0), (MOST, 1)),
        ((float("inf"), 3.0), (1, 0)),
        ((1 / 3, 2 / 3), (32768, MOST)),
        ((7.0,), (1,)),
    ],
)
def test_weights_keep_their_proportion(weights, whole):
    assert whole_weights(weights) == whole


@given(st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=20))
def test_no_share_is_lost_and_none_is_off_by_more_than_rounding(weights):
    whole = whole_weights(weights)
    assert all(0 <= one <= MOST for one in whole) and any(whole)
    if any(weights):
        assert [one > 0 for one in whole] == [one > 0 for one in weights]
        share, exact = [one / sum(whole) for one in whole], [one / sum(weights) for one in weights]
        assert all(abs(a - b) <= len(weights) / MOST for a, b in zip(share, exact, strict=True))
