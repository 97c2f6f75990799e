"""Steps of the cases on HPACK: blocks that must not decode, and blocks after which both tables must still agree."""

from __future__ import annotations

from tests.conformance.http2.talk import Steps, Talk
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import continuation, headers, rst_stream
from tests.scenario.h2_hpack import INDEXED, LITERAL_INDEXED, LITERAL_NEVER, indexed, integer, literal, request, size_update, stateless, string

GOOD = stateless(request(path="/case"))
FIRST_DYNAMIC = 62  # RFC 7541 appendix A has 61 entries

# Blocks of one GET each.
BLOCKS: dict[str, bytes] = {
    "H2-HPACK-INDEX-0": GOOD + b"\x80",
    "H2-HPACK-INDEX-OOB": GOOD + indexed(9999),
    "H2-HPACK-NAME-INDEX-OOB": GOOD + integer(9999, LITERAL_INDEXED) + string("v"),
    "H2-HPACK-INT-OVERFLOW": GOOD + b"\xff" + b"\xff" * 20 + b"\x01",
    "H2-HPACK-INT-LONG-ZERO": GOOD + b"\x00\x01x\x7f" + b"\x80" * 20 + b"\x00" + b"v" * 127,
    "H2-HPACK-INT-2-32": GOOD + integer(2**32 + 2, INDEXED),
    "H2-HPACK-STR-LEN": GOOD + b"\x00" + string("x") + b"\x0a" + b"short",
    "H2-HPACK-HUFF-PAD8": GOOD + b"\x00" + string("x") + b"\x82\x1f\xff",  # 'a' (00011), then eleven ones
    "H2-HPACK-HUFF-PAD0": GOOD + b"\x00" + string("x") + b"\x81\x18",  # 'a' (00011), then 000
    "H2-HPACK-HUFF-EOS": GOOD + b"\x00" + string("x") + b"\x85\x1f\xff\xff\xff\xff",
    "H2-HPACK-TRUNCATED": GOOD + b"\x40\x05na",
    "H2-HPACK-TRUNCATED-INT": GOOD + b"\x7f\x80",
    "H2-HPACK-TSU-LATE": GOOD + size_update(100),
    "H2-HPACK-TSU-BIG": size_update(1 << 20) + GOOD,
    "H2-HPACK-TSU-TWO": size_update(0) + size_update(4096) + GOOD,
    "H2-HPACK-HUFFMAN": stateless(request(path="/case", extra=[("x-huffman", "all of it")]), huffman=True),
    "H2-HPACK-NEVER": GOOD + literal("x-secret", "value", LITERAL_NEVER),
    # One entry of 4033 octets, then twelve thousand references: 48 MB out of 16 KiB.
    "H2-HPACK-BOMB": GOOD + literal("x", "b" * 4000, LITERAL_INDEXED) + indexed(FIRST_DYNAMIC) * 12_000,
}

STEPS: dict[str, Steps] = {}


def _block(octets: bytes) -> Steps:
    return lambda t: t.send(headers(1, octets))


STEPS.update({case_id: _block(octets) for case_id, octets in BLOCKS.items()})


def steps(case_id: str):
    def register(function: Steps) -> Steps:
        STEPS[case_id] = function
        return function

    return register


def _in_two(t: Talk, first: bytes, second: bytes) -> None:
    t.send(headers(1, first))
    t.wait_response()
    t.ignored_streams.add(1)
    if not t.ended:
        t.send(headers(3, second))


@steps("H2-HPACK-TSU-0-REF")
def reference_behind_a_size_of_nothing(t: Talk) -> None:
    _in_two(t, GOOD + literal("x-gone", "1", LITERAL_INDEXED), size_update(0) + GOOD + indexed(FIRST_DYNAMIC))


@steps("H2-HPACK-EVICT")
def entry_larger_than_the_table(t: Talk) -> None:
    _in_two(t, GOOD + literal("x-gone", "1", LITERAL_INDEXED) + literal("x-large", "l" * 5000, LITERAL_INDEXED), GOOD + indexed(FIRST_DYNAMIC))


@steps("H2-HPACK-DYNAMIC")
def reference_into_the_dynamic_table(t: Talk) -> None:
    t.facts["field"] = ("x-sync", "yes")
    _in_two(t, GOOD + literal("x-sync", "yes", LITERAL_INDEXED), GOOD + indexed(FIRST_DYNAMIC))


@steps("H2-HPACK-SYNC")
def refused_block_still_counts(t: Talk) -> None:
    t.facts["field"] = ("x-sync", "yes")
    _in_two(t, GOOD + literal("X-Upper", "no") + literal("x-sync", "yes", LITERAL_INDEXED), GOOD + indexed(FIRST_DYNAMIC))


@steps("H2-HPACK-SYNC-431")
def oversized_block_still_counts(t: Talk) -> None:
    t.facts["field"] = ("x-sync", "yes")
    block = GOOD + b"".join(literal(f"x-{n}", "f" * 1000) for n in range(48)) + literal("x-sync", "yes", LITERAL_INDEXED)
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    t.send(headers(1, parts[0], end_headers=False), *(continuation(1, part, end_headers=part is parts[-1]) for part in parts[1:]))
    t.wait_response()
    t.ignored_streams.add(1)
    if not t.ended:
        t.send(headers(3, GOOD + indexed(FIRST_DYNAMIC)))


@steps("H2-HPACK-SYNC-RST")
def block_on_a_reset_stream_still_counts(t: Talk) -> None:
    """Trailers that cross the reset: for the server the stream is closed, its table is not."""
    t.facts["field"] = ("x-sync", "yes")
    t.ignored_streams.add(1)
    t.send(h2.headers(1, stateless(request("POST", "/case", extra=[("te", "gzip")])), end_stream=False))
    t.wait_response()
    if not t.ended:
        t.send(headers(1, literal("x-sync", "yes", LITERAL_INDEXED)), rst_stream(1), headers(3, GOOD + indexed(FIRST_DYNAMIC)))


@steps("H2-HPACK-LIST-BIG")
def list_of_200_kib(t: Talk) -> None:
    block = GOOD + b"".join(literal(f"x-{n}", "f" * 1000) for n in range(200))
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    t.send(headers(1, parts[0], end_headers=False), *(continuation(1, part, end_headers=part is parts[-1]) for part in parts[1:]))


