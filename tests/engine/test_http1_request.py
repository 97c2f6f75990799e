"""Request heads: what they mean, and why the others are refused."""

import pytest

from meshcore._fastpath import classify_field, known_fields, parse_request

FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED = 0, 1, 2
ORIGIN, ABSOLUTE, AUTHORITY, ASTERISK = 0, 1, 2, 3
UPGRADE_NONE, UPGRADE_WEBSOCKET, UPGRADE_OTHER, UPGRADE_IGNORED = 0, 1, 2, 3
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def request(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "Host: a.test") -> bytes:
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def head(*fields: str, limits=None, **kwargs) -> dict:
    data = request(*fields, **kwargs)
    verdict, values = parse_request([data], limits)
    assert verdict == "done", verdict
    assert values["size"] == len(data)
    return values


def refusal(*fields: str, limits=None, **kwargs) -> str:
    verdict, _ = parse_request([request(*fields, **kwargs)], limits)
    assert verdict not in ("done", "more")
    return verdict


def dropped(values: dict) -> list[bytes]:
    return [name.lower() for name, _, _, drop in values["fields"] if drop]


# --- start line ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "SOURCE",
                                    "M-SEARCH", "DESCRIBE", "!#$%&'*+-.^_`|~09AZ", "X" * 32])
def test_any_token_is_a_method(method):
    assert head(line=f"{method} / HTTP/1.1")["method"] == method.encode()


@pytest.mark.parametrize("line", ["G(T / HTTP/1.1", "G\0T / HTTP/1.1", "G\xe9T / HTTP/1.1", " GET / HTTP/1.1", "GET\t/ HTTP/1.1",
                                  "X" * 33 + " / HTTP/1.1", "PRI * HTTP/2.0", ":", "", "\x16\x03\x01\x02"])
def test_what_is_no_token_is_no_method(line):
    assert refusal(line=line) in ("BAD_METHOD", "MALFORMED_HEAD")


def test_one_empty_line_before_a_request_is_skipped_and_counted():
    values = head(line="\r\nGET /x HTTP/1.1")
    assert (values["method"], values["path"]) == (b"GET", b"/x")


@pytest.mark.parametrize("noise", ["\r\n\r\n", "\n", "\r", "\r\r\n"])
def test_more_noise_before_a_request_is_refused(noise):
    assert refusal(line=noise + "GET / HTTP/1.1") in ("BAD_METHOD", "MALFORMED_HEAD")


@pytest.mark.parametrize("version, verdict", [
    ("HTTP/2.0", "BAD_VERSION"), ("HTTP/0.9", "BAD_VERSION"), ("HTTP/1.2", "BAD_VERSION"), ("HTTP/3.1", "BAD_VERSION"),
    ("HTTP/1", "MALFORMED_HEAD"), ("HTTP/1.", "MALFORMED_HEAD"), ("HTTP/1.10", "MALFORMED_HEAD"), ("http/1.1", "MALFORMED_HEAD"),
    ("HTTP/01.1", "MALFORMED_HEAD"), ("HTTP/1.1abc", "MALFORMED_HEAD"), ("HTTP/1.1 ", "MALFORMED_HEAD"), ("HTTPS/1.1", "MALFORMED_HEAD"),
    ("ICE/1.0", "MALFORMED_HEAD"), ("RTSP/1.0", "MALFORMED_HEAD"), (" HTTP/1.1", "MALFORMED_HEAD"), ("", "MALFORMED_HEAD"),
    ("HTTP/\r\r1.1", "MALFORMED_HEAD"), ("HTTP /1.1", "MALFORMED_HEAD"),
])
def test_only_http_1_0_and_1_1_are_spoken(version, verdict):
    assert refusal(line=f"GET / {version}") == verdict


@pytest.mark.parametrize("line", ["GET /", "GET", "GET  / HTTP/1.1", "GET HTTP/1.1", "GET /a b HTTP/1.1"])
def test_a_request_line_has_three_words_and_two_spaces(line):
    assert refusal(line=line) in ("BAD_TARGET", "BAD_METHOD", "MALFORMED_HEAD")


