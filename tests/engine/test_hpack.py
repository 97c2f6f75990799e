"""HPACK read and written, against the hpack package as an oracle, and at the edges of RFC 7541."""

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcore._fastpath import HpackReading, HpackWriting, huffman_text
from tests.scenario.h2_hpack import LITERAL, LITERAL_INDEXED, indexed, integer, literal, size_update, string

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
FIRST_DYNAMIC = 62

names = st.one_of(
    st.sampled_from([b":method", b":path", b":status", b":authority", b"accept", b"cookie", b"authorization", b"x-a", b"x-b", b"content-length",
                     b"content-type", b"date", b"set-cookie", b"via", b"user-agent"]), st.binary(max_size=40))
values = st.one_of(st.sampled_from([b"", b"GET", b"/", b"200", b"a", b"text/plain", b"gzip, deflate"]), st.binary(max_size=60),
                   st.binary(min_size=1, max_size=8).map(lambda part: part * 300))
fields = st.tuples(names, values)
sections = st.lists(st.lists(fields, max_size=8), min_size=1, max_size=12)


def oracle(octets: bytes) -> bytes | None:
    try:
        return decode_huffman(octets)
    except hpack.HPACKDecodingError:
        return None


@given(st.binary(max_size=200))
def test_whatever_is_coded_is_read_back(text):
    assert huffman_text(HUFFMAN.encode(text)) == text


def test_every_octet_has_its_code():
    for octet in range(256):
        assert huffman_text(HUFFMAN.encode(bytes((octet,)) * 3)) == bytes((octet,)) * 3


@given(st.one_of(st.binary(max_size=12), st.binary(max_size=20).map(HUFFMAN.encode).map(lambda coded: coded + b"\xff"),
                 st.binary(min_size=1, max_size=20).map(HUFFMAN.encode).map(lambda coded: coded[:-1])))
def test_octets_that_are_no_code_are_refused_where_the_oracle_refuses_them(octets):
    assert huffman_text(octets) == oracle(octets)


@pytest.mark.parametrize("octets", [b"\xff", b"\x1f\xff", b"\x18", b"\x1f\xff\xff\xff\xff", b"\xff\xff\xff\xfc"])
def test_padding_that_is_long_or_no_padding_and_the_end_itself_are_refused(octets):
    assert huffman_text(octets) is None


def test_text_longer_than_its_room_is_refused():
    assert huffman_text(HUFFMAN.encode(b"0" * 10), 10) == b"0" * 10
    assert huffman_text(HUFFMAN.encode(b"0" * 11), 10) is None


@given(sections, st.booleans(), st.lists(st.integers(0, 4096), max_size=3), st.randoms(use_true_random=False))
def test_blocks_of_another_encoder_are_read_however_they_are_cut(blocks, huffman, sizes, rng):
    encoder, reading = hpack.Encoder(), HpackReading()
    for block in blocks:
        if sizes and rng.random() < 0.3:
            encoder.header_table_size = sizes.pop()
        octets = encoder.encode(block, huffman=huffman)
        cuts = sorted(rng.randrange(len(octets) + 1) for _ in range(rng.randrange(4)))
        pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)])]
        assert reading.read(pieces) == ("done", block)


@settings(max_examples=400)
@given(st.lists(st.one_of(
    st.binary(max_size=6), st.builds(lambda name, value: literal(name, value, LITERAL_INDEXED), names, values),
    st.builds(lambda name, value: literal(name, value, LITERAL), names, values), st.integers(1, 70).map(indexed),
    st.integers(0, 5000).map(size_update), st.builds(lambda name, value: integer(name, LITERAL_INDEXED) + string(value), st.integers(1, 70), values),
), max_size=8), st.integers(0, 12))
def test_random_blocks_mean_what_the_oracle_reads(parts, n_first):
    """The oracle keeps no state of a block it refuses, so the first refusal ends the comparison."""
    decoder, reading = hpack.Decoder(max_header_list_size=1 << 30), HpackReading()
    for block in (b"".join(parts[:n_first]), b"".join(parts[n_first:])):
        try:
            expected = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
        except hpack.HPACKError:
            assert reading.read([block])[0] != "done"
            return
        assert reading.read([block]) == ("done", expected)


