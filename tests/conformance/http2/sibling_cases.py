"""Siblings of the cases in field_cases, frame_cases and hpack_cases: the same rules with other names, values and frames.

One line a case: its steps, what it expects, what else is allowed, why, by which section. No other file knows them.
"""

from __future__ import annotations

from tests.conformance.http2.field_cases import SMUGGLED, _get, _with
from tests.conformance.http2.frame_cases import BLOCK, CUT
from tests.conformance.http2.hpack_cases import FIRST_DYNAMIC, GOOD
from tests.conformance.http2.talk import Steps, get, post
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import continuation, data, frame, goaway, headers, priority, push_promise, rst_stream, settings, window_update
from tests.scenario.h2_hpack import INDEXED, LITERAL_INDEXED, LITERAL_NEVER, indexed, integer, literal, size_update, stateless, string

CASES: list[dict] = []
STEPS: dict[str, Steps] = {}

MALFORMED = ("RST_STREAM(PROTOCOL_ERROR)", "400", "GOAWAY(PROTOCOL_ERROR)")
TUNNEL_REFUSED = ("405", "400", "403", "404", "501", "502", "RST_STREAM(PROTOCOL_ERROR)", "RST_STREAM(REFUSED_STREAM)", "GOAWAY(PROTOCOL_ERROR)")


def case(case_id: str, category: str, why: str, source: str, octets: bytes, *allowed: str) -> None:
    CASES.append({"id": case_id, "cat": category, "steps": [why], "expect": allowed[0], "also_ok": list(allowed[1:]), "why": why, "source": source})
    STEPS[case_id] = lambda t: t.send(octets)


def fields(prefix: str, source: str, allowed: tuple[str, ...], *lists: tuple[str, list]) -> None:
    for number, (why, one) in enumerate(lists):
        case(f"{prefix}-{number:02}", "semantics", why, source, headers(1, stateless(one)), *allowed)


fields("H2-S-CONN", "RFC 9113 §8.2.2", MALFORMED,
       *[(f"{name}: {value!r}", _with((name, value))) for name, value in (
           ("connection", "keep-alive"), ("connection", "te"), ("connection", ""), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
           ("transfer-encoding", "identity"), ("transfer-encoding", "gzip, chunked"), ("transfer-encoding", ""), ("upgrade", "websocket"),
           ("upgrade", ""), ("te", "chunked"), ("te", "trailers;q=0.5"), ("te", "gzip, trailers"), ("te", "deflate"))])
fields("H2-S-NAME", "RFC 9113 §8.2.1", MALFORMED,
       *[(f"field name {name!r}", _with((name, "v"))) for name in (
           "x-Y", "ZZ", "Host", "x y", " x", "x ", "x\t", "\tx", "x\n", "x\r", "\rx", "x\x01", "x\x1f", "x\x80", "x\xff", ":", ":x", "::path",
           "x:", "x(", "x)", "x,", "x/", "x;", "x<", "x=", "x>", "x?", "x@", "x[", "x]", "x{", "x}", "x\\", 'x"')])
fields("H2-S-VALUE", "RFC 9113 §8.2.1", MALFORMED,
       *[(f"field value {value!r}", _with(("x-v", value))) for value in (
           "\r\n", "\n", "\r", "\0", "a\r\n\r\n", "\na", "a\n", "\ra", "a\r", "\0a", "a\0", " ", "\t", "  a", "\ta", "a\t", "a \t", " a ")])
fields("H2-S-PSEUDO", "RFC 9113 §8.3.1", MALFORMED,
       ("no pseudo field at all", [("x-v", "1")]), ("only :method", [(":method", "GET")]), ("no :scheme and no :path", [(":method", "GET"), (":authority", "a.test")]),
       (":method twice, the second other", [*_get(), (":method", "POST")]), (":scheme twice, other", [(":scheme", "https"), *_get()]),
       (":authority twice, other", [(":authority", "b.test"), *_get()]), (":path three times", [(":path", "/a"), (":path", "/b"), *_get()]),
       (":authority behind a field", [*_get(authority=None), ("x-v", "1"), (":authority", "a.test")]),
       (":method behind a field", [*_get()[1:], ("x-v", "1"), (":method", "GET")]), (":scheme behind a field", [*_get(scheme=None), ("x", "1"), (":scheme", "http")]),
       (":Path", [*_get(path=None), (":Path", "/")]), (":PATH beside :path", [*_get(), (":PATH", "/b")]), (":status", [*_get(), (":status", "")]),
       (":host", [*_get(authority=None), (":host", "a.test")]), (":version", [*_get(), (":version", "HTTP/1.1")]), (":protocol on POST", [*_get(method="POST"), (":protocol", "x")]),
       (": path", [*_get(path=None), (": path", "/")]), (":path with a blank behind", [*_get(path=None), (":path ", "/")]))