# --- target -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("target, path, query", [
    ("/", b"/", b""), ("/a/b?c=d", b"/a/b", b"?c=d"), ("/?", b"/", b"?"), ("//admin", b"//admin", b""),
    ("/a/...", b"/a/...", b""), ("/.a/b..", b"/.a/b..", b""), ("/%41%2f%c3%a9", b"/%41%2f%c3%a9", b""),
    ("/a;v=1:@!$&'()*+,=~-._", b"/a;v=1:@!$&'()*+,=~-._", b""), ("/?a=|{}[]^\"`%&../?", b"/", b"?a=|{}[]^\"`%&../?"),
])
def test_an_origin_form_target_is_split(target, path, query):
    values = head(line=f"GET {target} HTTP/1.1")
    assert (values["target_form"], values["path"], values["query"]) == (ORIGIN, path, query)
    assert values["target"] == target.encode()


@pytest.mark.parametrize("target", [
    "/#f", "/?a#f", "/<", "/>", '/"', "/{", "/}", "/|", "/^", "/`", "/[", "/]", "/\\", "/?\\", "/?<", "/?>", "/\x01", "/?\x01",
    "/\x7f", "/\xe9", "/?\xe9", "/\t", "/%", "/%4", "/%zz", "/%4g", "/%00", "/%%41",
])
def test_octets_that_readers_treat_differently_are_refused_in_a_target(target):
    assert refusal(line=f"GET {target} HTTP/1.1") == "BAD_TARGET"


@pytest.mark.parametrize("path", [
    "/.", "/..", "/./a", "/../a", "/a/.", "/a/..", "/a/./b", "/a/../b", "/%2e", "/%2E%2e/a", "/a/.%2e/b", "/a/..%2fb", "/a%2f../b",
    "/a/..%5cb", "/a/..;/b", "/a/.;x=1", "/a/%2e%2e;/b", "//..//",
])
def test_dot_segments_are_refused_however_they_are_written(path):
    assert refusal(line=f"GET {path} HTTP/1.1") == "BAD_TARGET"
    assert refusal(line=f"GET http://a.test{path} HTTP/1.1") == "BAD_TARGET"
    assert refusal(line=f"GET {path}?q HTTP/1.1") == "BAD_TARGET"


@pytest.mark.parametrize("target, path, query, host, port", [
    ("http://B.test/x?y", b"/x", b"?y", b"b.test", -1), ("HTTP://b.test:81/", b"/", b"", b"b.test", 81),
    ("http://b.test", b"/", b"", b"b.test", -1), ("http://b.test?q", b"/", b"?q", b"b.test", -1),
    ("https://[::1]:443/x", b"/x", b"", b"[::1]", 443), ("http://b.test:/x", b"/x", b"", b"b.test", -1),
])
def test_an_absolute_form_target_wins_over_host(target, path, query, host, port):
    values = head(line=f"GET {target} HTTP/1.1")
    assert (values["target_form"], values["path"], values["query"], values["host"], values["port"]) == (
        ABSOLUTE, path, query, host, port)
    assert values["scheme"] == target.lower().startswith("https")


@pytest.mark.parametrize("target", [
    "ftp://a.test/", "http:/a.test/", "http:///x", "http://", "http://u@a.test/", "http://a.test#@evil.test/", "http://a,b/",
    "http://a.test:x/", "a.test:80", "a.test", "!", "*", "*/x", "?x", "http", "http://a.test\\x", "file:///etc/passwd", "//\\",
    "http://a.test/\\", "http://a.test/|", "http://a.test/%zz",
])
def test_other_targets_are_refused(target):
    assert refusal(line=f"GET {target} HTTP/1.1") == "BAD_TARGET"


