"""Protobuf messages put together from octets: numbers, fields, and nothing else. For what is sent so often that building objects costs.

A message may be made of the octets of its parts in any order, so parts that come again are made once and kept.
"""

from __future__ import annotations

_SHORT = tuple(bytes((number,)) for number in range(128))


def varint(number: int) -> bytes:
    """A base-128 number, low bits first."""
    if number < 128:
        return _SHORT[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes, text or message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def text_field(number: int, text: str) -> bytes:
    """A field of text; none when it is empty."""
    return field(number, text.encode("utf-8", "replace")) if text else b""


def number_field(number: int, value: int) -> bytes:
    """A field with a number that is not negative; none when it is 0."""
    return varint(number << 3) + varint(value) if value else b""
