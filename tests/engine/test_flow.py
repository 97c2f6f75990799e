"""A body on its way: whatever framing and segmentation it comes in, what is sent means the same body."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import FlowDoor


def chunks(body, sizes, extension=b"", trailers=b""):
    out, at = [], 0
    for size in [*sizes, len(body)]:
        data = body[at:at + size]
        at += size
        if data:
            out.append(b"%x%s\r\n%s\r\n" % (len(data), extension, data))
    return b"".join(out) + b"0\r\n" + trailers + b"\r\n"


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


def run(flow, pieces):
    """(verdicts, what was sent piece by piece, what was left over)"""
    verdicts, sent = [], []
    for i, data in enumerate(pieces):
        verdict, out, used = flow.feed(data)
        verdicts.append(verdict)
        sent.append(out)
        if verdict != "more":
            return verdicts, sent, data[used:] + b"".join(pieces[i + 1:])
        assert used == len(data)
    return verdicts, sent, b""


def parsed(framing, wire, at_eof=False):
    """The body (and trailers) that h11 finds in it, which must be all of it."""
    heads = {"chunked": b"transfer-encoding: chunked\r\n", "until_close": b""}
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\n" + heads.get(framing, framing) + b"\r\n")
    assert isinstance(client.next_event(), h11.Response)
    if wire:
        client.receive_data(wire)
    if at_eof:
        client.receive_data(b"")
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert client.trailing_data[0] == b""
    return body, [(name, value) for name, value in event.headers]


bodies = st.binary(max_size=400)
sizes = st.lists(st.integers(1, 60), max_size=20)
places = st.lists(st.integers(0, 5000), max_size=40)


@given(bodies, sizes, places, st.sampled_from([b"", b";a", b';a="b;c"']),
       st.sampled_from([b"", b"x-sum: 1\r\n", b"a:\r\nb: c\r\n"]), st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))
def test_chunked_is_framed_anew_to_the_same_body_and_trailers(body, sizes, places, extension, trailers, behind):
    wire = chunks(body, sizes, extension, trailers)
    flow = FlowDoor("chunked", "chunked")
    verdicts, sent, left = run(flow, cut(wire + behind, places))
    assert verdicts[-1] == "done" and left == behind and flow.done
    expected = [tuple(part.strip() for part in line.split(b":")) for line in trailers.split(b"\r\n") if line]
    assert parsed("chunked", b"".join(sent)) == (body, expected)
    assert flow.moved_bytes == len(body)


@given(bodies, sizes, places)
def test_chunked_to_an_http_1_0_client_is_the_bare_body(body, sizes, places):
    flow = FlowDoor("chunked", "until_close")
    verdicts, sent, left = run(flow, cut(chunks(body, sizes, trailers=b"x: 1\r\n"), places))
    assert (verdicts[-1], b"".join(sent), left) == ("done", body, b"")


@given(bodies, places)
def test_a_body_until_close_becomes_chunked(body, places):
    flow = FlowDoor("until_close", "chunked")
    verdicts, sent, _ = run(flow, cut(body, places))
    assert set(verdicts) <= {"more"}
    assert parsed("chunked", b"".join(sent) + flow.end_of_input())[0] == body


@given(bodies, places, st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))
def test_a_length_is_counted_and_what_follows_is_left_alone(body, places, behind):
    flow = FlowDoor("length", "length", len(body))
    if not body:
        assert flow.done
        return
    verdicts, sent, left = run(flow, cut(body + behind, places))
    assert (verdicts[-1], b"".join(sent), left) == ("done", body, behind)
    assert flow.done and flow.moved_bytes == len(body)


@given(bodies, places)
def test_a_tunnel_is_bytes(body, places):
    flow = FlowDoor("raw", "raw")
    _, sent, _ = run(flow, cut(body, places))
    assert b"".join(sent) == body and not flow.done and flow.end_of_input() == b""


def test_a_hundred_thousand_one_byte_chunks_leave_as_one_chunk_a_read():
    flow = FlowDoor("chunked", "chunked")
    wire = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    reads = [wire[i:i + 65536] for i in range(0, len(wire), 65536)]
    verdicts, sent, _ = run(flow, reads)
    sent = b"".join(sent)
    assert verdicts[-1] == "done" and parsed("chunked", sent)[0] == b"x" * 100_000
    assert sent.count(b"\r\n") <= 2 * len(reads) + 2
    assert len(sent) < 101_000


@pytest.mark.parametrize("read", [1, 2, 3, 5, 7, 64, 4096])
def test_trailers_nobody_wants_are_dropped(read):
    flow = FlowDoor("chunked", "chunked", trailers_wanted=False)
    wire = chunks(b"hello", [2], trailers=b"x-sum: 1\r\n")
    _, sent, _ = run(flow, [wire[i:i + read] for i in range(0, len(wire), read)])
    assert parsed("chunked", b"".join(sent)) == (b"hello", [])


@pytest.mark.parametrize("wire", [b"x\r\n", b"1\r\nab\r\n", b"1\nx\r\n", b"0\r\nbad name: 1\r\n\r\n", b"-1\r\n"])
def test_malformed_chunks_are_refused_however_they_are_cut(wire):
    whole = FlowDoor("chunked", "chunked").feed(wire)[0]
    assert whole in ("BAD_CHUNK", "BAD_TRAILER")
    assert run(FlowDoor("chunked", "chunked"), [wire[i:i + 1] for i in range(len(wire))])[0][-1] == whole
