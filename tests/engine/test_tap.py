"""Tap sessions: whom they match, and how many a second they show."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import TapDoor


def test_a_session_that_asks_for_nothing_sees_everything():
    assert TapDoor().matches() == (True, True)
    assert TapDoor().matches(route_slot=None, cluster_slot=None, secure=True, method=7) == (True, True)


@pytest.mark.parametrize(("asked", "seen", "unseen"), [
    ({"method": 2}, {"method": 2}, {"method": 0}),
    ({"method": 0}, {"method": 0}, {"method": 1}),
    ({"scheme": 1}, {"secure": False}, {"secure": True}),
    ({"scheme": 2}, {"secure": True}, {"secure": False}),
    ({"route_slot": 3}, {"route_slot": 3}, {"route_slot": 0}),
    ({"route_slot": 0}, {"route_slot": 0}, {"route_slot": None}),
    ({"path": b"/users"}, {"path": b"/users/7"}, {"path": b"/user"}),
    ({"authority": b"a.test"}, {"authority": b"a.test"}, {"authority": b"a.test:80"}),
    ({"source": b"192.0.2.7"}, {"source": b"192.0.2.7"}, {"source": b"192.0.2.70"}),
    ({"source": b"2001:db8::1"}, {"source_ipv6": ipaddress.ip_address("2001:db8::1").packed},
     {"source_ipv6": ipaddress.ip_address("2001:db8::2").packed}),
    ({"source": b"2001:db8::1"}, {"source_ipv6": ipaddress.ip_address("2001:db8::1").packed}, {"source": b"192.0.2.7"}),
    ({"peer": b"/ns/shop/sa/"}, {"secure": True, "identity": b"spiffe://m/ns/shop/sa/web"},
     {"secure": True, "identity": b"spiffe://m/ns/shopping/sa/web"}),
    ({"peer": b"/ns/shop/sa/web", "peer_is_end": True}, {"secure": True, "identity": b"spiffe://m/ns/shop/sa/web"},
     {"secure": True, "identity": b"spiffe://m/ns/shop/sa/web-2"}),
    ({"peer": b"/ns/shop/sa/"}, {"secure": True, "identity": b"spiffe://m/ns/shop/sa/web"}, {"secure": True}),
    ({"peer": b"/ns/shop/sa/"}, {"secure": True, "identity": b"spiffe://m/ns/shop/sa/web"}, {"secure": False}),
])
def test_a_request_is_seen_when_it_is_what_was_asked_for(asked, seen, unseen):
    assert TapDoor(**asked).matches(**seen) == (True, True)
    assert TapDoor(**asked).matches(**unseen)[0] is False


@pytest.mark.parametrize(("asked", "seen", "unseen"), [
    ({"cluster_slot": 4}, {"cluster_slot": 4}, {"cluster_slot": 5}),
    ({"cluster_slot": 0}, {"cluster_slot": 0}, {"cluster_slot": None}),
    ({"to": b"127.0.0.1:80"}, {"to": b"127.0.0.1:80"}, {"to": b"127.0.0.1:8080"}),
    ({"to": b"127.0.0.1:80"}, {"to": b"127.0.0.1:80"}, {"to": None}),
])
def test_an_endpoint_is_asked_about_once_it_is_chosen(asked, seen, unseen):
    assert TapDoor(**asked).matches(**seen) == (True, True)
    assert TapDoor(**asked).matches(**unseen) == (True, False)


@pytest.mark.parametrize(("asked", "seen", "unseen"), [
    ({}, {}, None),
    ({"status_low": 500, "status_high": 599}, {"status": 503}, {"status": 499}),
    ({"status_low": 500, "status_high": 599}, {"status": 599}, {"status": 600}),
    ({"status_low": 404, "status_high": 404}, {"status": 404}, {"status": 0}),
    ({"min_latency_ns": 1000}, {"latency_ns": 1000}, {"latency_ns": 999}),
    ({"reason": 7}, {"reason": 7}, {"reason": 0}),
    ({"reason": 7, "status_low": 503, "status_high": 503}, {"reason": 7, "status": 503}, {"reason": 7, "status": 200}),
])
def test_an_outcome_is_asked_about_once_it_is_known(asked, seen, unseen):
    assert TapDoor(**asked).matches_outcome(**seen)
    assert unseen is None or not TapDoor(**asked).matches_outcome(**unseen)


@given(st.integers(1, 5000), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), max_size=30))
def test_no_second_shows_more_than_the_ceiling_and_the_rest_is_counted(max_rps_milli, bursts):
    tap, second, shown_in, asked = TapDoor(max_rps_milli=max_rps_milli), 1_700_000_000, {}, 0
    for gap, n in bursts:
        second += gap
        shown_in[second] = shown_in.get(second, 0) + sum(tap.admits(second) for _ in range(n))
        asked += n
    assert max(shown_in.values(), default=0) <= max(1, max_rps_milli // 1000)
    assert tap.matched == asked
    assert tap.suppressed == asked - sum(shown_in.values())


def test_without_a_ceiling_everything_is_shown():
    tap = TapDoor()
    assert all(tap.admits(5) for _ in range(10_000))
    assert tap.suppressed == 0


def test_below_one_a_second_the_window_grows():
    tap = TapDoor(max_rps_milli=100)
    assert sum(tap.admits(second) for second in range(1000) for _ in range(5)) == 100
