"""SPLIT_SAME for heads: the verdict is a function of the octets, not of how they came. And h11 as a second opinion."""

import json
import random
from pathlib import Path

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshcore._fastpath import parse_request, parse_response

CATALOGUE = Path(__file__).resolve().parents[1] / "conformance" / "http1.json"
TIGHT = {"head_size_bytes": 120, "field_size_bytes": 40, "target_size_bytes": 24, "max_fields": 4}


def cut(data: bytes, places) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def octets(data: bytes) -> list[bytes]:
    return [data[i:i + 1] for i in range(len(data))]


def same_verdict(parse, data: bytes, places, *more) -> str:
    """The verdict, asserted equal whole, in pieces, and octet by octet."""
    verdict, values = parse([data], *more)
    verdict_octets, seen = parse(octets(data), *more)
    verdict_pieces, in_pieces = parse(cut(data, places), *more)
    assert verdict == verdict_octets == verdict_pieces
    if verdict == "done":
        assert values == seen == in_pieces
    elif verdict != "more":
        assert seen <= in_pieces <= values == len(data)
        # Final as soon as it is known: not one octet earlier, and the same with nothing behind it.
        assert parse([data[:seen]], *more)[0] == verdict
        assert parse([data[:seen - 1]], *more)[0] == "more"
    return verdict


names = st.sampled_from(["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "X-A", "x_b", "A", "TE", "Content_Length",
                         "Host ", "", " X", "A[", "X\0", "l5d-x", "N" * 38, "N" * 41])
values = st.sampled_from(["a.test", "5", "chunked", "close", "upgrade", "websocket", "100-continue", "", " ", "v", "x\x01", "\xe9", "5, 5", "gzip",
                          "a,b", "keep-alive, x-a", "v " * 20, "1\r", "w" * 37])
ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n ", "\r\r\n"])
colons = st.sampled_from([": ", ":", ": ", ":\t ", " : "])
lines = st.tuples(names, colons, values, ends).map("".join)
methods = st.sampled_from(["GET", "POST", "CONNECT", "OPTIONS", "TRACE", "PRI", "FOO", "G(T", "", "M" * 33])
targets = st.sampled_from(["/", "/a?b", "*", "http://a.test/x", "http://a.test", "a.test:80", "/%zz", "/../x", "/a b", "", "/\x01", "/" + "x" * 25, "/.", "?"])
versions = st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1", "", "HTTP/1.1 "])
requests = st.builds(lambda lead, m, t, v, e, fields, tail: (lead + m + " " + t + " " + v + e + "".join(fields) + tail).encode("latin-1"),
                     st.sampled_from(["", "", "", "\r\n", "\r\n\r\n", "\n", "\r"]), methods, targets, versions, ends, st.lists(lines, max_size=6),
                     st.sampled_from(["\r\n", "\r\n", "\r\nbody", "\n", "\r", "", "\r\rX"]))
responses = st.builds(lambda s, e, fields, tail: (s + e + "".join(fields) + tail).encode("latin-1"),
                      st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 204", "HTTP/1.1 999 X", "HTTP/1.1 101 S", "HTTP/2.0 200 OK", "HTTP/1.1 200 \0",
                                       "HTTP/1.1 200 " + "r" * 45]),
                      ends, st.lists(lines, max_size=6), st.sampled_from(["\r\n", "\r\nbody", "\n", "\r", ""]))
valid_host = "Host: a.test\r\n"
places = st.lists(st.integers(0, 500), max_size=6)
limits = st.sampled_from([None, TIGHT])


@settings(max_examples=1500, deadline=None)
@given(requests, places, limits)
def test_a_request_means_the_same_in_any_pieces(data, places, limits):
    same_verdict(parse_request, data, places, limits)


