"""Response heads: status, body length, tunnels; every refusal is the endpoint's fault."""

import pytest

from meshcore._fastpath import parse_response

NONE, LENGTH, CHUNKED, UNTIL_CLOSE = 0, 1, 2, 3


def response(*fields: str, line: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def head(*fields: str, line: str = "HTTP/1.1 200 OK", method: bytes = b"GET", may_upgrade: bool = False, limits=None) -> dict:
    verdict, values = parse_response([response(*fields, line=line) + b"rest"], limits, method, may_upgrade)
    assert verdict == "done", verdict
    assert values["size"] == len(response(*fields, line=line))
    return values


def refusal(*fields: str, line: str = "HTTP/1.1 200 OK", method: bytes = b"GET", may_upgrade: bool = False, limits=None) -> str:
    verdict, _ = parse_response([response(*fields, line=line)], limits, method, may_upgrade)
    assert verdict not in ("done", "more")
    return verdict


@pytest.mark.parametrize("line, status, reason", [
    ("HTTP/1.1 200 OK", 200, b"OK"), ("HTTP/1.0 404 Not Found", 404, b"Not Found"), ("HTTP/1.1 200 ", 200, b""), ("HTTP/1.1 200", 200, b""),
    ("HTTP/1.1 599 \xe9\t!", 599, b"\xe9\t!"), ("HTTP/1.1 100 Continue", 100, b"Continue"),
])
def test_a_status_line_is_read(line, status, reason):
    values = head("Content-Length: 0", line=line)
    assert (values["status"], values["reason"]) == (status, reason)


@pytest.mark.parametrize("line", [
    "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1 abc OK", "HTTP/1.1 -20 x", "HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "ICY 200 OK",
    "http/1.1 200 OK", "HTTP/1.1 999 X", "HTTP/1.1 600 X", "HTTP/1.1 099 X", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200OK",
    "HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 O\x7fK", " HTTP/1.1 200 OK", "\r\nHTTP/1.1 200 OK", "RTSP/1.0 200 OK", "",
])
def test_any_other_status_line_is_malformed(line):
    assert refusal("Content-Length: 0", line=line) == "UPSTREAM_MALFORMED"


def test_a_bare_line_feed_ends_nothing():
    assert parse_response([b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"])[0] == "UPSTREAM_MALFORMED"
    assert parse_response([b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n"])[0] == "UPSTREAM_MALFORMED"


@pytest.mark.parametrize("fields, framing, length, keep_alive", [
    (["Content-Length: 5"], LENGTH, 5, True), (["Content-Length: 0"], LENGTH, 0, True), (["Transfer-Encoding: chunked"], CHUNKED, None, True),
    (["Transfer-Encoding: Chunked "], CHUNKED, None, True), ([], UNTIL_CLOSE, None, False), (["Connection: close", "Content-Length: 5"], LENGTH, 5, False),
])
def test_the_fields_say_how_the_body_ends(fields, framing, length, keep_alive):
    values = head(*fields)
    assert (values["framing"], values["content_length"], values["keep_alive"]) == (framing, length, keep_alive)


@pytest.mark.parametrize("fields", [
    ["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: 10"], ["Content-Length: 5", "Content-Length: 5"], ["Content-Length: 5x"], ["Content-Length: 5, 5"],
    ["Content-Length: 18446744073709551616"], ["Content-Length: 9223372036854775808"], ["Content-Length:"], ["Content-Length: -1"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["Transfer-Encoding:"], ["Transfer-Encoding: gzip"],
    ["Transfer-Encoding: gzip, chunked"], ["Transfer-Encoding: identity"], ["A : b"], ["garbage"], ["A: b\0"], ["A: b\rSet-Cookie: c"], ["A: b\r\n c"],
])
def test_a_faulty_field_section_is_malformed(fields):
    assert refusal(*fields) == "UPSTREAM_MALFORMED"


def test_http_1_0_has_no_codings_and_closes_unless_it_says_otherwise():
    assert refusal("Transfer-Encoding: chunked", line="HTTP/1.0 200 OK") == "UPSTREAM_MALFORMED"
    assert not head("Content-Length: 5", line="HTTP/1.0 200 OK")["keep_alive"]
    assert head("Content-Length: 5", "Connection: keep-alive", line="HTTP/1.0 200 OK")["keep_alive"]
    assert not head("Connection: keep-alive", line="HTTP/1.0 200 OK")["keep_alive"]


@pytest.mark.parametrize("status, method, fields, keep_alive", [
    (204, b"GET", [], True), (204, b"GET", ["Content-Length: 5"], False), (204, b"GET", ["Content-Length: 0"], True),
    (204, b"GET", ["Transfer-Encoding: chunked"], False), (304, b"GET", ["Content-Length: 5"], True), (304, b"GET", [], True),
    (200, b"HEAD", ["Content-Length: 5"], True), (200, b"HEAD", ["Transfer-Encoding: chunked"], True), (200, b"HEAD", [], True),
    (103, b"GET", ["Link: </a>"], True), (100, b"POST", [], True),
])
def test_some_responses_have_no_body_whatever_they_say(status, method, fields, keep_alive):
    values = head(*fields, line=f"HTTP/1.1 {status} X", method=method)
    assert (values["framing"], values["keep_alive"], values["is_tunnel"]) == (NONE, keep_alive, False)


def test_the_length_of_a_bodiless_answer_is_kept_as_metadata():
    assert head("Content-Length: 5", method=b"HEAD")["content_length"] == 5


def test_a_switch_of_protocols_must_have_been_asked_for():
    fields = ["Connection: Upgrade", "Upgrade: websocket"]
    line = "HTTP/1.1 101 Switching Protocols"
    assert refusal(*fields, line=line) == "UPSTREAM_UNASKED_UPGRADE"
    values = head(*fields, line=line, may_upgrade=True)
    assert (values["is_tunnel"], values["upgrade"], values["framing"]) == (True, 1, NONE)
    for wrong in ([], ["Upgrade: websocket"], ["Connection: upgrade"], ["Connection: upgrade", "Upgrade: h2c"],
                  ["Connection: upgrade", "Upgrade: a", "Upgrade: b"], ["Connection: upgrade", "Upgrade: a, b"]):
        assert refusal(*wrong, line=line, may_upgrade=True) == "UPSTREAM_MALFORMED"


def test_success_answers_connect_with_a_tunnel():
    values = head("Content-Length: 5", method=b"CONNECT")
    assert (values["is_tunnel"], values["framing"]) == (True, NONE)
    assert not head("Content-Length: 5", line="HTTP/1.1 403 No", method=b"CONNECT")["is_tunnel"]


@pytest.mark.parametrize("limits", [{"head_size_bytes": 50}, {"field_size_bytes": 30}, {"max_fields": 2}])
def test_a_head_over_a_limit_is_too_large(limits):
    assert refusal("A: " + "x" * 40, "B: 1", "C: 2", limits=limits) == "UPSTREAM_HEAD_TOO_LARGE"


def test_an_endless_reason_is_too_large():
    assert refusal(line="HTTP/1.1 200 " + "x" * 40000) == "UPSTREAM_HEAD_TOO_LARGE"