def test_the_asterisk_is_for_options():
    values = head(line="OPTIONS * HTTP/1.1")
    assert (values["target_form"], values["path"]) == (ASTERISK, b"*")
    assert refusal(line="OPTIONS */x HTTP/1.1") == "BAD_TARGET"
    assert refusal(line="POST * HTTP/1.1") == "BAD_TARGET"


def test_connect_takes_host_and_port():
    values = head(line="CONNECT B.test:443 HTTP/1.1")
    assert (values["target_form"], values["host"], values["port"], values["authority"]) == (AUTHORITY, b"b.test", 443, b"B.test:443")
    for target in ("b.test", "b.test:", "/x", "http://b.test:443/", "u@b.test:443", "b.test:443/", "*"):
        assert refusal(line=f"CONNECT {target} HTTP/1.1") == "BAD_TARGET"
    assert refusal("Content-Length: 5", line="CONNECT b.test:443 HTTP/1.1") == "BAD_FRAMING"


# --- host ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("value, authority, host, port", [
    ("A.Test:8080", b"A.Test:8080", b"a.test", 8080), ("a.test.", b"a.test.", b"a.test", -1), ("a.test:", b"a.test", b"a.test", -1),
    ("  a.test\t", b"a.test", b"a.test", -1), ("[::1]:80", b"[::1]:80", b"[::1]", 80),
])
def test_the_host_is_lowered_and_its_port_split_off(value, authority, host, port):
    values = head(host=f"Host:{value}")
    assert (values["authority"], values["host"], values["port"]) == (authority, host, port)


@pytest.mark.parametrize("value", ["", " ", "a,b", "u@a.test", "a.test b", "a.test:99999", ".", "a" * 256, "a/b"])
def test_a_bad_host_is_refused(value):
    assert refusal(host=f"Host: {value}") == "BAD_HOST"


def test_exactly_one_host_is_required_in_1_1_and_none_in_1_0():
    assert refusal(host=None) == "BAD_HOST"
    assert refusal("Host: a.test") == "BAD_HOST"
    assert refusal("hOST: b.test") == "BAD_HOST"
    assert head(host=None, line="GET / HTTP/1.0")["authority"] == b""
    assert refusal("Host: a.test", line="GET / HTTP/1.0") == "BAD_HOST"
    assert refusal(host="Host: a,b", line="GET http://c.test/ HTTP/1.1") == "BAD_HOST"
    assert refusal(host=None, line="GET http://c.test/ HTTP/1.1") == "BAD_HOST"


# --- fields -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("field", [
    "A : 1", "A\t: 1", ": 1", "A", "A 1", "A: 1\r\n 2", "A: 1\r\n\t2", " A: 1", "A[: 1", "A\0: 1", "A\x7f: 1", "A\xe9: 1", "A: \0", "A: \x01",
    "A: \x7f", "A: 1\rB: 2", "A: 1\nB: 2", "A:\r\r\n", "A: 1\r", "A: x\n\n",
])
def test_field_lines_follow_the_grammar_to_the_octet(field):
    assert refusal(field) == "MALFORMED_HEAD"


@pytest.mark.parametrize("line, value", [("A:", b""), ("A: \t ", b""), ("A:b", b"b"), ("A: \tb c\t ", b"b c"), ("A: \x85\xa0", b"\x85\xa0"),
                                         ("A: :", b":")])
def test_blanks_around_a_value_are_no_part_of_it(line, value):
    assert head(line)["fields"][1][:2] == (b"A", value)


def test_a_second_authorization_is_refused():
    assert refusal("Authorization: a", "authorization: b") == "MALFORMED_HEAD"


@pytest.mark.parametrize("name", known_fields())
def test_every_known_name_is_recognised_in_any_case(name):
    assert classify_field(name.encode())[0] == name
    assert classify_field(name.upper().encode())[0] == name
    assert classify_field(name[:-1].encode())[0] != name
    assert classify_field(name.encode() + b"x")[0] != name


