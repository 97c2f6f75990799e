"""Edited heads: what is sent on instead of what came. STRICT_OUT: it re-parses, here and in h11, to one message."""

import re
from email.utils import formatdate

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshcore._fastpath import edit_request, edit_response, parse_request, parse_response

SET, ADD, REMOVE = 0, 1, 2
APPEND, REPLACE = 1, 2
QUIET = {"via": None, "x_forwarded": 0, "request_id": False, "traceparent": False}
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UUID7 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "Host: a.test") -> bytes:
    return "\r\n".join([line, *([host] if host else []), *fields, "", ""]).encode("latin-1")


def lines_of(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def sent(*fields: str, line="GET / HTTP/1.1", host="Host: a.test", **options) -> list[bytes]:
    """The lines sent upstream, forwarding fields off unless the test asks."""
    options.setdefault("forwarding", QUIET)
    return lines_of(edit_request(request(*fields, line=line, host=host), **options))


def values(lines: list[bytes], name: str) -> list[bytes]:
    prefix = name.lower().encode() + b":"
    return [line[len(prefix):].strip() for line in lines if line.lower().startswith(prefix)]


def forwarded(*fields: str, mode=APPEND, **options) -> list[bytes]:
    return sent(*fields, forwarding={**QUIET, "x_forwarded": mode}, **options)


# --- start line and host ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line, out, host", [
    ("GET /a?b HTTP/1.1", b"GET /a?b HTTP/1.1", b"host: a.test"), ("GET /a HTTP/1.0", b"GET /a HTTP/1.1", b"host: a.test"),
    ("\r\nFOO /a HTTP/1.1", b"FOO /a HTTP/1.1", b"host: a.test"), ("GET http://b.test:81/x?y HTTP/1.1", b"GET /x?y HTTP/1.1", b"host: b.test:81"),
    ("GET http://b.test HTTP/1.1", b"GET / HTTP/1.1", b"host: b.test"), ("GET http://b.test?q HTTP/1.1", b"GET /?q HTTP/1.1", b"host: b.test"),
    ("OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"host: a.test"), ("OPTIONS http://b.test HTTP/1.1", b"OPTIONS * HTTP/1.1", b"host: b.test"),
    ("OPTIONS http://b.test/ HTTP/1.1", b"OPTIONS / HTTP/1.1", b"host: b.test"), ("OPTIONS http://b.test?q HTTP/1.1", b"OPTIONS /?q HTTP/1.1", b"host: b.test"),
    ("CONNECT b.test:443 HTTP/1.1", b"CONNECT b.test:443 HTTP/1.1", b"host: b.test:443"),
])
def test_the_start_line_is_canonical_and_host_comes_first(line, out, host):
    assert sent(line=line) == [out, host]


def test_an_empty_port_is_left_out():
    assert sent(host="Host: a.test:")[1] == b"host: a.test"


@pytest.mark.parametrize("cluster, host", [(b"users", b"users"), (b"all users", b"localhost"), (b"u" * 300, b"localhost"), (b"", b"localhost")])
def test_a_1_0_request_without_host_gets_the_name_of_its_cluster(cluster, host):
    assert sent(host=None, line="GET / HTTP/1.0", route={"cluster": cluster})[1] == b"host: " + host
    assert sent(host=None, line="GET / HTTP/1.0")[1] == b"host: localhost"


@pytest.mark.parametrize("prefix, rewrite, target, out", [
    (b"/users", b"/v1", "/users/7?x", b"/v1/7?x"), (b"/users", b"/v1/", "/users", b"/v1"), (b"/users/", b"/v1", "/users/7", b"/v1/7"),
    (b"/users", b"/", "/users/7", b"/7"), (b"/users", b"/", "/users", b"/"), (b"/users", b"", "/users?x", b"/?x"), (b"/", b"/v1", "/a", b"/v1/a"),
    (b"/", b"/v1", "/", b"/v1/"), (b"/users", b"/a/b", "http://b.test/users/7", b"/a/b/7"),
])
def test_a_prefix_is_rewritten_by_whole_segments(prefix, rewrite, target, out):
    line = sent(line=f"GET {target} HTTP/1.1", route={"prefix": prefix, "prefix_rewrite": rewrite})[0]
    assert line == b"GET " + out + b" HTTP/1.1"


