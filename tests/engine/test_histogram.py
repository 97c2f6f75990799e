"""Histogram: every reported duration is within 1 % (or one clock unit) of a real sample."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore import stats
from meshcore._fastpath import HistogramDoor, histogram_bounds, histogram_merge, histogram_quantiles

UNIT_NS = 128
TOP_NS = 2**40                          # 1099 s: durations from here on are clamped
durations = st.one_of(st.integers(0, TOP_NS - 1), st.integers(0, 100_000), st.integers(10_000, 10_000_000))
any_durations = st.one_of(durations, st.integers(0, 2**64 - 1))
shares = st.floats(0, 1)


def histogram_of(samples) -> HistogramDoor:
    histogram = HistogramDoor()
    for ns in samples:
        histogram.record(ns)
    return histogram


def nearest_rank(samples, q: float) -> int:
    return sorted(samples)[max(math.ceil(q * len(samples)), 1) - 1]


@given(any_durations, any_durations)
def test_a_longer_duration_never_lands_in_an_earlier_bucket(a, b):
    assert HistogramDoor.index(min(a, b)) <= HistogramDoor.index(max(a, b))


@given(durations)
def test_a_bucket_holds_its_durations_and_is_at_most_a_64th_of_them_wide(ns):
    low, high = HistogramDoor.bounds_ns(HistogramDoor.index(ns))
    assert low <= ns < high
    assert high - low <= max(UNIT_NS, low / 64)


def test_buckets_follow_each_other_without_gap_up_to_a_thousand_seconds():
    bounds = histogram_bounds()
    assert bounds[0] == UNIT_NS
    assert bounds[-1] == TOP_NS >= 1000 * 10**9
    for index, upper in enumerate(bounds):
        assert HistogramDoor.bounds_ns(index)[1] == upper
        assert HistogramDoor.index(upper - 1) == index
        assert HistogramDoor.index(upper) == min(index + 1, len(bounds) - 1)


@given(st.lists(durations, min_size=1, max_size=200), shares)
def test_a_quantile_is_within_one_percent_of_the_nearest_rank_sample(samples, q):
    exact = nearest_rank(samples, q)
    assert abs(histogram_of(samples).quantile_ns(q) - exact) <= max(0.01 * exact, UNIT_NS / 2)


@given(st.lists(any_durations, min_size=1, max_size=50), shares, shares)
def test_quantiles_rise_and_never_exceed_the_longest_sample(samples, q, r):
    histogram = histogram_of(samples)
    assert histogram.quantile_ns(min(q, r)) <= histogram.quantile_ns(max(q, r)) <= max(samples)


@given(st.integers(TOP_NS, 2**63))
def test_a_duration_beyond_the_top_counts_in_the_last_bucket(ns):
    histogram = histogram_of([ns])
    assert HistogramDoor.index(ns) == len(histogram_bounds()) - 1
    assert 0.99 * TOP_NS <= histogram.quantile_ns(0.5) <= TOP_NS


@given(st.lists(durations, max_size=50), st.lists(durations, max_size=50))
def test_merging_equals_recording_everything_in_one(a, b):
    together = histogram_of(a + b).raw()
    merged = histogram_of(a)
    merged.merge(histogram_of(b))
    assert merged.raw() == together
    assert histogram_merge([histogram_of(a).raw(), histogram_of(b).raw()]) == together


@given(st.lists(durations, max_size=30))
def test_raw_bytes_are_count_sum_longest_and_counts(samples):
    raw = histogram_of(samples).raw()
    count, sum_ns, max_ns, *counts = struct.unpack(f"={len(raw) // 8}Q", raw)
    assert (count, sum_ns, max_ns) == (len(samples), sum(samples), max(samples, default=0))
    expected = [0] * len(histogram_bounds())
    for ns in samples:
        expected[HistogramDoor.index(ns)] += 1
    assert counts == expected


def test_several_quantiles_are_read_from_raw_bytes_at_once():
    histogram = histogram_of(range(100_000, 200_000, 100))
    qs = [0.0, 0.5, 0.99, 1.0]
    assert histogram_quantiles(histogram.raw(), qs) == [histogram.quantile_ns(q) for q in qs]


@given(st.lists(durations.filter(bool), min_size=1, max_size=50), st.lists(shares, min_size=1, max_size=4))
def test_the_statistics_of_python_read_what_the_engine_recorded(samples, qs):
    """meshcore.stats knows the layout too, so that a snapshot can be read where no engine is."""
    histogram = histogram_of(samples)
    read = stats.Histogram(histogram.raw())
    assert (read.count, read.max_ms) == (len(samples), max(samples) / 1e6)
    assert read.quantiles_ms(qs) == [ns / 1e6 for ns in histogram_quantiles(histogram.raw(), qs)]


def test_an_empty_histogram_says_zero():
    empty = histogram_merge([])
    assert histogram_quantiles(empty, [0.0, 0.5, 1.0]) == [0, 0, 0]
    assert empty == bytes(len(empty))


@pytest.mark.parametrize("q, expected", [(-1.0, 1000), (0.0, 1000), (math.nan, 1000), (1.0, 9000), (7.5, 9000)])
def test_a_share_outside_zero_to_one_is_clamped(q, expected):
    assert abs(histogram_of([1000, 9000]).quantile_ns(q) - expected) <= 90


@pytest.mark.parametrize("raw", [b"", b"x" * 24, bytes(14361)])
def test_bytes_of_another_shape_are_refused_with_the_expected_size(raw):
    with pytest.raises(ValueError, match="a raw histogram is 14360 bytes"):
        histogram_quantiles(raw, [0.5])
    with pytest.raises(ValueError, match="a raw histogram is 14360 bytes"):
        histogram_merge([raw])


@pytest.mark.parametrize("raw", [None, "text", bytearray(14360)])
def test_anything_but_bytes_is_refused(raw):
    with pytest.raises(TypeError):
        histogram_quantiles(raw, [0.5])
    with pytest.raises(TypeError):
        histogram_merge([raw])
