"""HTTP/2 frames as octets: writing any, legal or not; reading their nine octets of header. Judges nothing, opens nothing."""

from __future__ import annotations

import struct
from typing import Iterable, NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
TYPE_NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441

ERRORS = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
          "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
          "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED")
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED) = range(14)

# RFC 9113 6.9.2, 6.5.2: what holds until a SETTINGS frame says otherwise.
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
LARGEST_WINDOW_BYTES = 2**31 - 1


def error_name(code: int) -> str:
    return ERRORS[code] if code < len(ERRORS) else f"0x{code:x}"


class Frame(NamedTuple):
    """One frame as it came."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def name(self) -> str:
        return TYPE_NAMES[self.type] if self.type < len(TYPE_NAMES) else f"type 0x{self.type:x}"

    @property
    def error(self) -> int:
        """The code of RST_STREAM or GOAWAY."""
        at = 4 if self.type == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")

    def __repr__(self) -> str:
        what = f" {error_name(self.error)}" if self.type in (RST_STREAM, GOAWAY) else ""
        return f"<{self.name} flags=0x{self.flags:x} stream={self.stream}{what} {len(self.payload)} octets>"


def frame(type: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame. `length` lies about the payload; `stream` may carry the reserved bit."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "big") + bytes((type, flags)) + stream.to_bytes(4, "big") + payload


def first_frame(buffer: bytes | bytearray) -> tuple[Frame, int] | None:
    """The first frame of a buffer and its whole length; None while it is incomplete."""
    if len(buffer) < 9:
        return None
    end = 9 + int.from_bytes(buffer[:3], "big")
    if len(buffer) < end:
        return None
    return Frame(buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big"), bytes(buffer[9:end])), end


def settings(values: dict[int, int] | Iterable[tuple[int, int]] = (), *, ack: bool = False) -> bytes:
    pairs = values.items() if isinstance(values, dict) else values
    return frame(SETTINGS, ACK if ack else 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


def ping(payload: bytes = b"8 octets", *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream: int = 0, error: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, error) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, error: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", error))


def priority(stream: int, depends_on: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", depends_on, weight))


def data(stream: int, payload: bytes = b"", *, end_stream: bool = False, padding: int | None = None) -> bytes:
    """DATA; `padding` (0 to 255) adds the pad length and that many zeros."""
    flags = (END_STREAM if end_stream else 0) | (PADDED if padding is not None else 0)
    if padding is not None:
        payload = bytes((padding,)) + payload + bytes(padding)
    return frame(DATA, flags, stream, payload)


def headers(stream: int, block: bytes, *, end_stream: bool = True, end_headers: bool = True, padding: int | None = None,
            depends_on: int | None = None) -> bytes:
    """HEADERS with a block that is already encoded."""
    flags = (END_STREAM if end_stream else 0) | (END_HEADERS if end_headers else 0)
    if depends_on is not None:
        flags |= PRIORITY_FLAG
        block = struct.pack(">IB", depends_on, 15) + block
    if padding is not None:
        flags |= PADDED
        block = bytes((padding,)) + block + bytes(padding)
    return frame(HEADERS, flags, stream, block)


def continuation(stream: int, block: bytes, *, end_headers: bool = True) -> bytes:
    return frame(CONTINUATION, END_HEADERS if end_headers else 0, stream, block)


def push_promise(stream: int, promised: int, block: bytes) -> bytes:
    return frame(PUSH_PROMISE, END_HEADERS, stream, struct.pack(">I", promised) + block)
