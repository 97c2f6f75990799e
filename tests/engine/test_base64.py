"""Base64 in pieces, against Python's own: decoded where it lies, encoded as it comes."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import base64_pieces


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(n % (len(data) + 1) for n in at), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=20))
def test_encoded_as_by_python_however_it_comes(data, at):
    assert base64_pieces(cut(data, at), False) == base64.b64encode(data)


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(0, 1000), max_size=20))
def test_blocks_padded_one_by_one_are_decoded_to_what_they_were(parts, at):
    text = b"".join(base64.b64encode(part) for part in parts)
    assert base64_pieces(cut(text, at), True) == b"".join(parts)


@pytest.mark.parametrize("text", [b"A", b"AA", b"AAA", b"=", b"A=", b"AA=A", b"A===", b"AA==A", b"AA A", b"AAA\n", b"-_AA", b"\0AAA", b"AAA\xff", b"AA="])
def test_what_is_no_base64_is_refused(text):
    assert base64_pieces([text], True) is None
    assert base64_pieces([text[n : n + 1] for n in range(len(text))], True) is None


@given(st.binary(max_size=40))
def test_any_octets_are_decoded_as_python_does_or_refused(text):
    told = base64_pieces([text], True)
    if told is not None:
        assert told == b"".join(base64.b64decode(text[n : n + 4]) for n in range(0, len(text), 4))