def test_a_route_may_name_the_host():
    lines = edit_request(request(host="Host: a.test:80"), route={"host_rewrite": b"x.test"})
    assert values(lines_of(lines), "host") == [b"x.test"]
    assert values(lines_of(lines), "x-forwarded-host") == [b"a.test:80"]


# --- hop by hop, framing ------------------------------------------------------------------------------------------

def test_fields_of_this_hop_go_no_further():
    lines = sent("A: 1", "Connection: keep-alive, x-b", "Keep-Alive: timeout=5", "X-B: 2", "C: 3", "Proxy-Connection: keep-alive", "Upgrade: h2c", "Proxy-Authorization: x",
                 "Content_Length: 9", "D:4", "TE: gzip", "Trailer: X", "Proxy: x")
    assert lines == [b"GET / HTTP/1.1", b"host: a.test", b"A: 1", b"C: 3", b"D:4"]


def test_fields_are_copied_as_they_came_in_order():
    assert sent("B: 1", "A:  2 ", "B: 3")[2:] == [b"B: 1", b"A:  2 ", b"B: 3"]


@pytest.mark.parametrize("field, out", [
    ("Content-Length: 5", [b"Content-Length: 5"]), ("Content-Length: 0", [b"Content-Length: 0"]), ("Content-Length: 010", [b"content-length: 10"]),
    ("Transfer-Encoding: Chunked", [b"transfer-encoding: chunked"]), ("A: 1", [b"A: 1"]),
])
def test_one_canonical_framing_goes_out(field, out):
    assert sent(field, line="POST / HTTP/1.1")[2:] == out


def test_trailers_are_announced_only_in_front_of_a_chunked_body():
    assert sent("Trailer: X", "Trailer: Y", "Transfer-Encoding: chunked", line="POST / HTTP/1.1")[2:] == [b"transfer-encoding: chunked", b"trailer: X, Y"]
    assert sent("Trailer: X", "Content-Length: 5", line="POST / HTTP/1.1")[2:] == [b"Content-Length: 5"]


def test_te_trailers_is_asked_for_anew():
    assert sent("Connection: te", "TE: gzip, trailers")[2:] == [b"connection: te", b"te: trailers"]


def test_an_upgrade_is_offered_only_when_the_route_allows_it():
    fields = ["Connection: Upgrade", "Upgrade: h2c, websocket", KEY]
    assert sent(*fields)[2:] == [KEY.encode()]
    assert sent(*fields, allow_upgrade=True)[2:] == [b"connection: upgrade", b"upgrade: websocket", KEY.encode()]
    assert sent("Connection: upgrade", "Upgrade: a/1, TLS/1.0", "Upgrade: h2c,b", allow_upgrade=True)[2:] == [b"connection: upgrade", b"upgrade: a/1, b"]
    assert sent("Connection: upgrade, te", "TE: trailers", "Upgrade: a", allow_upgrade=True)[2:] == [b"connection: upgrade, te", b"te: trailers", b"upgrade: a"]
    assert sent("Connection: upgrade", "Upgrade: h2c", allow_upgrade=True)[2:] == []


def test_max_forwards_counts_down_for_options_only():
    assert values(sent("Max-Forwards: 5", line="OPTIONS / HTTP/1.1"), "max-forwards") == [b"4"]
    assert values(sent("Max-Forwards: x", line="OPTIONS / HTTP/1.1"), "max-forwards") == []
    assert values(sent("Max-Forwards: 5"), "max-forwards") == [b"5"]


# --- forwarding fields --------------------------------------------------------------------------------------------

def test_via_names_the_version_received():
    assert values(sent("Via: 1.1 first", forwarding={**QUIET, "via": b"me"}), "via") == [b"1.1 first", b"1.1 me"]
    assert values(sent(line="GET / HTTP/1.0", forwarding={**QUIET, "via": b"me"}), "via") == [b"1.0 me"]
    assert values(sent("Via: 1.1 first", forwarding={**QUIET, "via": b"me"}, is_http2=True), "via") == [b"1.1 first", b"2.0 me"]
    assert values(answered("Via: 1.1 b", forwarding={"via": b"me"}, is_http2=True), "via") == [b"1.1 b", b"2.0 me"]