def test_no_two_names_share_a_slot_of_the_table():
    assert len(known_fields()) == len(set(known_fields())) == 52


@pytest.mark.parametrize("name", ["Content_Length", "transfer_encoding", "x_forwarded_for", "X-Forwarded_For", "l5d_client_id",
                                  "l5d_" + "x" * 40, "x_forwarded_client_cert", "max_forwards", "keep_alive"])
def test_names_that_alias_guarded_ones_by_underscores_are_dropped(name):
    assert dropped(head(f"{name}: 99")) == [name.lower().encode()]


def test_other_names_with_underscores_stay():
    assert dropped(head("user_id: 1", "content_foo: 2")) == []


def test_hop_by_hop_fields_are_dropped():
    values = head("Keep-Alive: timeout=1", "Proxy-Connection: close", "TE: trailers", "Upgrade: x", "Proxy-Authorization: a",
                  "HTTP2-Settings: AAAA", "Proxy: http://evil.test", "Trailer: X", "X-Kept: 1")
    assert dropped(values) == [b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"proxy-authorization", b"http2-settings",
                               b"proxy", b"trailer"]


def test_connection_names_fields_of_this_hop():
    values = head("Connection: x-a, ,X-B", "X-A: 1", "x-b: 2", "X-C: 3", "x-a: 4", "Connection: x-d", "X-D: 5")
    assert dropped(values) == [b"connection", b"x-a", b"x-b", b"x-a", b"connection", b"x-d"]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Authorization", "Cookie", "X-Forwarded-For", "x-forwarded-anything", "Forwarded",
                                  "Traceparent", "L5d-Client-Id", "X-Request-Id", "Via", "Expect", "Cache-Control"])
def test_connection_cannot_strip_what_others_rely_on(name):
    value = "5" if name == "Content-Length" else "100-continue" if name == "Expect" else "a.test"
    fields = [f"Connection: {name}"] if name == "Host" else [f"Connection: {name}", f"{name}: {value}"]
    assert dropped(head(*fields)) == [b"connection"]


def test_more_connection_options_than_anyone_needs_are_refused():
    assert refusal("Connection: " + ",".join(["a"] * 65)) == "MALFORMED_HEAD"
    head("Connection: " + ",".join(["a"] * 64))


@pytest.mark.parametrize("version, options, keep_alive", [
    ("1.1", [], True), ("1.1", ["close"], False), ("1.1", ["keep-alive"], True), ("1.1", ["Close, keep-alive"], False),
    ("1.1", ["keep-alive", "close"], False), ("1.0", [], False), ("1.0", ["Keep-Alive"], True), ("1.0", ["keep-alive, close"], False),
    ("1.1", ["closed"], True), ("1.1", ['"close"'], True),
])
def test_close_wins_and_1_0_must_ask_to_stay(version, options, keep_alive):
    assert head(*(f"Connection: {option}" for option in options), line=f"GET / HTTP/{version}")["keep_alive"] is keep_alive


# --- framing ------------------------------------------------------------------------------------------------------

def test_a_request_without_lengths_has_no_body():
    assert head(line="POST / HTTP/1.1")["framing"] == FRAMING_NONE


@pytest.mark.parametrize("value, length", [("0", 0), ("5", 5), ("010", 10), (" 5\t", 5), ("9223372036854775807", 2**63 - 1),
                                           ("0" * 30 + "7", 7)])
def test_content_length_is_decimal_digits(value, length):
    values = head(f"Content-Length: {value}", line="POST / HTTP/1.1")
    assert (values["framing"], values["content_length"]) == (FRAMING_LENGTH, length)


@pytest.mark.parametrize("value", ["", "+5", "-5", "0x5", "5x", "5 5", "5,5", "5, 5", ",5", "5,", "1e3", "5.0", "\xb2", "\xef\xbc\x95", "%35", '"5"',
                                   "9223372036854775808", "18446744073709551616", "18446744073709551621", "9" * 40])