@given(sections, st.lists(st.integers(0, 9000), max_size=4), st.randoms(use_true_random=False))
def test_blocks_we_write_are_read_by_another_decoder(blocks, limits, rng):
    writing, decoder = HpackWriting(), hpack.Decoder(max_header_list_size=1 << 30)
    for block in [*blocks, *blocks]:
        while limits and rng.random() < 0.4:
            limit = limits.pop()
            writing.limit(limit)
            decoder.max_allowed_table_size = limit
        octets = writing.write(block)
        assert [(bytes(name), bytes(value)) for name, value in decoder.decode(octets, raw=True)] == block


@given(sections)
def test_we_read_what_we_write(blocks):
    writing, reading = HpackWriting(), HpackReading()
    for block in [*blocks, *blocks, *blocks]:
        assert reading.read([writing.write(block)]) == ("done", block)


def test_a_field_is_an_index_the_third_time_and_one_that_changes_never():
    writing = HpackWriting()
    sizes = [len(writing.write([(b"x-tenant", b"blue"), (b"x-request", b"%08d" % n)])) for n in range(5)]
    assert sizes[0] == sizes[1] > sizes[2] == sizes[3] == 1 + len(literal(b"x-request", b"00000000"))


def test_what_always_changes_pushes_nothing_out():
    writing = HpackWriting()
    stays = [(b"x-stays", b"s")]
    for n in range(1000):
        writing.write([*stays, (b"x-changes", b"%06d" % n * 20)])
    assert writing.write(stays) == indexed(FIRST_DYNAMIC)


@pytest.mark.parametrize("name, value", [(b"authorization", b"Bearer of a long token, longer than twenty"), (b"cookie", b"short=1")])
def test_a_secret_never_enters_a_table(name, value):
    writing = HpackWriting()
    for _ in range(4):
        assert writing.write([(name, value)])[0] & 0xF0 == 0x10


def test_a_table_of_nothing_is_announced_and_used_as_such():
    writing, reading = HpackWriting(), HpackReading()
    block = [(b"x-a", b"1")]
    for _ in range(3):
        assert reading.read([writing.write(block)])[0] == "done"
    assert reading.table_bytes > 0
    writing.limit(0)
    for n in range(3):
        octets = writing.write(block)
        assert octets == (size_update(0) if n == 0 else b"") + literal(b"x-a", b"1")
        assert reading.read([octets]) == ("done", block)
    assert reading.table_bytes == 0


def test_a_limit_that_went_down_and_up_between_blocks_is_told_in_full():
    """RFC 7541 4.2: the smallest there was, then the one there is."""
    writing = HpackWriting()
    writing.limit(100)
    writing.limit(10_000)
    assert writing.write([]) == size_update(100) + size_update(4096)


def test_a_name_borrowed_from_the_entry_it_pushes_out_stays_whole():
    reading = HpackReading()
    assert reading.read([literal(b"n" * 2000, b"v" * 2000, LITERAL_INDEXED)])[0] == "done"
    block = integer(FIRST_DYNAMIC, LITERAL_INDEXED) + string(b"w" * 2000)
    assert reading.read([block]) == ("done", [(b"n" * 2000, b"w" * 2000)])
    assert reading.read([indexed(FIRST_DYNAMIC)]) == ("done", [(b"n" * 2000, b"w" * 2000)])


def test_a_table_holds_4096_octets_and_no_more():
    reading = HpackReading()
    for n in range(300):
        assert reading.read([literal(b"%03d" % n, b"", LITERAL_INDEXED)])[0] == "done"
    assert 4096 - 35 < reading.table_bytes <= 4096
    assert reading.read([literal(b"", b"", LITERAL_INDEXED) * 200])[0] == "done"
    assert reading.table_bytes == 4096                  # 128 entries of 32: as many as the ring has places
    assert reading.read([indexed(FIRST_DYNAMIC + 127)]) == ("done", [(b"", b"")])
    assert reading.read([indexed(FIRST_DYNAMIC + 128)])[0] == "broken"