@given(st.integers(0, 253_402_300_799))
@example(951_782_400)
@example(4_107_542_399)
def test_a_response_without_a_date_gets_one(second):
    """RFC 9110 6.6.1: who forwards it writes down when it came. Up to the year 9999, which the format has room for."""
    assert values(answered(second=second), "date") == [formatdate(second, usegmt=True).encode()]


def test_a_date_that_is_there_stays_and_interim_responses_need_none():
    assert values(answered("DATE: Sun, 06 Nov 1994 08:49:37 GMT", second=1), "date") == [b"Sun, 06 Nov 1994 08:49:37 GMT"]
    assert values(answered(), "date") == []


@pytest.mark.parametrize("op", [(REMOVE, b"date", b""), (SET, b"Date", b"never")])
def test_a_route_that_sets_or_removes_dates_is_obeyed(op):
    lines = answered(second=1, route={"response_headers": [op]})
    assert values(lines, "date") == [op[2]] * (op[0] == SET)


def test_the_caller_is_told_in_x_forwarded_fields():
    lines = forwarded(client=b"10.0.0.9", secure=True)
    assert lines[2:] == [b"x-forwarded-for: 10.0.0.9", b"x-forwarded-proto: https", b"x-forwarded-host: a.test"]


def test_the_callers_address_stands_last_whatever_the_caller_claims():
    fields = ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For:", "X-Real-IP: 127.0.0.1", "x-forwarded-for: 2.2.2.2, 3.3.3.3", "Forwarded: for=127.0.0.1", "Forwarded: for=_x"]
    lines = forwarded(*fields, client=b"10.0.0.9")
    assert values(lines, "x-forwarded-for") == [b"1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.9"]
    assert values(lines, "x-real-ip") == [b"10.0.0.9"]
    assert values(lines, "forwarded") == [b"for=127.0.0.1, for=_x, for=10.0.0.9"]
    lines = forwarded(*fields, client=b"10.0.0.9", mode=REPLACE)
    assert values(lines, "x-forwarded-for") == [b"10.0.0.9"]
    assert values(lines, "forwarded") == []


def test_empty_claims_leave_no_empty_members():
    assert values(forwarded("X-Forwarded-For:", "Forwarded:", client=b"::1"), "x-forwarded-for") == [b"::1"]
    assert values(forwarded("X-Forwarded-For:", "Forwarded:", client=b"::1"), "forwarded") == [b'for="[::1]"']


def test_a_caller_without_address_adds_none():
    assert values(forwarded(client=b""), "x-forwarded-for") == []
    assert values(forwarded("X-Forwarded-For: 1.1.1.1", client=b""), "x-forwarded-for") == [b"1.1.1.1"]


def test_the_first_proxys_word_on_proto_and_host_is_kept_unless_replaced():
    fields = ["X-Forwarded-Proto: https", "X-Forwarded-Host: b.test"]
    assert values(forwarded(*fields), "x-forwarded-proto") == [b"https"]
    assert values(forwarded(*fields), "x-forwarded-host") == [b"b.test"]
    assert values(forwarded(*fields, mode=REPLACE), "x-forwarded-proto") == [b"http"]
    assert values(forwarded(*fields, mode=REPLACE), "x-forwarded-host") == [b"a.test"]


def test_mesh_fields_come_from_inside_the_mesh_only():
    fields = ["l5d-client-id: spiffe://td/admin", "L5D-dtab: /x => /y", "X-Forwarded-Client-Cert: URI=x", "l5d-ctx-trace: A", "B: 1"]
    assert sent(*fields)[2:] == [b"B: 1"]
    assert len(sent(*fields, trust_mesh_headers=True)) == 2 + len(fields)


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET / HTTP/1.0", "GET http://a.test/ HTTP/1.1"])
def test_the_mark_of_the_mesh_s_hop_is_no_caller_s_to_set(line):
    for trusted in (False, True):
        assert values(sent("l5d-orig-proto: HTTP/9", "L5D_Orig_Proto: x", line=line, trust_mesh_headers=trusted), "l5d-orig-proto") == []


