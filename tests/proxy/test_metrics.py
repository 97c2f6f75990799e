"""The metrics page parses with the official parser and says what the statistics say."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshcore.metrics import BOUNDS_SECONDS, escape_label, render
from meshcore.stats import snapshot
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy.fake_engine import histogram_bytes, raw_stats

ROUTE = 'users"\\\n'


def samples(raw=None, **options) -> dict:
    page = render(snapshot(raw or raw_stats(), started_ns=0, taken_ns=10**10), **options)
    return {
        (sample.name, *(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_the_official_parser_reads_every_family_with_its_type():
    families = {family.name: family for family in text_string_to_metric_families(render(snapshot(raw_stats())))}
    assert families["mesh_requests"].type == "counter"
    assert families["mesh_request_duration_seconds"].type == "histogram"
    assert families["mesh_endpoint_ejected"].type == "gauge"
    assert all(family.documentation for family in families.values())


def test_requests_are_counted_by_route_and_class():
    page = samples()
    assert page["mesh_requests_total", ("code_class", "2xx"), ("route", ROUTE)] == 9
    assert page["mesh_requests_total", ("code_class", "5xx"), ("route", ROUTE)] == 1
    assert page["mesh_requests_total", ("code_class", "4xx"), ("route", ROUTE)] == 0
    assert ("mesh_requests_total", ("code_class", "none"), ("route", ROUTE)) not in page


def test_rejections_carry_the_reason():
    page = samples()
    assert page["mesh_rejections_total", ("reason", "route_not_found")] == 2
    assert ("mesh_rejections_total", ("reason", "queue_full")) not in page


def test_pool_breaker_queue_and_retries_are_there():
    page = samples()
    endpoint = (("cluster", "users"), ("endpoint", "10.0.0.1:80"))
    assert page["mesh_endpoint_pool_idle_connections", *endpoint] == 2
    assert page["mesh_endpoint_ejected", *endpoint] == 1
    assert page["mesh_endpoint_ejections_total", *endpoint] == 1
    assert page["mesh_endpoint_ewma_seconds", *endpoint] == pytest.approx(0.0015)
    assert page["mesh_cluster_queue_length", ("cluster", "users")] == 2
    assert page["mesh_cluster_retries_total", ("cluster", "users")] == 1
    assert page["mesh_listener_connections", ("listener", "web")] == 3


def test_buckets_reach_from_below_a_millisecond_to_fifty_seconds():
    bounds = [float(bound) for bound in BOUNDS_SECONDS]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1], len(bounds)) == (0.0001, 50.0, 30)


@given(st.lists(st.integers(1000, 10**11), min_size=1, max_size=40))
def test_buckets_count_the_samples_below_their_bound_within_one_percent(latencies):
    raw = raw_stats()
    raw["routes"][0].update(name="r", latency=histogram_bytes(*latencies))
    page = samples(raw)
    previous = 0.0
    for bound in (float(bound) for bound in BOUNDS_SECONDS):
        count = page["mesh_request_duration_seconds_bucket", ("le", f"{bound:g}"), ("route", "r")]
        surely = sum(ns / 1e9 < bound * 0.99 for ns in latencies)
        perhaps = sum(ns / 1e9 <= bound * 1.01 for ns in latencies)
        assert max(surely, previous) <= count <= perhaps
        previous = count
    assert page["mesh_request_duration_seconds_bucket", ("le", "+Inf"), ("route", "r")] == len(latencies)
    assert page["mesh_request_duration_seconds_count", ("route", "r")] == len(latencies)
    assert page["mesh_request_duration_seconds_sum", ("route", "r")] == pytest.approx(sum(latencies) / 1e9)


def test_a_route_nobody_asked_for_has_counters_but_no_histogram():
    raw = raw_stats()
    raw["routes"][0].update(name="r", requests=0, status_class=[0] * 6, latency=b"")
    page = samples(raw)
    assert page["mesh_requests_total", ("code_class", "2xx"), ("route", "r")] == 0
    assert not [key for key in page if key[0].startswith("mesh_request_duration")]


def test_build_and_process_are_described():
    page = samples(version="0.1.0", reloads={"ok": 2})
    assert [key for key in page if key[0] == "mesh_build_info" and ("version", "0.1.0") in key]
    assert page["mesh_config_version",] == 3
    assert page["mesh_config_reloads_total", ("result", "ok")] == 2
    assert page["process_resident_memory_bytes",] > 1e6
    assert page["process_open_fds",] > 2
    assert page["process_threads",] >= 1
    assert page["process_start_time_seconds",] > 1.5e9
    assert page["process_cpu_seconds_total",] > 0


def test_a_proxy_without_anything_still_has_a_page():
    page = samples({"workers": []})
    assert not [key for key in page if key[0].startswith("mesh_requests")]


@given(st.text())
def test_any_label_value_survives_the_text_format(text):
    raw = raw_stats()
    raw["listeners"][0]["name"] = text
    page = render(snapshot(raw))
    assert f'mesh_listener_connections{{listener="{escape_label(text)}"}} 3\n' in page
    assert re.fullmatch(r'(?:[^"\\\n]|\\[\\"n])*', escape_label(text), re.DOTALL)


def test_every_value_is_a_finite_number():
    assert all(math.isfinite(value) for value in samples().values())
