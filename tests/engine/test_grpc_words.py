"""What a head and trailers say of a gRPC call, against the grammar of its protocol written down slowly."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from meshcore._fastpath import grpc_trailers_status, grpc_words

UNITS_NS = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}
A_YEAR_NS = 365 * 86_400 * 10**9
NONE, UNKNOWN = 255, 2

words = st.one_of(st.from_regex(rb"[0-9]{0,10}[numSMHhsx]?", fullmatch=True), st.from_regex(rb"[!-~]{0,10}", fullmatch=True))


def timeout_ns(text: bytes) -> int:
    """grpc/doc/PROTOCOL-HTTP2.md: Timeout -> TimeoutValue TimeoutUnit, at most 8 digits."""
    found = re.fullmatch(rb"([0-9]{1,8})([numSMH])", text)
    return min(int(found[1]) * UNITS_NS[found[2]], A_YEAR_NS) or 1 if found else 0


def status_of(text: bytes) -> int:
    return int(text) if re.fullmatch(rb"[0-9]{1,3}", text) and int(text) < 17 else UNKNOWN


@given(words)
@example(b"99999999H")
@example(b"0n")
@example(b"000000001S")
def test_timeout_is_read_as_the_grammar_says(text):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nGrpc-Timeout: %s\r\n\r\n" % text
    assert grpc_words(head) == {"is_call": True, "timeout_ns": timeout_ns(text)}


@given(st.one_of(words, st.sampled_from([b"", b"0", b"16", b"17", b"007", b"0007", b"-1", b"1 "])))
def test_status_is_read_alike_from_head_and_trailers(text):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nGrpc-Status: %s\r\n\r\n" % text
    assert grpc_words(head, True) == {"status": status_of(text.strip())}
    if text and text == text.strip():
        assert grpc_trailers_status(b"x-a: grpc-status: 3\r\nGRPC-Status: %s\r\ngrpc-message: m\r\n" % text) == status_of(text)


def test_no_status_is_none():
    assert grpc_words(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True) == {"status": NONE}
    assert grpc_trailers_status(b"") == grpc_trailers_status(b"grpc-message: m\r\n") == NONE


@given(st.sampled_from([b"GET", b"POST", b"PUT"]), st.one_of(
    st.sampled_from([b"application/grpc", b"APPLICATION/GRPC", b"application/grpc+proto", b"application/grpc;a=b", b"application/grpc-web",
                     b"application/grpc-web+proto", b"application/grpcx", b"application/json", b"application/grp"]),
    st.from_regex(rb"application/grpc[!-~]{0,5}", fullmatch=True)))
def test_call_is_a_post_of_grpc_in_whatever_message_format(method, kind):
    head = b"%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Type: %s\r\n\r\n" % (method, kind)
    is_call = method == b"POST" and re.fullmatch(rb"application/grpc([+;].*)?", kind.lower(), re.DOTALL) is not None
    assert grpc_words(head)["is_call"] == is_call
