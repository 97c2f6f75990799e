"""Strict HTTP/2 reading of one direction: the oracle for what a proxy sends. Owns the rules; opens and sends nothing.

Written from RFC 9113 frame by frame, with the `hpack` package for field sections. Whatever a proxy emits, to either side,
must be readable here without a single liberty; a liberty taken is a `WireError` that names it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

import hpack

from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import Frame
from tests.scenario.wire import DIGITS, WireError

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
CONNECTION_SPECIFIC = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
REQUEST_PSEUDO = {b":method", b":scheme", b":authority", b":path", b":protocol"}


@dataclass
class H2Message:
    """One request or response as it was on its stream."""

    stream: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list["H2Message"] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    reset: int | None = None  # the code with which the sender gave it up
    connection: int = 0

    @property
    def body_bytes(self) -> int:
        return len(self.body)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value.decode("latin-1") for key, value in self.fields if key == name.lower().encode()]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The only value of a field. A repeated one is an error of the test or of the proxy."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else default

    def trailer(self, name: str) -> str | None:
        return next((value.decode("latin-1") for key, value in self.trailers if key == name.encode()), None)

    @property
    def names(self) -> list[str]:
        return [key.decode() for key, _ in self.fields]

    @property
    def status(self) -> int:
        return int(self.get(":status", "0"))

    @property
    def method(self) -> str | None:
        return self.get(":method")

    @property
    def path(self) -> str | None:
        return self.get(":path")

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    @property
    def reason(self) -> str | None:
        """The reason code of a response the proxy made itself."""
        return self.get("x-mesh-reason")

    @property
    def ended(self) -> bool:
        return self.complete or self.reset is not None


class H2Reader:
    """Feeds on the octets of one sender, yields checked frames in `frames` and messages in `streams`.

    `role` is the sender: "client" or "server". The receiver tells of what it sends, since that is what binds the sender:
    `receiver_sent(...)` for its own frames and `expect(stream, method)` for requests.
    """

    def __init__(self, role: str):
        self.role = role
        self.frames: deque[Frame] = deque()
        self.streams: dict[int, H2Message] = {}
        self.completed: deque[H2Message] = deque()
        self.goaway: Frame | None = None
        self.settings: dict[int, int] = {}
        self.got_settings = False
        self._buffer = bytearray()
        self._preface_due = role == "client"
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._block: tuple[int, bool, bytearray] | None = None
        self._methods: dict[int, str] = {}
        self.closed_by_receiver: set[int] = set()
        self._ended_by_receiver: set[int] = set()
        self._open_streams: set[int] = set()
        self._highest = 0
        # What the receiver allows: settings in force, those still to be acknowledged, and the windows left.
        self._allowed = {h2.INITIAL_WINDOW_SIZE: h2.DEFAULT_WINDOW_BYTES, h2.MAX_FRAME_SIZE: h2.DEFAULT_FRAME_BYTES}
        self._unacknowledged: deque[dict[int, int]] = deque()
        self._connection_window = h2.DEFAULT_WINDOW_BYTES
        self._windows: dict[int, int] = {}

    # --- what the receiver did ---------------------------------------------------------------------------------------

    def expect(self, stream: int, method: str) -> None:
        self._methods[stream] = method

    def receiver_sent_settings(self, values: dict[int, int]) -> None:
        self._unacknowledged.append(dict(values))

    def receiver_sent_window(self, stream: int, increment: int) -> None:
        if stream == 0:
            self._connection_window += increment
        else:
            self._windows[stream] = self._window(stream) + increment

    def receiver_sent_reset(self, stream: int) -> None:
        self.closed_by_receiver.add(stream)

    def receiver_ended(self, stream: int) -> None:
        """The receiver has sent its own END_STREAM there."""
        self._ended_by_receiver.add(stream)

    # --- octets ------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._buffer += data
        if self._preface_due:
            if len(self._buffer) < len(h2.PREFACE):
                return
            if not self._buffer.startswith(h2.PREFACE):
                raise WireError(f"not a preface: {bytes(self._buffer[:24])!r}")
            del self._buffer[: len(h2.PREFACE)]
            self._preface_due = False
        while found := h2.first_frame(self._buffer):
            frame, length = found
            del self._buffer[:length]
            self._take(frame)
            self.frames.append(frame)

    @property
    def mid_frame(self) -> bool:
        return bool(self._buffer) or self._block is not None

    def _take(self, frame: Frame) -> None:
        if len(frame.payload) > self._allowed[h2.MAX_FRAME_SIZE] and not self._unacknowledged:
            raise WireError(f"{frame} is larger than allowed")
        if not self.got_settings and frame.type != h2.SETTINGS:
            raise WireError(f"{frame} before SETTINGS")
        if frame.stream >> 31:
            raise WireError(f"{frame} with the reserved bit")
        if self._block is not None and (frame.type != h2.CONTINUATION or frame.stream != self._block[0]):
            raise WireError(f"{frame} inside the header block of stream {self._block[0]}")
        take = getattr(self, "_take_" + frame.name.lower(), None)
        if take is not None:
            take(frame)

    # --- the connection ----------------------------------------------------------------------------------------------

    def _take_settings(self, frame: Frame) -> None:
        if frame.stream or len(frame.payload) % 6 or (frame.flags & h2.ACK and frame.payload):
            raise WireError(f"{frame}: malformed")
        self.got_settings = True
        if frame.flags & h2.ACK:
            if not self._unacknowledged:
                raise WireError("SETTINGS acknowledged that were never sent")
            self._apply(self._unacknowledged.popleft())
            return
        for at in range(0, len(frame.payload), 6):
            key, value = int.from_bytes(frame.payload[at : at + 2], "big"), int.from_bytes(frame.payload[at + 2 : at + 6], "big")
            if (key == h2.ENABLE_PUSH and value > (1 if self.role == "client" else 0)
                    or key == h2.INITIAL_WINDOW_SIZE and value > h2.LARGEST_WINDOW_BYTES
                    or key == h2.MAX_FRAME_SIZE and not h2.DEFAULT_FRAME_BYTES <= value < 1 << 24):
                raise WireError(f"setting {key} = {value}")
            self.settings[key] = value

    def _apply(self, values: dict[int, int]) -> None:
        if h2.HEADER_TABLE_SIZE in values:
            self._decoder.max_allowed_table_size = values[h2.HEADER_TABLE_SIZE]
        if h2.INITIAL_WINDOW_SIZE in values:
            change = values[h2.INITIAL_WINDOW_SIZE] - self._allowed[h2.INITIAL_WINDOW_SIZE]
            self._windows = {stream: window + change for stream, window in self._windows.items()}
        self._allowed.update(values)

    def _take_ping(self, frame: Frame) -> None:
        if frame.stream or len(frame.payload) != 8:
            raise WireError(f"{frame}: malformed")

    def _take_goaway(self, frame: Frame) -> None:
        if frame.stream or len(frame.payload) < 8:
            raise WireError(f"{frame}: malformed")
        last = int.from_bytes(frame.payload[:4], "big")
        if self.goaway is not None and last > int.from_bytes(self.goaway.payload[:4], "big"):
            raise WireError("GOAWAY with a last stream above that of the GOAWAY before")
        self.goaway = frame

    def _take_window_update(self, frame: Frame) -> None:
        if len(frame.payload) != 4 or not int.from_bytes(frame.payload, "big"):
            raise WireError(f"{frame}: malformed")
        if frame.stream:
            self._not_idle(frame)

    def _take_push_promise(self, frame: Frame) -> None:
        raise WireError("PUSH_PROMISE")

    def _take_priority(self, frame: Frame) -> None:
        if not frame.stream or len(frame.payload) != 5:
            raise WireError(f"{frame}: malformed")

    # --- streams -----------------------------------------------------------------------------------------------------

    def _window(self, stream: int) -> int:
        return self._windows.setdefault(stream, self._allowed[h2.INITIAL_WINDOW_SIZE])

    def _not_idle(self, frame: Frame) -> None:
        """RFC 9113 5.1: on an idle stream nothing but HEADERS and PRIORITY. A server's streams are those we opened."""
        if self.role == "client" and frame.stream > self._highest or self.role == "server" and frame.stream not in self._methods:
            raise WireError(f"{frame} on an idle stream")

    def _open(self, frame: Frame) -> H2Message:
        """The message this frame belongs to; its sender must still be allowed to add to it."""
        self._not_idle(frame)
        message = self.streams.setdefault(frame.stream, H2Message(frame.stream))
        if message.complete:
            raise WireError(f"{frame} after END_STREAM")
        if message.reset is not None:
            raise WireError(f"{frame} after the sender's own RST_STREAM")
        return message

    def _take_rst_stream(self, frame: Frame) -> None:
        if not frame.stream or len(frame.payload) != 4:
            raise WireError(f"{frame}: malformed")
        self._not_idle(frame)
        message = self.streams.setdefault(frame.stream, H2Message(frame.stream))
        if message.reset is None:
            message.reset = frame.error

    def _take_data(self, frame: Frame) -> None:
        if not frame.stream:
            raise WireError("DATA on stream 0")
        message = self._open(frame)
        if not message.fields:
            raise WireError(f"{frame} before HEADERS")
        payload = self._unpadded(frame)
        self._connection_window -= len(frame.payload)
        self._windows[frame.stream] = self._window(frame.stream) - len(frame.payload)
        if self._connection_window < 0 or self._windows[frame.stream] < 0 and not self._unacknowledged:
            raise WireError(f"{frame} beyond the window: {self._windows[frame.stream]} of the stream, {self._connection_window} of the connection")
        message.body += payload
        if frame.flags & h2.END_STREAM:
            self._complete(message)

    def _take_headers(self, frame: Frame) -> None:
        if not frame.stream:
            raise WireError("HEADERS on stream 0")
        if self.role == "client" and frame.stream not in self.streams:
            if not frame.stream % 2 or frame.stream <= self._highest:
                raise WireError(f"stream {frame.stream} opened after {self._highest}")
            self._highest = frame.stream
            limit = self._allowed.get(h2.MAX_CONCURRENT_STREAMS)
            if limit is not None and self.open_streams >= limit:
                raise WireError(f"stream {frame.stream} is one more than the {limit} allowed")
        self._open(frame)
        self._open_streams.add(frame.stream)
        block = self._unpadded(frame)
        if frame.flags & h2.PRIORITY_FLAG:
            block = block[5:]
        self._block = (frame.stream, bool(frame.flags & h2.END_STREAM), bytearray(block))
        if frame.flags & h2.END_HEADERS:
            self._end_block()

    def _take_continuation(self, frame: Frame) -> None:
        if self._block is None:
            raise WireError(f"{frame} outside a header block")
        self._block[2].extend(frame.payload)
        if frame.flags & h2.END_HEADERS:
            self._end_block()

    def _unpadded(self, frame: Frame) -> bytes:
        if not frame.flags & h2.PADDED:
            return frame.payload
        if not frame.payload or frame.payload[0] >= len(frame.payload):
            raise WireError(f"{frame}: padding")
        return frame.payload[1 : len(frame.payload) - frame.payload[0]]

    # --- fields ------------------------------------------------------------------------------------------------------

    def _end_block(self) -> None:
        assert self._block is not None
        (stream, ends, block), self._block = self._block, None
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(bytes(block), raw=True)]
        except hpack.HPACKError as error:
            raise WireError(f"header block of stream {stream}: {error!r}") from error
        message = self.streams[stream]
        check_fields(fields, "trailers" if message.fields else self.role)
        if message.fields:
            if not ends:
                raise WireError(f"trailers of stream {stream} without END_STREAM")
            message.trailers = fields
        elif self.role == "server" and any(name == b":status" and value[:1] == b"1" for name, value in fields):
            if ends or (b":status", b"101") in fields:
                raise WireError(f"interim response {fields[0]} with END_STREAM, or 101")
            message.interim.append(H2Message(stream, fields))
        else:
            message.fields = fields
        if ends:
            self._complete(message)

    def _complete(self, message: H2Message) -> None:
        message.complete = True
        self.completed.append(message)
        lengths = message.all("content-length")
        bodiless = self.role == "server" and (self._methods.get(message.stream) == "HEAD" or message.status == 304)
        if lengths and (len(lengths) > 1 or not DIGITS.fullmatch(lengths[0].encode())):
            raise WireError(f"content-length: {lengths}")
        if bodiless and message.body:
            raise WireError(f"a body of {len(message.body)} octets where none may be")
        if lengths and not bodiless and int(lengths[0]) != len(message.body):
            raise WireError(f"content-length {lengths[0]} with {len(message.body)} octets of DATA")

    @property
    def open_streams(self) -> int:
        """Streams that neither side has reset and that are not ended on both sides."""
        closed = {stream for stream in self._open_streams if self.streams[stream].reset is not None or stream in self.closed_by_receiver
                  or self.streams[stream].complete and stream in self._ended_by_receiver}
        self._open_streams -= closed
        return len(self._open_streams)


