"""HPACK by hand: blocks that share no state, and the pieces of blocks that no encoder would make. Decodes nothing."""

from __future__ import annotations

from typing import Iterable

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

Fields = Iterable[tuple[str | bytes, str | bytes]]

# The forms of a field (RFC 7541 6): flag bits and the width of the integer that follows in the same octet.
INDEXED, LITERAL_INDEXED, SIZE_UPDATE, LITERAL_NEVER, LITERAL = (0x80, 7), (0x40, 6), (0x20, 5), (0x10, 4), (0x00, 4)

_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def octets(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def integer(value: int, form: tuple[int, int]) -> bytes:
    """RFC 7541 5.1."""
    flags, width = form
    most = (1 << width) - 1
    if value < most:
        return bytes((flags | value,))
    out, value = bytearray((flags | most,)), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(text: str | bytes, *, huffman: bool = False) -> bytes:
    """RFC 7541 5.2."""
    raw = octets(text)
    if huffman:
        raw = _HUFFMAN.encode(raw)
    return integer(len(raw), (0x80 if huffman else 0, 7)) + raw


def literal(name: str | bytes, value: str | bytes, form: tuple[int, int] = LITERAL, *, huffman: bool = False) -> bytes:
    """A field with a name of its own; by default one that leaves the table alone."""
    return integer(0, form) + string(name, huffman=huffman) + string(value, huffman=huffman)


def indexed(index: int) -> bytes:
    return integer(index, INDEXED)


def size_update(size: int) -> bytes:
    return integer(size, SIZE_UPDATE)


def stateless(fields: Fields, *, huffman: bool = False) -> bytes:
    """A block of literals: valid anywhere, whatever the table holds; any octets as names and values."""
    return b"".join(literal(name, value, huffman=huffman) for name, value in fields)


def request(method: str = "GET", path: str = "/", *, authority: str | None = "a.test", scheme: str | None = "http",
            extra: Fields = ()) -> list[tuple[str | bytes, str | bytes]]:
    """The fields of a request in their usual order; None leaves a pseudo field out."""
    pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(extra)
