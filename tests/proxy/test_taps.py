"""Tap lines are byte-exact, can not reach a terminal, and filters mean what their flags say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshcore.taps import TapEvent, TapFilterError, escape, format_json, format_line, tap_filter

FLOW = {
    "worker": 0,
    "stream": 12,
    "src": "10.0.0.7:40112",
    "dst": "10.0.0.9:9000",
    "route": "users",
    "cluster": "users",
}
REQUEST = TapEvent(kind="req", method="GET", scheme="http", authority="a.test", path="/x", **FLOW)
RESPONSE = TapEvent(kind="rsp", status=200, latency_us=769, **FLOW)
END = TapEvent(kind="end", duration_us=117, response_bytes=560, **FLOW)


def test_a_request_line_names_method_authority_and_path():
    assert (
        format_line(REQUEST)
        == "req id=0:12 src=10.0.0.7:40112 dst=10.0.0.9:9000 :method=GET :authority=a.test :path=/x"
    )


def test_a_response_line_has_status_and_latency_in_microseconds():
    assert format_line(RESPONSE) == "rsp id=0:12 src=10.0.0.7:40112 dst=10.0.0.9:9000 :status=200 latency=769µs"


def test_an_end_line_has_duration_and_length():
    assert format_line(END) == "end id=0:12 src=10.0.0.7:40112 dst=10.0.0.9:9000 duration=117µs response-length=560B"


def test_durations_are_never_scaled():
    event = TapEvent(kind="end", duration_us=100_000_000, **FLOW)
    assert format_line(event).endswith(" duration=100000000µs response-length=0B")


@pytest.mark.parametrize(
    ("status", "name"), [(0, "OK"), (4, "DeadlineExceeded"), (16, "Unauthenticated"), (99, "Code(99)")]
)
def test_a_grpc_end_names_its_status(status, name):
    event = TapEvent(kind="end", grpc_status=status, duration_us=1, response_bytes=2, **FLOW)
    assert f" grpc-status={name} duration=1µs" in format_line(event)


def test_a_reset_end_shows_the_error():
    event = TapEvent(kind="end", reset_error=8, **FLOW)
    assert " dst=10.0.0.9:9000 reset-error=8 duration=0µs response-length=0B" in format_line(event)


def test_wide_appends_sorted_labels_and_leaves_out_empty_ones():
    assert format_line(RESPONSE, wide=True).endswith("latency=769µs cluster=users route=users")
    refused = TapEvent(kind="end", reason="queue_full", route="users", cluster="users")
    assert format_line(refused, wide=True).endswith(" cluster=users reason=queue_full route=users")


def test_an_exchange_without_endpoint_shows_a_dash():
    assert "src=1.2.3.4:5 dst=- :status=404" in format_line(TapEvent(kind="rsp", src="1.2.3.4:5", status=404))


def test_ipv6_keeps_its_brackets():
    assert "src=[::1]:4 " in format_line(TapEvent(kind="rsp", src="[::1]:4"))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("/a\x1b[2J", "/a\\x1b[2J"),
        ("/a\x7fb", "/a\\x7fb"),
        ("/a\x9b31m", "/a\\x9b31m"),
        ("/a\r\nend id=0:1", "/a\\x0d\\x0aend\\x20id=0:1"),
        ("/\u202egnp.exe", "/\\u202egnp.exe"),
        ("/caf\u00e9", "/caf\u00e9"),
        ("/\udcff", "/\\xff"),
        ("/a\\x1b", "/a\\\\x1b"),
    ],
)
def test_what_a_client_sends_is_shown_but_not_obeyed(raw, shown):
    assert escape(raw) == shown


@given(st.text())
def test_no_text_can_pass_a_control_or_a_blank(text):
    line = format_line(
        TapEvent(kind="req", method=text, authority=text, path=text, src=text, dst=text, route=text), wide=True
    )
    assert line.isprintable()
    assert line.count(" ") == 6 + bool(text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_json_lines_carry_the_exact_text_and_no_controls(text):
    line = format_json(TapEvent(kind="req", path=text))
    assert line.isprintable()
    assert json.loads(line).get("path", "") == text


def test_conditions_must_all_hold():
    assert tap_filter(method="get", authority="A.test", path="/", to="users", route="users").matches(REQUEST)
    assert not tap_filter(method="POST", authority="a.test").matches(REQUEST)


def test_no_condition_matches_everything():
    assert tap_filter().matches(REQUEST)
    assert tap_filter().matches(TapEvent(kind="req"))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"to": "10.0.0.9"}, True), ({"to": "10.0.0.9:9000"}, True), ({"to": "10.0.0.9:9001"}, False), ({"to": "orders"}, False),
        ({"from": "10.0.0.0/8"}, True), ({"from_": "10.0.0.7"}, True), ({"from": "10.0.0.7:1"}, False), ({"from": "::1"}, False),
        ({"path": "/x"}, True), ({"path": "/xy"}, False), ({"scheme": "HTTP"}, True), ({"scheme": "https"}, False),
        ({"authority": "a"}, False), ({"route": "orders"}, False),
    ],
)  # fmt: skip
def test_each_condition_selects(conditions, expected):
    assert tap_filter(**conditions).matches(REQUEST) is expected


def test_a_mapped_ipv6_spelling_is_normalised():
    event = TapEvent(kind="req", dst="[::1]:80")
    assert tap_filter(to="[0:0:0:0:0:0:0:1]:80").matches(event)
    assert tap_filter(to="::1").matches(event)


@pytest.mark.parametrize(
    ("conditions", "word"),
    [
        ({"max_rps": "0"}, "--max-rps"), ({"max_rps": "nan"}, "--max-rps"), ({"max_rps": "x"}, "--max-rps"), ({"max_rps": -1}, "--max-rps"),
        ({"method": "GE T"}, "--method"), ({"scheme": "ftp"}, "--scheme"), ({"path": "x"}, "--path"), ({"path": "/x?y"}, "--path"),
        ({"authority": "a/b"}, "--authority"), ({"to": "localhost:80"}, "--to"), ({"to": "1.2.3.4:99999"}, "--to"),
        ({"from": "here"}, "--from"), ({"colour": "red"}, "colour"),
    ],
)  # fmt: skip
def test_a_filter_that_can_not_be_meant_is_refused_by_name(conditions, word):
    with pytest.raises(TapFilterError, match=word):
        tap_filter(**conditions)


def test_a_filter_survives_its_query_string():
    chosen = tap_filter(method="GET", path="/a", to="10.0.0.1:80", from_="10.0.0.0/8", max_rps=2.5)
    assert tap_filter(**chosen.to_query()) == chosen
