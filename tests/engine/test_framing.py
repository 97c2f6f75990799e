"""The chunked coding against a slow decoder written from the grammar, and SPLIT_SAME."""

import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcore._fastpath import chunk_decoder_bytes, decode_chunks, encode_chunk_header

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TEXT = rb"[\t \x21-\x7e\x80-\xff]"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\' + TEXT + rb')*"'
EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?"
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + EXTENSION + rb")*)\r\n")
TRAILER_LINE = re.compile(rb"(" + TOKEN + rb"):(" + TEXT + rb"*)\r\n")


def oracle(data: bytes):
    """(body, octets used) of a complete valid chunked body, or None. RFC 9112 7.1, sizes below 2^63."""
    body, at = b"", 0
    while True:
        line = SIZE_LINE.match(data, at)
        if not line or int(line[1], 16) >= 1 << 63:
            return None
        at, size = line.end(), int(line[1], 16)
        if size == 0:
            break
        if data[at + size:at + size + 2] != b"\r\n":
            return None
        body += data[at:at + size]
        at += size + 2
    while True:
        trailer = TRAILER_LINE.match(data, at)
        if not trailer:
            break
        at = trailer.end()
    return (body, at + 2) if data[at:at + 2] == b"\r\n" else None


def cut(data: bytes, places) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def octets(data: bytes) -> list[bytes]:
    return [data[i:i + 1] for i in range(len(data))]


def same_result(data: bytes, places, limits=None):
    whole = decode_chunks([data], limits)
    for result in (decode_chunks(octets(data), limits), decode_chunks(cut(data, places), limits), decode_chunks(cut(data, places), limits, keep_place=True),
                   decode_chunks([data], limits, keep_place=True)):
        assert result == whole
    return whole


pieces = st.sampled_from([b"5\r\nhello\r\n", b"1\r\nz\r\n", b"005\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b'5;a="b;\\" c"\r\nhello\r\n', b"5 ; a = b\r\nhello\r\n", b"A\r\n0123456789\r\n",
                          b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"-1\r\n", b"+0\r\n", b"0_5\r\n", b"5;\r\nhello\r\n", b"5;=\r\n", b"5;a=\r\nhello\r\n", b"5\nhello\r\n",
                          b"5\r\nhello\n", b"5\r\nhello!!\r\n", b"5\r\nhelloXX", b"\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"7FFFFFFFFFFFFFFF\r\nx", b"8000000000000000\r\nx",
                          b'5;a="b\r\nhello\r\n', b"5;a\rX\r\n", b"5;a[=b\r\nhello\r\n", b"5 a=b\r\nhello\r\n", b"5\t;a\r\nhello\r\n", b"g\r\n", b"5;a=b c\r\nhello\r\n", b'5;a="b"c\r\nhello\r\n'])
endings = st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\nrest", b"000;x\r\n\r\n", b"0\r\nX-A: 1\r\n\r\n", b"0\r\nX-A : 1\r\n\r\n", b"0\r\n X: 1\r\n\r\n", b"0\r\nX-A: 1\r\n 2\r\n\r\n", b"0\r\nX\r\n\r\n",
                           b"0\r\nX-A: 1\n\r\n", b"0\r\n\n", b"0\r\n: 1\r\n\r\n", b"0\r\nX:\r\nY: \t z \t\r\n\r\n", b"0\r\nHost: e\r\nX: 1\r\n\r\n", b"0\r\nX: \0\r\n\r\n", b"0\r\nX: 1\rY: 2\r\n\r\n", b""])
bodies = st.builds(lambda chunks, end: b"".join(chunks) + end, st.lists(pieces, max_size=4), endings)
good_bodies = st.builds(lambda parts, end: b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + end,
                        st.lists(st.binary(max_size=40), max_size=6), st.sampled_from([b"0\r\n\r\n", b"0\r\nX-A: 1\r\n\r\n"]))
places = st.lists(st.integers(0, 300), max_size=6)


@settings(max_examples=1500, deadline=None)
@given(bodies | good_bodies | st.binary(max_size=30), places)
def test_what_is_decoded_is_what_the_grammar_says_in_any_pieces(data, places):
    verdict, body, _, used = same_result(data, places)
    expected = oracle(data)
    if expected:
        assert (verdict, body, used) == ("done", *expected)
    else:
        assert verdict in ("more", "BAD_CHUNK", "BAD_TRAILER")
        if verdict == "more":
            assert used == len(data)