fields("H2-S-METHOD", "RFC 9113 §8.3.1", MALFORMED,
       *[(f":method {value!r}", _get(method=value)) for value in ("G T", "GET ", " GET", "GET\0", "G\r\nT", "GET\r\n", "G:T", "G/T", "G\x7fT", "G\xe9T", "GET HTTP/1.1", "(", '"', "\t")])
fields("H2-S-PATH", "RFC 9113 §8.3.1; RFC 9112 §3.2", MALFORMED,
       *[(f":path {value!r}", _get(path=value)) for value in (
           " /", "/ ", "/a\r\nb", "/a\nb", "/a\rb", "/\x01", "/\x7f", "/a#", "#", "?a", "a", "a.test", "http://a.test/", "//a b", "/a HTTP/1.1", "**", "*?", "/?a b", "/?a\r\nb", "/?#")])
fields("H2-S-PATH-DOTS", "RFC 3986 §3.3", (*MALFORMED, "normalize"),
       *[(f":path {value!r}", _get(path=value)) for value in ("/a/../../b", "/..", "/%2e%2e/x", "/.%2e/x", "/a/%2E%2E/%2e./b")])
fields("H2-S-AUTH", "RFC 9113 §8.3.1; RFC 3986 §3.2", MALFORMED,
       *[(f":authority {value!r}", _get(authority=value)) for value in (
           "u:p@a.test", "@a.test", "a.test:x", "a.test:-1", "a.test:65536", "a.test:80:80", "[::1", "::1", "[::g]", "a\tb", "a\0b", "a\nb", "a.test\r", "a?b", "a#b",
           "a\\b", "http://a.test", "a.test, b", "<a>", '"a"', "a\x7f", " a.test", "a.test ")])
