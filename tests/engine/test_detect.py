"""What a client speaks is told by its first octets, never sooner than they tell it."""

import re
import ssl

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from meshcore._fastpath import detect_protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_BYTES = 1024
LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [^\x00-\x20\x7f]+ HTTP/1\.[0-9]")
KNOWN = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|TRACE) /")


def client_hello() -> bytes:
    sent = ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return sent.read()


def slow_verdict(data: bytes) -> str:
    """The same, by trying: the verdict of the shortest beginning that has one."""
    for n in range(len(data) + 1):
        verdict = whole_verdict(data[:n])
        if verdict != "more":
            return verdict
    return "more"


def whole_verdict(data: bytes) -> str:
    if not data:
        return "more"
    if data[0] == 22:
        looks = [True, data[1:2] in (b"", b"\x03"), data[2:3] <= b"\x04", data[3:4] <= b"\x40", data[3:5] != b"\0\0"]
        if not all(looks):
            return "other"
        return "more" if len(data) < 6 else "tls" if data[5] == 1 else "other"
    if PREFACE.startswith(data[:24]):
        return "http2" if len(data) >= 24 else "more"
    if KNOWN.match(data):
        return "http1"
    line, end, _ = data[:MAX_BYTES].partition(b"\n")
    line, end = (line.partition(b"\r")[0], True) if b"\r" in line else (line, bool(end))
    method, space, rest = line.partition(b" ")
    if not re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}", method) or (not method and (space or end)):
        return "other"
    if rest.count(b" ") > 1 or re.search(rb"[\x00-\x1f\x7f]", rest):
        return "other"
    if end:
        return "http1" if LINE.fullmatch(line) else "other"
    return "more" if len(data) < MAX_BYTES else "other"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", "more"),
        (b"G", "more"),
        (b"GET", "more"),
        (b"GET ", "more"),
        (b"GET /", "http1"),
        (b"GET http://a.test/ HTTP/1.1\r\n", "http1"),
        (b"CONNECT a.test:443 HTTP/1.1\r\n", "http1"),
        (b"OPTIONS * HTTP/1.1\r\n", "http1"),
        (b"PURGE /x HTTP/1.1\r\n", "http1"),
        (b"PURGE /x HTTP/1.1", "more"),
        (b"PURGE /x HTTP/2.0\r\n", "other"),
        (b"PURGE /x\r\n", "other"),
        (b"PURGE  HTTP/1.1\r\n", "other"),
        (b"GETS key\r\n", "other"),
        (b"get key\r\n", "other"),
        (b"PING\r\n", "other"),
        (b"*1\r\n$4\r\nPING\r\n", "other"),
        (b"HELO mail.test\r\n", "other"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "other"),
        (b"\r\n", "other"),
        (b" GET /", "other"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "other"),
        (b"X" * 33, "other"),
        (b"GET " + b"x" * 2000, "other"),
        (PREFACE, "http2"),
        (PREFACE[:23], "more"),
        (b"PRI * HTTP/1.1\r\n", "http1"),
        (client_hello(), "tls"),
        (client_hello()[:5], "more"),
        (b"\x16\x03\x01\x00\x05\x02", "other"),
        (b"\x16\x02", "other"),
    ],
)
def test_first_octets_tell_the_protocol(data, verdict):
    assert detect_protocol(data) == verdict == slow_verdict(data)


pieces = st.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"*", b"http://a", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"HTTP/1.", b"1", b"PRI * HTTP/2.0\r\n",
     b"\r\nSM\r\n\r\n", b"\x16", b"\x03", b"\x01", b"\x00", b"\xff", b"x" * 30, b"x" * 1000, b"~", b"{"]
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(pieces, max_size=8).map(b"".join) | st.binary(max_size=40))
@example(b"x" * 32)
@example(b"x" * 32 + b" ")
def test_the_verdict_is_the_oracles_whatever_comes(data):
    assert detect_protocol(data) == slow_verdict(data)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=6).map(b"".join), st.binary(max_size=20))
def test_a_verdict_once_given_never_changes(data, more):
    verdict = detect_protocol(data)
    if verdict != "more":
        assert detect_protocol(data + more) == verdict