@settings(max_examples=200, deadline=None)
@given(good_bodies)
def test_h11_decodes_a_valid_body_to_the_same_octets(data):
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body = b""
    while not isinstance(event := peer.next_event(), h11.EndOfMessage):
        body += event.data if isinstance(event, h11.Data) else b""
    assert decode_chunks([data])[:2] == ("done", body)


def test_a_bad_octet_is_reported_at_once():
    for data in (b"x", b"5x", b"5\n", b"5\r\r", b"5\r\nhelloX", b"5\r\nhello\rX", b'5;a="\r', b"5 \r", b"0\r\n ", b"0\r\nA\r", b"0\r\nA: \x00", b"0\r\n\r\r", b"1" * 17,
                 b"8000000000000000"):
        verdict, _, _, used = decode_chunks([data + b"tail"])
        assert verdict in ("BAD_CHUNK", "BAD_TRAILER") and used == len(data) - 1, data


def test_a_hundred_thousand_tiny_chunks_become_one_run():
    data = b"1\r\nz\r\n" * 100_000 + b"0\r\n\r\n"
    assert decode_chunks([data]) == ("done", b"z" * 100_000, b"", len(data))


def test_a_chunk_larger_than_four_gibibytes_does_not_wrap():
    assert decode_chunks([b"100000005\r\nhello\r\n0\r\n\r\n"]) == ("more", b"hello\r\n0\r\n\r\n", b"", 23)


def test_size_lines_and_extensions_are_bounded():
    limits = {"chunk_line_bytes": 10, "chunk_extension_total_bytes": 12}
    assert same_result(b"5;a=45678\r\nhello\r\n0\r\n\r\n", [3], limits)[0] == "done"
    assert same_result(b"5;a=45678901\r\nhello\r\n0\r\n\r\n", [3], limits)[0] == "BAD_CHUNK"
    assert same_result(b"1;abcd\r\nx\r\n1;abcd\r\nx\r\n1;abcd\r\nx\r\n0\r\n\r\n", [3], limits)[0] == "BAD_CHUNK"


def test_trailers_are_bounded():
    limits = {"trailer_size_bytes": 20, "max_fields": 2}
    assert same_result(b"0\r\nA: 1\r\nB: 2\r\n\r\n", [3], limits)[0] == "done"
    assert same_result(b"0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", [3], limits)[0] == "BAD_TRAILER"
    assert same_result(b"0\r\nA: " + b"x" * 18 + b"\r\n\r\n", [3], limits)[0] == "BAD_TRAILER"
    assert decode_chunks([b"0\r\n" + b"".join(b"A%d:\r\n" % i for i in range(90)) + b"\r\n"])[0] == "done"


def test_trailers_come_out_canonical():
    data = b"0\r\nX-Sum:abc\r\nB: \t c d\t \r\nEmpty:\r\nContent-Digest: x\r\n\r\n"
    assert same_result(data, [5, 9])[2] == b"X-Sum: abc\r\nB: c d\r\nEmpty: \r\nContent-Digest: x\r\n"


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Content-Length", "Host", "Authorization", "Content-Type", "content-foo", "Connection", "Expect", "Set-Cookie", "Cookie", "Trailer", "TE", "Upgrade",
                                  "If-Match", "Range", "Cache-Control", "Proxy-Anything", "X-Forwarded-For", "x-forwarded-foo", "Forwarded", "l5d-client-id", "transfer_encoding", "Location",
                                  "Max-Forwards", "WWW-Authenticate", "Keep-Alive"])
def test_fields_that_frame_route_or_authenticate_are_dropped_from_trailers(name):
    data = f"0\r\nA: 1\r\n{name}: evil\r\nB: 2\r\n\r\n".encode()
    assert same_result(data, [7])[2] == b"A: 1\r\nB: 2\r\n"


@given(st.integers(1, 2**32 - 1))
def test_a_chunk_header_is_hex_and_crlf(n):
    assert encode_chunk_header(n) == b"%x\r\n" % n


def test_a_decoder_is_small_enough_to_sit_in_every_exchange():
    assert chunk_decoder_bytes() <= 32