fields("H2-S-AUTH-OK", "RFC 9113 §8.3.1", ("forward",),
       *[(f":authority {value!r}", _get(authority=value)) for value in ("A.Test", "a.test:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "xn--a.test", "a-b.test:65535")])
fields("H2-S-SCHEME", "RFC 9113 §8.3.1", MALFORMED,
       *[(f":scheme {value!r}", _get(scheme=value)) for value in ("http ", " http", "ht tp", "http:", "http://a", "1http", "http\0", "http\n", "h\xe9", "+", "ht/tp")])
fields("H2-S-CL", "RFC 9110 §8.6", MALFORMED,
       *[(f"content-length {value!r} without content", _with(("content-length", value))) for value in (
           "-1", "+0", "0x0", "0,1", "1", "", "a", "0 0", "00x", "18446744073709551616", "9223372036854775808", "1e0", "0.0", "\xd9\xa0")])
fields("H2-S-HOST", "RFC 9113 §8.3.1", (*MALFORMED, "forward"),
       ("host of another port beside :authority", _with(("host", "a.test:81"))), ("an empty host beside :authority", _with(("host", ""))))
fields("H2-S-HOST-BAD", "RFC 9112 §3.2", MALFORMED,
       *[(f"host {value!r} without :authority", [*_get(authority=None), ("host", value)]) for value in ("a b", "a,b", "u@a", "a/b", "a:x", "[::1", "a\0")],
       ("host twice, the same", [*_get(authority=None), ("host", "a.test"), ("host", "a.test")]))
fields("H2-S-OK", "RFC 9110 §5", ("forward",),
       ("names of every tchar", _with(("!#$%&'*+-.^_`|~9", "v"))), ("a name of one octet", _with(("x", "1"))), ("an empty value", _with(("x-v", ""))),
       ("the same name three times", _with(("x-v", "1"), ("x-v", "2"), ("x-v", "1"))), ("blanks and tabs inside", _with(("x-v", "a \t b"))),
       ("te: Trailers", _with(("te", "trailers"))), ("a query", _get(path="/case?a=b&c=%20")), ("an empty query", _get(path="/case?")),
       ("a path of odd characters", _get(path="/case/!$&'()*+,;=:@-._~%41")), ("//", _get(path="//case")), ("DELETE", _get(method="DELETE")),
       ("proxy-authorization", _with(("proxy-authorization", "Basic x"))), ("expect without content", _with(("expect", "100-continue"))))

LENGTHS = "RFC 9113 §8.1.1"
# An endpoint that has all it was promised may answer before the surplus comes (§8.1): then the rest is cut off by NO_ERROR.
SURPLUS = (*MALFORMED, "forward")
for number, (why, extra, frames, allowed) in enumerate([
        ("length 5, nothing", [("content-length", "5")], data(1, b"", end_stream=True), MALFORMED),
        ("length 5, 4 octets", [("content-length", "5")], data(1, b"hell", end_stream=True), MALFORMED),
        ("length 5, 6 octets in two frames", [("content-length", "5")], data(1, b"hello") + data(1, b"!", end_stream=True), SURPLUS),
        ("length 5, a request behind", [("content-length", "5")], data(1, b"hello") + data(1, SMUGGLED, end_stream=True), SURPLUS),
        ("length 5, padding not counted", [("content-length", "5")], data(1, b"hello", padding=10, end_stream=True), ("forward",)),
        ("length 5 in five frames", [("content-length", "5")], b"".join(data(1, b"%d" % n) for n in range(5)) + data(1, b"", end_stream=True), ("forward",)),
        ("length 5, 4 octets and trailers", [("content-length", "5")], data(1, b"hell") + headers(1, stateless([("x-t", "1")])), MALFORMED),
        ("length 5 twice", [("content-length", "5")] * 2, data(1, b"hello", end_stream=True), (*MALFORMED, "forward")),
        ("trailers with connection", [], data(1, b"hello") + headers(1, stateless([("connection", "x")])), (*MALFORMED, "forward")),
        ("trailers with :status", [], data(1, b"hello") + headers(1, stateless([(":status", "200")])), MALFORMED),
        ("trailers with :method", [], data(1, b"hello") + headers(1, stateless([(":method", "GET")])), MALFORMED),
        ("trailers with NUL", [], data(1, b"hello") + headers(1, stateless([("x-t", "a\0")])), MALFORMED),
        ("trailers with LF in a name", [], data(1, b"hello") + headers(1, stateless([("x\nt", "a")])), MALFORMED),
        ("trailers without fields", [], data(1, b"hello") + headers(1, b""), ("forward",)),
        ("trailers before any content", [], headers(1, stateless([("x-t", "1")])), ("forward",)),
        ("trailers of identity fields", [], data(1, b"hello") + headers(1, stateless([("l5d-client-id", "x"), ("x-forwarded-for", "6.6.6.6")])), ("forward", *MALFORMED)),
        ("trailers twice", [], data(1, b"hello") + headers(1, stateless([("x-t", "1")])) + headers(1, stateless([("x-u", "1")])),
         ("RST_STREAM(STREAM_CLOSED)", "GOAWAY(STREAM_CLOSED)", "GOAWAY(PROTOCOL_ERROR)", "forward")),
        ("DATA behind trailers", [], data(1, b"hello") + headers(1, stateless([("x-t", "1")])) + data(1, b"x"),
         ("RST_STREAM(STREAM_CLOSED)", "GOAWAY(STREAM_CLOSED)", "GOAWAY(PROTOCOL_ERROR)", "forward"))]):
    case(f"H2-S-BODY-{number:02}", "semantics", why, LENGTHS, post(extra=extra) + frames, *allowed)

PROTOCOL, SIZE, FLOW = "GOAWAY(PROTOCOL_ERROR)", "GOAWAY(FRAME_SIZE_ERROR)", "GOAWAY(FLOW_CONTROL_ERROR)"
OPEN = headers(1, BLOCK[:CUT], end_headers=False)
for number, (why, source, octets, allowed) in enumerate([
        ("RST_STREAM of 5 octets", "§6.4", post() + frame(h2.RST_STREAM, 0, 1, bytes(5)), (SIZE,)),
        ("RST_STREAM of nothing", "§6.4", post() + frame(h2.RST_STREAM, 0, 1, b""), (SIZE,)),
        ("WINDOW_UPDATE of 5 octets", "§6.9", frame(h2.WINDOW_UPDATE, 0, 0, bytes(5)), (SIZE,)),
        ("WINDOW_UPDATE of 3 octets on the connection", "§6.9", frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), (SIZE,)),
        ("PING of 9 octets", "§6.7", frame(h2.PING, 0, 0, bytes(9)), (SIZE,)), ("PING of nothing", "§6.7", frame(h2.PING, 0, 0, b""), (SIZE,)),
        ("PING ACK of 7 octets", "§6.7", frame(h2.PING, h2.ACK, 0, bytes(7)), (SIZE,)), ("PING ACK on stream 1", "§6.7", frame(h2.PING, h2.ACK, 1, bytes(8)), (PROTOCOL,)),
        ("SETTINGS of 7 octets", "§6.5", frame(h2.SETTINGS, 0, 0, bytes(7)), (SIZE,)), ("SETTINGS of 1 octet", "§6.5", frame(h2.SETTINGS, 0, 0, b"\0"), (SIZE,)),
        ("SETTINGS ACK of 1 octet", "§6.5", frame(h2.SETTINGS, h2.ACK, 0, b"\0"), (SIZE,)), ("SETTINGS ACK on stream 1", "§6.5", frame(h2.SETTINGS, h2.ACK, 1, b""), (PROTOCOL,)),
        ("GOAWAY of nothing", "§6.8", frame(h2.GOAWAY, 0, 0, b""), (SIZE, PROTOCOL)), ("GOAWAY with debug data", "§6.8", get() + goaway(0, h2.NO_ERROR, b"bye"), ("forward", "GOAWAY(NO_ERROR)")),
        ("PRIORITY of 6 octets", "§6.3", post() + frame(h2.PRIORITY, 0, 1, bytes(6)), ("RST_STREAM(FRAME_SIZE_ERROR)", SIZE)),
        ("PRIORITY on a stream of ours", "§6.3", priority(2, 0) + get(), ("forward", PROTOCOL)),
        ("PUSH_PROMISE on stream 0", "§6.6", push_promise(0, 2, BLOCK), (PROTOCOL,)), ("PUSH_PROMISE on an open stream", "§8.4", post() + push_promise(1, 2, BLOCK), (PROTOCOL,)),
        ("CONTINUATION behind END_HEADERS and END_STREAM", "§6.10", get(1, "/hold") + continuation(1, BLOCK), (PROTOCOL, "GOAWAY(STREAM_CLOSED)")),
        ("SETTINGS within a block", "§6.10", OPEN + settings() + continuation(1, BLOCK[CUT:]), (PROTOCOL,)), ("WINDOW_UPDATE within a block", "§6.10", OPEN + window_update(0, 1), (PROTOCOL,)),
        ("RST_STREAM within a block", "§6.10", OPEN + rst_stream(1), (PROTOCOL,)), ("PRIORITY within a block", "§6.10", OPEN + priority(1, 0), (PROTOCOL,)),
        ("GOAWAY within a block", "§6.10", OPEN + goaway(0), (PROTOCOL,)), ("DATA within a block", "§6.10", OPEN + data(1, b"x"), (PROTOCOL,)),
        ("HEADERS of the same stream within a block", "§6.10", OPEN + get(1), (PROTOCOL,)), ("HEADERS on stream 4", "§5.1.1", get(1) + get(4), (PROTOCOL,)),
        ("DATA on stream 2", "§5.1", data(2, b"x"), (PROTOCOL, "GOAWAY(STREAM_CLOSED)")), ("WINDOW_UPDATE on stream 2", "§5.1", window_update(2, 1), (PROTOCOL,)),
        ("RST_STREAM on stream 2", "§5.1", rst_stream(2), (PROTOCOL,)), ("RST_STREAM on an idle stream above", "§5.1", get(1) + rst_stream(5), (PROTOCOL,)),
        ("DATA on an idle stream above", "§5.1", get(1) + data(3, b"x"), (PROTOCOL, "GOAWAY(STREAM_CLOSED)")),
        ("HEADERS on a stream skipped before", "§5.1.1", get(3) + get(1), (PROTOCOL, "GOAWAY(STREAM_CLOSED)")),
        ("HEADERS: padding of exactly the rest", "§6.2", frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM | h2.PADDED, 1, bytes((len(BLOCK),)) + BLOCK), (PROTOCOL, "RST_STREAM(PROTOCOL_ERROR)", "400")),
        ("HEADERS PADDED of nothing", "§6.2", frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b""), (SIZE, PROTOCOL)),
        ("DATA: padding of exactly the rest", "§6.1", post() + frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, bytes((5,)) + bytes(5)), ("forward",)),
        ("DATA: padding one too many", "§6.1", post() + frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, bytes((6,)) + bytes(5)), (PROTOCOL,)),
        ("SETTINGS: ENABLE_PUSH of 2^32-1", "§6.5.2", settings({h2.ENABLE_PUSH: 0xFFFFFFFF}), (PROTOCOL,)), ("SETTINGS: INITIAL_WINDOW_SIZE of 2^32-1", "§6.5.2", settings({h2.INITIAL_WINDOW_SIZE: 0xFFFFFFFF}), (FLOW,)),
        ("SETTINGS: INITIAL_WINDOW_SIZE of 2^31-1", "§6.5.2", settings({h2.INITIAL_WINDOW_SIZE: 0x7FFFFFFF}) + get(), ("forward",)),
        ("SETTINGS: MAX_FRAME_SIZE of 2^24-1", "§6.5.2", settings({h2.MAX_FRAME_SIZE: (1 << 24) - 1}) + get(), ("forward",)), ("SETTINGS: MAX_FRAME_SIZE of 0", "§6.5.2", settings({h2.MAX_FRAME_SIZE: 0}), (PROTOCOL,)),
        ("SETTINGS: HEADER_TABLE_SIZE of 2^32-1", "§6.5.2", settings({1: 0xFFFFFFFF}) + get(), ("forward",)), ("SETTINGS: MAX_HEADER_LIST_SIZE of 0", "§6.5.2", settings({6: 0}) + get(), ("forward",)),
        ("SETTINGS: MAX_CONCURRENT_STREAMS of 0", "§6.5.2", settings({3: 0}) + get(), ("forward",)), ("SETTINGS: a bad value behind a good one", "§6.5.2", settings([(h2.MAX_FRAME_SIZE, 16384), (h2.MAX_FRAME_SIZE, 1)]), (PROTOCOL,)),
        ("SETTINGS: ENABLE_CONNECT_PROTOCOL of 2", "RFC 8441 §3", settings({8: 2}) + get(), ("forward", PROTOCOL)),
        ("WINDOW_UPDATE of 2^31-1 on a fresh connection", "§6.9.1", window_update(0, 0x7FFFFFFF), (FLOW,)), ("WINDOW_UPDATE with the reserved bit", "§6.9", window_update(0, 0x80000001) + get(), ("forward",)),
        ("WINDOW_UPDATE of 0 with the reserved bit", "§6.9", window_update(0, 0x80000000), (PROTOCOL,)), ("unknown type with every flag on an open stream", "§5.5", post() + frame(0x99, 0xFF, 1, b"x") + data(1, b"hello", end_stream=True), ("forward",)),
        ("PRIORITY_UPDATE", "RFC 9218 §7.1", frame(0x10, 0, 0, b"\0\0\0\1u=1") + get(), ("forward",)), ("ALTSVC on stream 0", "RFC 7838 §4", frame(0x0A, 0, 0, b"\0\0") + get(), ("forward",)),
        ("ORIGIN", "RFC 8336 §2", frame(0x0C, 0, 0, b"") + get(), ("forward",)), ("PING with every undefined flag", "§6.7", frame(h2.PING, 0xFE, 0, bytes(8)) + get(), ("forward",))]):
    case(f"H2-S-FRAME-{number:02}", "flow-control" if "WINDOW" in why else "preface-frames", why, source if source[0] == "R" else f"RFC 9113 {source}", octets, *allowed)