def test_a_request_without_content_says_so_where_it_would_have_been_told_otherwise():
    for method, told in (("POST", [b"0"]), ("PUT", [b"0"]), ("GET", []), ("DELETE", [])):
        assert values(sent(line=f"{method} / HTTP/1.1", tells_empty=True), "content-length") == told
    assert values(sent("Content-Length: 3", line="POST / HTTP/1.1", tells_empty=True), "content-length") == [b"3"]
    assert values(sent("Transfer-Encoding: chunked", line="POST / HTTP/1.1", tells_empty=True), "content-length") == []


def test_a_request_id_is_kept_when_it_is_clean():
    on = {**QUIET, "request_id": True}
    assert values(sent("X-Request-ID: abc.DEF_1-~", forwarding=on), "x-request-id") == [b"abc.DEF_1-~"]
    for bad in (["X-Request-Id: a b"], ["X-Request-Id:"], ["X-Request-Id: " + "x" * 129], ["X-Request-Id: a", "X-Request-Id: b"], ["X-Request-Id: a\"b"], []):
        [made] = values(sent(*bad, forwarding=on, wall_ms=0x0123456789AB), "x-request-id")
        assert UUID7.fullmatch(made) and made.startswith(b"01234567-89ab-7")
    first, second = (values(sent(forwarding=on, seed=seed), "x-request-id") for seed in (1, 2))
    assert first != second


def test_a_trace_is_kept_when_valid_and_started_otherwise():
    on = {**QUIET, "traceparent": True}
    for valid in (TRACEPARENT, TRACEPARENT[:-1] + "0", "cc" + TRACEPARENT[2:] + "-more", "01" + TRACEPARENT[2:]):
        lines = sent(f"traceparent: {valid}", "tracestate: a=b", forwarding=on)
        assert (values(lines, "traceparent"), values(lines, "tracestate")) == ([valid.encode()], [b"a=b"])
    zero_trace = "00-" + "0" * 32 + TRACEPARENT[35:]
    zero_span = TRACEPARENT[:36] + "0" * 16 + "-01"
    for bad in ("ff" + TRACEPARENT[2:], TRACEPARENT.upper(), TRACEPARENT + "-x", TRACEPARENT[:-1], zero_trace, zero_span, "", "01" + TRACEPARENT[2:] + "x",
                TRACEPARENT.replace("-", "_")):
        lines = sent(f"traceparent: {bad}", "tracestate: a=b", forwarding=on)
        [made] = values(lines, "traceparent")
        assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", made) and made != bad.encode()
        assert values(lines, "tracestate") == []
    assert values(sent(f"traceparent: {TRACEPARENT}", f"traceparent: {TRACEPARENT}", forwarding=on), "traceparent") != [TRACEPARENT.encode()]


# --- operations of the route --------------------------------------------------------------------------------------

def test_a_route_sets_adds_and_removes_fields():
    route = {"request_headers": [(SET, b"x-a", b"new"), (ADD, b"x-b", b"more"), (REMOVE, b"x-c", b"")]}
    lines = sent("X-A: 1", "X-B: 1", "x-a: 2", "X-C: 1", "D: 1", route=route)
    assert lines[2:] == [b"X-B: 1", b"D: 1", b"x-a: new", b"x-b: more"]


def test_what_a_route_sets_is_not_generated_again():
    route = {"request_headers": [(SET, b"x-request-id", b"fixed"), (REMOVE, b"x-forwarded-for", b""), (SET, b"traceparent", b"t")]}
    lines = lines_of(edit_request(request("X-Forwarded-For: 1.1.1.1"), route=route))
    assert values(lines, "x-request-id") == [b"fixed"]
    assert values(lines, "x-forwarded-for") == []
    assert values(lines, "traceparent") == [b"t"]


def test_too_little_room_is_noticed_before_writing():
    assert edit_request(request("A: 1"), room=100) is None
    assert edit_response(b"HTTP/1.1 200 OK\r\n\r\n", room=100) is None
    worst = request("Forwarded: for=a", "X-Forwarded-For: b", "X-Real-IP: c", "Max-Forwards: 9", "TE: trailers", "Connection: te, upgrade", "Upgrade: x", host="Host: " + "h" * 200,
                    line="OPTIONS /a HTTP/1.1")
    for room in range(len(worst), len(worst) + 1200, 7):
        out = edit_request(worst, client=b"2001:db8:1111:2222:3333:4444:5555:6666", allow_upgrade=True, secure=True, room=room)
        assert out is None or len(out) <= room


