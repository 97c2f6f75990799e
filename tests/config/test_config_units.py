"""Durations and sizes mean what they say, and are written as they are read."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore.config import Duration
from meshcore.config.units import MAX_DURATION_NS, SIZES, UNITS_NS, DurationKind, SizeKind, parse_size, size_text
from meshcore.config.values import Bad


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS_NS)))
def test_a_duration_is_its_number_times_its_unit(number, unit):
    slow = {"us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
    if number * slow[unit] > MAX_DURATION_NS:
        with pytest.raises(Bad, match="overflows"):
            Duration(f"{number}{unit}")
    else:
        assert Duration(f"{number}{unit}") == number * slow[unit]


@given(st.integers(0, MAX_DURATION_NS // 1000))
def test_a_duration_reads_as_it_is_written(microseconds):
    duration = Duration(microseconds * 1000)
    assert Duration(str(duration)) == duration
    assert eval(repr(duration), {"Duration": Duration}) == duration
    kind = DurationKind("0", "3650d", off=True)
    assert kind.read(kind.text(duration)) == duration


@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_a_timedelta_is_a_duration(delta):
    assert Duration(delta) == round(delta / timedelta(microseconds=1)) * 1000
    assert Duration(delta).seconds == pytest.approx(delta.total_seconds())


@given(st.integers(0, 2**60))
def test_a_size_reads_as_it_is_written(size):
    text = size_text(size)
    assert (text if isinstance(text, int) else parse_size(text)) == size
    assert SizeKind("0B", "2000000TiB").read(text) == size


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZES)))
def test_a_size_is_its_number_times_its_unit(number, unit):
    assert parse_size(f"{number}{unit}") == parse_size(f" {number} {unit} ") == number * 1024 ** list(SIZES).index(unit)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_told_why_not(text):
    for parse in (Duration, parse_size):
        try:
            assert parse(text) >= 0
        except Bad as bad:
            assert bad.message


@pytest.mark.parametrize("text", ["1.5s", "0.25h", ".5m", "1,5s", "1m30s", "1h 30m", "2 seconds", "5min", "1500"])
def test_the_suggested_duration_is_valid_itself(text):
    with pytest.raises(Bad) as caught:
        Duration(text)
    Duration(caught.value.hint.split("'")[1])


def test_durations_print_in_the_largest_whole_unit():
    assert [str(Duration(text)) for text in ("0", "0s", "90s", "120s", "1500ms", "24h", "1000us", "7us")] == [
        "0", "0", "90s", "2m", "1500ms", "1d", "1ms", "7us",
    ]  # fmt: skip