COMPRESSION = "GOAWAY(COMPRESSION_ERROR)"
for number, (why, octets, allowed) in enumerate([
        ("index 62 with an empty table", GOOD + indexed(FIRST_DYNAMIC), (COMPRESSION,)), ("name index 62 with an empty table", GOOD + integer(62, LITERAL_INDEXED) + string("v"), (COMPRESSION,)),
        ("never-indexed name index 62", GOOD + integer(62, LITERAL_NEVER) + string("v"), (COMPRESSION,)), ("an index of 2^31", GOOD + integer(2**31, INDEXED), (COMPRESSION,)),
        ("an index of 2^64+2", GOOD + integer(2**64 + 2, INDEXED), (COMPRESSION,)), ("a name length of 2^32+1", GOOD + b"\x00" + integer(2**32 + 1, (7, 0)) + b"x" + string("v"), (COMPRESSION,)),
        ("a value length of 2^64+1", GOOD + b"\x00" + string("x") + integer(2**64 + 1, (7, 0)) + b"v", (COMPRESSION,)), ("a block that ends behind an indexed octet", GOOD + b"\xff", (COMPRESSION,)),
        ("a block that ends behind a name", GOOD + b"\x00" + string("x"), (COMPRESSION,)), ("a block that ends behind a length", GOOD + b"\x00\x01", (COMPRESSION,)),
        ("a size update in the middle of a block", GOOD[:1] + size_update(0) + GOOD[1:], (COMPRESSION,)), ("a size update of 4097", size_update(4097) + GOOD, (COMPRESSION,)),
        ("a size update of 2^32", size_update(2**32) + GOOD, (COMPRESSION,)), ("a size update of 4096", size_update(4096) + GOOD, ("forward",)), ("a size update of 0", size_update(0) + GOOD, ("forward",)),
        ("three size updates", size_update(10) * 3 + GOOD, ("forward", COMPRESSION)), ("only a size update", size_update(0), MALFORMED),
        ("Huffman: an empty string", GOOD + b"\x00" + string("x") + b"\x80", ("forward",)), ("Huffman: eight ones alone", GOOD + b"\x00" + string("x") + b"\x81\xff", (COMPRESSION,)),
        ("Huffman: EOS cut", GOOD + b"\x00" + string("x") + b"\x83\xff\xff\xff", (COMPRESSION,)), ("Huffman: zeros as padding in a name", GOOD + b"\x00\x81\x18" + string("v"), (COMPRESSION,)),
        ("Huffman: a coded LF", GOOD + b"\x00" + string("x") + string("a\nb", huffman=True), MALFORMED), ("Huffman: a coded upper case name", GOOD + b"\x00" + string("X", huffman=True) + string("v"), MALFORMED),
        ("an entry of exactly the table", GOOD + literal("x", "b" * (4096 - 33), LITERAL_INDEXED) + indexed(FIRST_DYNAMIC), ("forward",)),
        ("an entry one octet larger than the table", GOOD + literal("x", "b" * (4096 - 32), LITERAL_INDEXED) + indexed(FIRST_DYNAMIC), (COMPRESSION,)),
        ("a name from the dynamic table", GOOD + literal("x-d", "1", LITERAL_INDEXED) + integer(62, LITERAL_INDEXED) + string("2"), ("forward",)),
        ("a static name without a value", GOOD + indexed(19), ("forward",)), ("a static :status", GOOD + indexed(8), MALFORMED), ("a static pseudo field behind the fields", GOOD + literal("x", "1") + indexed(2), MALFORMED)]):
    case(f"H2-S-HPACK-{number:02}", "hpack", why, "RFC 7541", headers(1, octets), *allowed)

CONNECT = [(":method", "CONNECT"), (":authority", "a.test:443")]
for number, (why, one) in enumerate([
        ("CONNECT without a port", [(":method", "CONNECT"), (":authority", "a.test")]), ("CONNECT with :path", [*CONNECT, (":path", "/")]), ("CONNECT with :scheme", [*CONNECT, (":scheme", "http")]),
        ("CONNECT with userinfo", [(":method", "CONNECT"), (":authority", "u@a.test:443")]), ("CONNECT with an empty authority", [(":method", "CONNECT"), (":authority", "")]),
        ("CONNECT with content-length", [*CONNECT, ("content-length", "5")]), ("extended CONNECT without :path", [*CONNECT, (":protocol", "websocket"), (":scheme", "http")]),
        ("extended CONNECT with an empty :protocol", [*CONNECT, (":protocol", ""), (":scheme", "http"), (":path", "/")]),
        ("extended CONNECT of another protocol", [*CONNECT, (":protocol", "h2c"), (":scheme", "http"), (":path", "/")])]):
    case(f"H2-S-CONNECT-{number:02}", "semantics", why, "RFC 9113 §8.5; RFC 8441 §4", headers(1, stateless(one)), *TUNNEL_REFUSED)
