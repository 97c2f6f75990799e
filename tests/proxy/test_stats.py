"""Snapshots say what the engine counted, over the proxy's life or between two of them."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshcore.stats import BUCKET_ENDS_NS, Histogram, bucket_index, snapshot

from tests.proxy.fake_engine import MS, histogram_bytes, raw_stats

SECOND = 10**9


def test_every_table_of_the_raw_dict_becomes_a_frozen_row():
    stats = snapshot(raw_stats(), started_ns=0, taken_ns=10 * SECOND)
    assert stats.requests == 10
    assert stats.workers[0].wakeups == 20
    assert stats.cluster("users").queue_len == 2
    assert [endpoint.name for endpoint in stats.endpoints] == ["users/10.0.0.1:80", "users/10.0.0.2:80"]
    with pytest.raises(AttributeError):
        stats.endpoints[0].requests = 1


def test_success_counts_answers_and_rps_the_time():
    stats = snapshot(raw_stats(), started_ns=0, taken_ns=10 * SECOND)
    busy, quiet = stats.endpoints
    assert busy.success_percent == pytest.approx(90.0)
    assert busy.rps == pytest.approx(1.0)
    assert stats.routes[0].success_percent == pytest.approx(90.0)
    assert quiet.success_percent is None
    assert quiet.latency.p99_ms is None


def test_rates_are_unknown_without_a_start():
    assert snapshot(raw_stats()).endpoints[0].rps is None


def test_the_engines_own_start_serves_as_well():
    stats = snapshot({**raw_stats(), "started_unix_s": time.time() - 10})
    assert 9 < stats.seconds < 60


def test_a_window_holds_only_what_happened_in_it():
    earlier = snapshot(raw_stats(1), started_ns=0, taken_ns=10 * SECOND)
    later = snapshot(raw_stats(3), started_ns=0, taken_ns=12 * SECOND)
    window = later.since(earlier)
    assert window.seconds == pytest.approx(2.0)
    assert window.endpoints[0].requests == 20
    assert window.endpoints[0].rps == pytest.approx(10.0)
    assert window.endpoints[0].latency.count == 20
    assert window.routes[0].status_class == (0, 0, 18, 0, 0, 2)
    assert window.reasons == {"route_not_found": 4}


def test_gauges_are_not_subtracted():
    window = snapshot(raw_stats(3)).since(snapshot(raw_stats(1)))
    assert window.endpoints[0].open_connections == 3
    assert window.endpoints[0].ejected
    assert window.workers[0].connections == 3


def test_a_window_without_traffic_has_no_figures():
    stats = snapshot(raw_stats())
    quiet = stats.since(stats).endpoints[0]
    assert (quiet.requests, quiet.success_percent, quiet.latency.p50_ms) == (0, None, None)


def test_an_endpoint_that_came_after_the_first_snapshot_counts_whole():
    raw = raw_stats()
    raw["clusters"][0]["endpoints"] = []
    window = snapshot(raw_stats(2), taken_ns=SECOND).since(snapshot(raw, taken_ns=0))
    assert window.endpoints[0].requests == 20


def test_a_counter_that_ran_backwards_was_born_anew():
    window = snapshot(raw_stats(1), taken_ns=SECOND).since(snapshot(raw_stats(5), taken_ns=0))
    assert window.endpoints[0].requests == 10
    assert window.endpoints[0].latency.count == 10


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="no cluster 'user'; there are: users"):
        snapshot(raw_stats()).cluster("user")


def test_statistics_become_plain_json_with_quantiles():
    plain = json.loads(json.dumps(snapshot(raw_stats(), started_ns=0, taken_ns=SECOND).to_dict()))
    endpoint = plain["clusters"][0]["endpoints"][0]
    assert endpoint["success_percent"] == 90.0
    assert endpoint["latency"]["count"] == 10
    assert endpoint["latency"]["p50_ms"] == pytest.approx(5, rel=0.01)


@given(st.integers(0, 10**12))
def test_a_bucket_holds_its_latency_and_is_narrow(ns):
    index = bucket_index(ns)
    low, high = BUCKET_ENDS_NS[index - 1] if index else 0, BUCKET_ENDS_NS[index]
    assert low <= ns < high
    assert high - low <= max(128, low / 64)


@given(
    st.lists(st.integers(128 * 64, 10**12), min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0])
)
def test_quantiles_are_within_one_percent_of_the_sorted_samples(latencies, quantile):
    rank = max(1, -int(-quantile * len(latencies) // 1))
    exact_ms = sorted(latencies)[rank - 1] / 1e6
    assert Histogram(histogram_bytes(*latencies)).quantiles_ms([quantile])[0] == pytest.approx(exact_ms, rel=0.01)


@given(st.lists(st.integers(0, 10**11), max_size=30), st.lists(st.integers(0, 10**11), min_size=1, max_size=30))
def test_what_came_since_is_what_was_recorded_since(before, after):
    difference = Histogram(histogram_bytes(*before, *after)).since(Histogram(histogram_bytes(*before)))
    fresh = Histogram(histogram_bytes(*after))
    assert difference.count == fresh.count
    assert difference.sum_seconds == fresh.sum_seconds
    quantiles = [0.5, 0.99]
    assert difference.quantiles_ms(quantiles) == pytest.approx(fresh.quantiles_ms(quantiles), rel=0.02, abs=0.0002)


def test_an_empty_histogram_says_so():
    assert repr(Histogram()) == "Histogram(empty)"
    assert Histogram().max_ms is None
    assert Histogram(histogram_bytes(MS)).max_ms == 1.0