def test_any_other_content_length_is_refused(value):
    assert refusal(f"Content-Length: {value}", line="POST / HTTP/1.1") == "BAD_FRAMING"


def test_two_lengths_are_refused_even_when_equal():
    assert refusal("Content-Length: 5", "Content-Length: 5") == "BAD_FRAMING"
    assert refusal("Content-Length:", "Content-Length: 5") == "BAD_FRAMING"


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", "\tchunked \t"])
def test_chunked_is_the_one_coding(value):
    assert head(f"Transfer-Encoding:{value}", line="POST / HTTP/1.1")["framing"] == FRAMING_CHUNKED


@pytest.mark.parametrize("value, verdict", [
    ("gzip", "UNSUPPORTED_CODING"), ("gzip, chunked", "UNSUPPORTED_CODING"), ("xchunked", "UNSUPPORTED_CODING"),
    ("chunkedchunked", "UNSUPPORTED_CODING"), ("chunked, gzip", "BAD_FRAMING"), ("chunked, chunked", "BAD_FRAMING"), ("identity", "BAD_FRAMING"),
    ("identity, chunked", "BAD_FRAMING"), ("chunked, identity", "BAD_FRAMING"), ("", "BAD_FRAMING"), (",chunked", "BAD_FRAMING"),
    ("chunked,", "BAD_FRAMING"), ("chun ked", "BAD_FRAMING"), ("chunked;a=b", "BAD_FRAMING"), ('"chunked"', "BAD_FRAMING"),
    ("\xa0chunked", "BAD_FRAMING"), ("chunked:", "BAD_FRAMING"), (", gzip", "BAD_FRAMING"),
])
def test_other_codings_are_refused(value, verdict):
    assert refusal(f"Transfer-Encoding: {value}", line="POST / HTTP/1.1") == verdict


@pytest.mark.parametrize("fields", [
    ["Transfer-Encoding: chunked", "Content-Length: 5"], ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Content-Length: 5", "Transfer-Encoding: gzip"], ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Transfer-encoding: x"],
])
def test_two_framings_are_refused(fields):
    assert refusal(*fields, line="POST / HTTP/1.1") == "BAD_FRAMING"


def test_a_coding_from_http_1_0_is_refused():
    assert refusal("Transfer-Encoding: chunked", line="POST / HTTP/1.0") == "BAD_FRAMING"


# --- expect, upgrade, methods with rules --------------------------------------------------------------------------

def test_only_100_continue_can_be_expected():
    assert head("Expect: 100-Continue", "Content-Length: 5")["expect_continue"]
    assert head("Expect: 100-continue", "Transfer-Encoding: chunked")["expect_continue"]
    assert not head("Expect: 100-continue")["expect_continue"]
    for value in ("y 100-continue", "100-continue,", "200-ok", "", "100-continue, 100-continue"):
        assert refusal(f"Expect: {value}") == "EXPECTATION_FAILED"
    assert refusal("Expect: 100-continue", "Expect: 100-continue") == "EXPECTATION_FAILED"


def test_an_expectation_from_http_1_0_is_not_passed_on():
    values = head("Expect: 200-ok", "Content-Length: 5", line="POST / HTTP/1.0")
    assert not values["expect_continue"] and dropped(values) == [b"expect"]


@pytest.mark.parametrize("fields, kind", [
    (["Connection: Upgrade", "Upgrade: websocket", KEY], UPGRADE_WEBSOCKET),
    (["Connection: keep-alive, upgrade", "Upgrade: WebSocket", KEY], UPGRADE_WEBSOCKET),
    (["Connection: upgrade", "Upgrade: h2c, websocket", KEY], UPGRADE_WEBSOCKET),
    (["Connection: upgrade", "Upgrade: x-proto/2"], UPGRADE_OTHER),
    (["Upgrade: websocket", KEY], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: h2c"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: TLS/1.0"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: TLS/1.3, HTTP/2.0, h3"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: a b"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: websocket", KEY, "Content-Length: 5"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: websocket", KEY, "Transfer-Encoding: chunked"], UPGRADE_IGNORED),
    (["Connection: upgrade", "Upgrade: websocket", KEY, "Content-Length: 0"], UPGRADE_WEBSOCKET),
    (["Connection: upgrade"], UPGRADE_NONE),
])
def test_an_upgrade_needs_connection_upgrade_and_an_allowed_protocol(fields, kind):
    assert head(*fields)["upgrade"] == kind


