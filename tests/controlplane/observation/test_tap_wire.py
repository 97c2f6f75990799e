"""Events and conditions survive the way to the control plane and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore.api import relay_pb2
from meshcore.api.tap_wire import ask_of, event_of, filter_of, seen_of
from meshcore.taps import TapEvent, TapFilterError, tap_filter

COMMON = {
    "worker": 3, "stream": 17, "time_unix_ns": 1_700_000_000_123_456_789, "src": "10.0.0.7:40112", "dst": "[2001:db8::1]:443",
    "tls": True, "src_id": "spiffe://m/ns/a/sa/b", "route": "r", "cluster": "c", "direction": "out", "src_labels": {"pod": "a"},
    "dst_labels": {"pod": "b", "namespace": "n"}, "reason": "upstream_reset",
}  # fmt: skip


@pytest.mark.parametrize("event", [
    TapEvent(kind="req", method="GET", scheme="https", authority="a.test", path="/x", fields=(("accept", "é"),), **COMMON),
    TapEvent(kind="req", method="BREW", scheme="http", **COMMON),
    TapEvent(kind="rsp", status=503, latency_us=100_000_001, fields=(("server", "x"),), **COMMON),
    TapEvent(kind="end", latency_us=7, duration_us=5_000_000_000, response_bytes=2**40, grpc_status=14, request_body="a", response_body="ü", **COMMON),
    TapEvent(kind="end", reset_error=8, **COMMON), TapEvent(kind="end", **COMMON),
    TapEvent(kind="open", scheme="tcp", authority="sni.test", **COMMON),
    TapEvent(kind="end", scheme="tcp", request_bytes=3, response_bytes=4, **COMMON),
    TapEvent(kind="req", method="GET", scheme="http", dst="unix:/run/x", src="unix:/y"), TapEvent(kind="req", method="GET", scheme="http"),
])  # fmt: skip
def test_an_event_comes_back_as_it_was(event):
    assert event_of(relay_pb2.Seen.FromString(seen_of(event))) == event


@given(st.binary(max_size=200))
def test_bytes_that_are_no_event_of_ours_are_none_or_an_event(raw):
    try:
        seen = relay_pb2.Seen.FromString(raw)
    except Exception:  # what protobuf itself refuses never reaches us
        return
    assert isinstance(event_of(seen), (TapEvent, type(None)))


def test_conditions_come_back_as_they_were():
    asked = tap_filter(method="get", path="/x", to="10.0.0.1:80", to_labels={"service": "b"}, from_="ns/shop", status="5xx", min_latency="10ms",
                       reason="no_endpoint", headers=True, body=100, max_rps=7.5, scheme="https", authority="A.test", route="r")  # fmt: skip
    assert filter_of(relay_pb2.Ask.FromString(ask_of(asked).SerializeToString())) == asked


@pytest.mark.parametrize("ask", [{"max_rps": 0}, {"max_rps": float("nan")}, {"max_rps": 1, "status": "x"}, {"max_rps": 1, "body_bytes": 10**6},
                                 {"max_rps": 1, "reason": "no_such"}, {"max_rps": 1, "path": "x"}, {"max_rps": 1, "authority": "a b"}])  # fmt: skip
def test_conditions_off_the_wire_are_checked_as_flags_are(ask):
    with pytest.raises(TapFilterError):
        filter_of(relay_pb2.Ask(**ask))