def check_fields(fields: list[tuple[bytes, bytes]], kind: str) -> None:
    """RFC 9113 8.2 and 8.3 on a "client"'s request, a "server"'s response, or "trailers"."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if not VALUE.fullmatch(value):
            raise WireError(f"value of {name!r}: {value[:80]!r}")
        if name.startswith(b":"):
            if regular or name in pseudo or kind == "trailers":
                raise WireError(f"pseudo field {name!r}: late, repeated or in trailers")
            pseudo[name] = value
            continue
        regular = True
        if not NAME.fullmatch(name):
            raise WireError(f"field name {name[:80]!r}")
        if name in CONNECTION_SPECIFIC or name == b"te" and value != b"trailers":
            raise WireError(f"connection-specific {name!r}: {value!r}")
    if kind == "server":
        if set(pseudo) != {b":status"} or not re.fullmatch(rb"[1-9][0-9]{2}", pseudo[b":status"]):
            raise WireError(f"pseudo fields of a response: {pseudo}")
    elif kind == "client":
        due = {b":method", b":authority"} if pseudo.get(b":method") == b"CONNECT" and b":protocol" not in pseudo else {b":method", b":scheme", b":path"}
        if not due <= set(pseudo) <= (due if b":scheme" not in due else REQUEST_PSEUDO):
            raise WireError(f"pseudo fields of a request: {pseudo}")
        if b":path" in due and not re.fullmatch(rb"(/[\x21-\x7e]*|\*)", pseudo[b":path"]):
            raise WireError(f":path {pseudo[b':path']!r}")
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) > 1 or hosts and pseudo.get(b":authority", hosts[0]) != hosts[0]:
            raise WireError(f"host {hosts} beside :authority {pseudo.get(b':authority')!r}")