def test_an_upgrade_in_1_0_or_with_another_method_is_ignored():
    fields = ["Connection: upgrade", "Upgrade: websocket", KEY]
    assert head(*fields, line="GET / HTTP/1.0")["upgrade"] == UPGRADE_IGNORED
    assert head(*fields, line="POST / HTTP/1.1")["upgrade"] == UPGRADE_IGNORED


@pytest.mark.parametrize("keys", [[], [KEY, KEY], ["Sec-WebSocket-Key: short"], ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=*"]])
def test_a_websocket_handshake_needs_one_key(keys):
    assert refusal("Connection: upgrade", "Upgrade: websocket", *keys) == "BAD_UPGRADE"


def test_trace_is_refused():
    assert refusal(line="TRACE / HTTP/1.1") == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize("method, value, zero", [("OPTIONS", "0", True), ("OPTIONS", "1", False), ("OPTIONS", "x", False), ("GET", "0", False)])
def test_options_stops_here_when_its_hops_are_used_up(method, value, zero):
    assert head(f"Max-Forwards: {value}", line=f"{method} / HTTP/1.1")["max_forwards_zero"] is zero


@pytest.mark.parametrize("value, wanted", [("trailers", True), ("gzip, Trailers", True), ("gzip", False), ("trailers;q=1", False)])
def test_te_trailers_is_noticed(value, wanted):
    assert head("Connection: te", f"TE: {value}")["wants_trailers"] is wanted


# --- limits -------------------------------------------------------------------------------------------------------

def test_limits_are_exact():
    size = len(request("A: 1"))
    head("A: 1", limits={"head_size_bytes": size})
    assert refusal("A: 1", limits={"head_size_bytes": size - 1}) == "HEAD_TOO_LARGE"
    head("A: " + "x" * 97, limits={"field_size_bytes": 100})
    assert refusal("A: " + "x" * 98, limits={"field_size_bytes": 100}) == "FIELD_TOO_LARGE"
    assert refusal("N" * 101 + ": 1", limits={"field_size_bytes": 100}) == "FIELD_TOO_LARGE"
    assert refusal("A:" + " " * 99, limits={"field_size_bytes": 100}) == "FIELD_TOO_LARGE"
    head("A: 1", limits={"max_fields": 2})
    assert refusal("A: 1", "B: 2", limits={"max_fields": 2}) == "TOO_MANY_FIELDS"
    head(line="GET /" + "x" * 99 + " HTTP/1.1", limits={"target_size_bytes": 100})
    assert refusal(line="GET /" + "x" * 100 + " HTTP/1.1", limits={"target_size_bytes": 100}) == "TARGET_TOO_LONG"


def test_a_table_full_of_fields_is_read_and_no_more():
    fields = [f"X-{i}: {i}" for i in range(127)]
    assert len(head(*fields, limits={"max_fields": 1000})["fields"]) == 128
    assert refusal(*fields, "Y: 1", limits={"max_fields": 1000}) == "TOO_MANY_FIELDS"


def test_a_bad_octet_is_reported_at_once():
    for data in (b"G(", b"GET /\x01", b"GET / HTTX", b"GET / HTTP/1.1\r\nA[", b"GET / HTTP/1.1\r\nA: b\x00", b"\n", b"GET / HTTP/1.1\nA"):
        verdict, _ = parse_request([data])
        assert verdict not in ("more", "done"), data
        assert parse_request([bytes([octet]) for octet in data])[0] == verdict