@settings(max_examples=800, deadline=None)
@given(st.lists(lines, max_size=5), st.sampled_from(["GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "GET / HTTP/1.0\r\n"]), places, limits)
def test_a_request_with_a_good_first_line_means_the_same_in_any_pieces(fields, line, places, limits):
    same_verdict(parse_request, (line + valid_host + "".join(fields) + "\r\n").encode("latin-1"), places, limits)


@settings(max_examples=800, deadline=None)
@given(responses, places, limits, st.sampled_from([b"GET", b"HEAD", b"CONNECT"]), st.booleans())
def test_a_response_means_the_same_in_any_pieces(data, places, limits, method, may_upgrade):
    same_verdict(parse_response, data, places, limits, method, may_upgrade)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80), places)
def test_noise_means_the_same_in_any_pieces(data, places):
    same_verdict(parse_request, data, places)
    same_verdict(parse_response, data, places)
    same_verdict(parse_request, b"GET / HTTP/1.1\r\n" + data, places)


@settings(max_examples=600, deadline=None)
@given(st.integers(34, 46), st.sampled_from(["\r\n", "\r\n", "\r", "\n", "\x01", "\rX", " \r\n", "\r\n ", "\r\n  \r\n"]), st.sampled_from(["A: ", "A:", "", "Content-Length: ", "A" * 36, "A" * 39 + ":", "A" * 40 + ":", "A" * 41 + ":"]))
@example(38, "\rX", "A: ")
def test_the_size_of_a_field_is_judged_the_same_at_its_very_edge(size, end, name):
    """A long last field followed by the empty line's CR was once counted two octets too long, in single octets only."""
    line = f"{name}{'5' * max(0, size - len(name))}{end}"
    for fields in (f"{line}Host: a\r\n", f"Host: a\r\n{line}", "Host: a\r\nA:\r\nB:\r\nC: 1\r\n" + line):
        data = f"GET / HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
        same_verdict(parse_request, data, [], {**TIGHT, "head_size_bytes": 400})


def catalogue():
    for case in json.loads(CATALOGUE.read_text())["cases"]:
        parts = case.get("raw_parts") or [[case["raw"], 1]]
        data = b"".join(text.encode("latin-1") * times for text, times in parts)
        if len(data) < 20000:
            yield pytest.param(case["side"], data, id=case["id"])


@pytest.mark.parametrize("side, data", list(catalogue()))
def test_the_catalogue_means_the_same_in_any_pieces(side, data):
    rng = random.Random(1)
    parse = parse_request if side == "request" else parse_response
    same_verdict(parse, data, [rng.randrange(len(data) + 1) for _ in range(5)])


def test_a_large_head_in_single_octets_is_read_in_linear_time():
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 300) for i in range(90)) + b"\r\n"
    assert parse_request(octets(data))[1] == parse_request([data])[1]


# --- h11 ----------------------------------------------------------------------------------------------------------

token = st.text("abcXYZ019-_!~", min_size=1, max_size=8)
plain_value = st.text("abc XYZ,;=\"/\xe9\t", max_size=12).map(str.strip)
free_fields = st.lists(st.tuples(token.map(lambda t: "x-" + t), plain_value), max_size=5)
lengths = st.sampled_from([[], [("Content-Length", "3")], [("Transfer-Encoding", "chunked")]])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GET", "POST", "FOO", "OPTIONS"]), st.sampled_from(["/", "/a/b?c=d", "/%41"]), free_fields, lengths)
def test_h11_reads_a_valid_request_as_we_do(method, target, fields, lengths):
    fields = [("Host", "a.test"), *fields, *lengths]
    data = (f"{method} {target} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n").encode("latin-1")
    verdict, ours = parse_request([data])
    assert verdict == "done"
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    theirs = peer.next_event()
    assert (theirs.method, theirs.target) == (ours["method"], ours["target"])
    assert [(n.lower(), v) for n, v, *_ in ours["fields"]] == list(theirs.headers)


@settings(max_examples=600, deadline=None)
@given(requests)
def test_what_we_accept_h11_accepts(data):
    """The other way round does not hold: h11 forgives line ends, targets and authorities that we refuse."""
    verdict, ours = parse_request([data])
    if verdict != "done":
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data[:ours["size"]].removeprefix(b"\r\n"))
    assert isinstance(peer.next_event(), h11.Request)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([200, 204, 304, 404, 500]), free_fields, lengths)
def test_h11_reads_a_valid_response_as_we_do(status, fields, lengths):
    data = (f"HTTP/1.1 {status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in [*fields, *lengths]) + "\r\n").encode("latin-1")
    verdict, ours = parse_response([data])
    assert verdict == "done"
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    theirs = peer.next_event()
    assert (theirs.status_code, theirs.reason) == (ours["status"], ours["reason"])
    assert [(n.lower(), v) for n, v, *_ in ours["fields"]] == list(theirs.headers)