# --- responses ----------------------------------------------------------------------------------------------------

def answered(*fields: str, line="HTTP/1.1 200 OK", **options) -> list[bytes]:
    options.setdefault("forwarding", QUIET)
    return lines_of(edit_response("\r\n".join([line, *fields, "", ""]).encode("latin-1"), **options))


def test_a_response_keeps_its_fields_and_loses_those_of_the_hop():
    lines = answered("Server: x", "Connection: X-Foo", "X-Foo: 1", "Keep-Alive: timeout=1", "Content-Length: 5", "Set-Cookie: a", "Proxy-Authenticate: b", "Upgrade: h2")
    assert lines == [b"HTTP/1.1 200 OK", b"Server: x", b"Content-Length: 5", b"Set-Cookie: a"]


@pytest.mark.parametrize("line, out", [("HTTP/1.0 404 Not Found", b"HTTP/1.1 404 Not Found"), ("HTTP/1.1 200", b"HTTP/1.1 200 "), ("HTTP/1.1 200 ", b"HTTP/1.1 200 ")])
def test_a_status_line_is_ours(line, out):
    assert answered("Content-Length: 0", line=line)[0] == out


def test_a_response_is_framed_as_the_caller_says():
    assert answered("Transfer-Encoding: chunked", "Trailer: X")[1:] == [b"transfer-encoding: chunked", b"trailer: X"]
    assert answered("Transfer-Encoding: chunked", "Trailer: X", framing=3, close=True)[1:] == [b"connection: close"]
    assert answered(framing=2)[1:] == [b"transfer-encoding: chunked"]
    assert answered("Content-Length: 5", framing=2)[1:] == [b"transfer-encoding: chunked"]
    assert answered("Content-Length: 005")[1:] == [b"content-length: 5"]
    assert answered("Content-Length: 5", content_length=7)[1:] == [b"content-length: 7"]


def test_lengths_are_kept_as_metadata_and_dropped_where_they_must_not_be():
    assert answered("Content-Length: 5", method=b"HEAD")[1:] == [b"Content-Length: 5"]
    assert answered("Content-Length: 05", method=b"HEAD")[1:] == [b"content-length: 5"]
    assert answered("Content-Length: 5", line="HTTP/1.1 304 Not Modified")[1:] == [b"Content-Length: 5"]
    assert answered("Content-Length: 5", line="HTTP/1.1 204 No Content")[1:] == []
    assert answered("Transfer-Encoding: chunked", line="HTTP/1.1 204 No Content")[1:] == []
    assert answered("Content-Length: 5", method=b"CONNECT")[1:] == []
    assert answered("Content-Length: 5", "Link: x", line="HTTP/1.1 103 Early Hints", interim=True)[1:] == [b"Link: x"]


def test_the_connection_field_speaks_to_the_clients_version():
    assert answered("Content-Length: 0", close=True)[1:] == [b"Content-Length: 0", b"connection: close"]
    assert answered("Content-Length: 0", minor_version=0)[1:] == [b"Content-Length: 0", b"connection: keep-alive"]
    assert answered("Content-Length: 0", "Connection: close")[1:] == [b"Content-Length: 0"]
    assert answered(line="HTTP/1.1 100 Continue", interim=True, close=True) == [b"HTTP/1.1 100 Continue"]


def test_a_switch_of_protocols_is_passed_on():
    lines = answered("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: x", line="HTTP/1.1 101 Switching Protocols", may_upgrade=True)
    assert lines == [b"HTTP/1.1 101 Switching Protocols", b"Sec-WebSocket-Accept: x", b"connection: upgrade", b"upgrade: websocket"]


def test_a_route_edits_responses_too():
    route = {"response_headers": [(SET, b"server", b"mesh"), (REMOVE, b"x-a", b"")]}
    assert answered("Server: x", "X-A: 1", "Content-Length: 0", route=route)[1:] == [b"Content-Length: 0", b"server: mesh"]
    assert values(answered("Via: 1.1 b", line="HTTP/1.0 200 OK", forwarding={"via": b"me"}), "via") == [b"1.1 b", b"1.0 me"]


# --- STRICT_OUT ---------------------------------------------------------------------------------------------------

names = st.sampled_from(["Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "X-A", "X-B", "TE", "Trailer", "Content_Length", "l5d-x", "X-Forwarded-For", "Forwarded",
                         "X-Real-IP", "X-Request-Id", "traceparent", "tracestate", "Via", "Max-Forwards", "Cookie", "x-forwarded-proto", "Keep-Alive", "Sec-WebSocket-Key"])
field_values = st.sampled_from(["5", "010", "chunked", "close", "upgrade", "websocket", "100-continue", "", "v", "\xe9\t x", "x-a, upgrade", "trailers", "te", TRACEPARENT, "for=x", "h2c, x/1", "0",
                                "dGhlIHNhbXBsZSBub25jZQ=="])
fields = st.lists(st.builds("{}: {}".format, names, field_values), max_size=8)
start_lines = st.sampled_from(["GET / HTTP/1.1", "POST /users/a?b HTTP/1.1", "GET http://b.test HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /users HTTP/1.0", "CONNECT a.test:1 HTTP/1.1", "\r\nX /users/ HTTP/1.1"])
options = st.fixed_dictionaries({"allow_upgrade": st.booleans(), "trust_mesh_headers": st.booleans(), "secure": st.booleans(), "client": st.sampled_from([b"", b"::1", b"1.2.3.4"]),
                                 "forwarding": st.fixed_dictionaries({"x_forwarded": st.integers(0, 2), "request_id": st.booleans(), "traceparent": st.booleans()}),
                                 "route": st.sampled_from([{}, {"prefix": b"/users", "prefix_rewrite": b"/v1"}, {"request_headers": [(SET, b"x-a", b"1"), (ADD, b"x-b", b"2"), (REMOVE, b"cookie", b"")]}])})


@settings(max_examples=1200, deadline=None)
@given(start_lines, fields, options)
def test_an_edited_request_reparses_to_the_same_request(line, fields, options):
    data = request(*fields, line=line)
    verdict, before = parse_request([data])
    if verdict != "done":
        return
    out = edit_request(data, **options)
    verdict, after = parse_request([out])
    assert verdict == "done" and after["size"] == len(out)
    assert (after["method"], after["framing"], after["content_length"], after["host"], after["minor_version"]) == (
        before["method"], before["framing"], before["content_length"], before["host"] or b"localhost", 1)
    own = {b"connection", b"te", b"upgrade", b"transfer-encoding", b"trailer"}
    assert {name.lower() for name, _, _, drop in after["fields"] if drop} <= own
    names = [name.lower() for name, *_ in after["fields"]]
    assert names[0] == b"host" and names.count(b"host") == 1
    assert not (b"content-length" in names and b"transfer-encoding" in names)
    assert b"\n" not in out.replace(b"\r\n", b"") and b"\r" not in out.replace(b"\r\n", b"")
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(out)
    assert isinstance(peer.next_event(), h11.Request)
    # Edited once more it stays what it is, but for the hop that is added.
    quiet = edit_request(out, forwarding=QUIET, allow_upgrade=True, trust_mesh_headers=True)
    assert edit_request(quiet, forwarding=QUIET, allow_upgrade=True, trust_mesh_headers=True) == quiet or before["method"] == b"OPTIONS"


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.0 500", "HTTP/1.1 204 N", "HTTP/1.1 304 M"]), fields, st.sampled_from([b"GET", b"HEAD"]), st.booleans(), st.integers(0, 1))
def test_an_edited_response_reparses_to_the_same_response(line, fields, method, close, minor_version):
    data = "\r\n".join([line, *fields, "", ""]).encode("latin-1")
    verdict, before = parse_response([data], None, method)
    if verdict != "done":
        return
    out = edit_response(data, method=method, close=close or before["framing"] == 3, minor_version=minor_version)
    verdict, after = parse_response([out], None, method)
    assert verdict == "done" and after["size"] == len(out)
    assert (after["status"], after["framing"], after["reason"]) == (before["status"], before["framing"], before["reason"])
    assert after["content_length"] == before["content_length"] or before["status"] == 204
    names = [name.lower() for name, *_ in after["fields"]]
    assert not (b"content-length" in names and b"transfer-encoding" in names)
    assert names.count(b"connection") <= 1
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(out)
    assert isinstance(peer.next_event(), h11.Response)
