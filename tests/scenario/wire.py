"""Strict HTTP/1 reading of one octet stream, independent of the engine. Owns the grammar; opens and sends nothing.

Written from RFC 9110 and RFC 9112 in the slow and obvious way: it is the oracle beside h11. Whatever a proxy emits, to
either side, must be readable here without a single liberty; a liberty taken is a `WireError` that names it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
DIGITS = re.compile(rb"[0-9]{1,19}")
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

# Kept whole for comparison with h11; longer bodies are counted, not kept.
KEPT_BYTES = 1 << 20


class WireError(Exception):
    """The stream is not the one strict meaning of HTTP/1: says what and where."""


@dataclass
class Message:
    """One request or response as it was on the wire."""

    first_line: bytes
    fields: list[tuple[bytes, bytes]]
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    version: bytes = b"1.1"
    framing: str = "none"  # none, length, chunked, close
    body: bytes = b""
    body_bytes: int = 0
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    complete: bool = False
    raw: bytearray = field(default_factory=bytearray)  # as received, at most KEPT_BYTES
    connection: int = 0  # number of the connection it came on
    interim: list["Message"] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The only value of a field. A repeated one is an error of the test or of the proxy."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else default

    def trailer(self, name: str) -> str | None:
        for key, value in self.trailers:
            if key.lower() == name.lower().encode():
                return value.decode("latin-1")
        return None

    @property
    def names(self) -> list[str]:
        return [key.decode().lower() for key, _ in self.fields]

    @property
    def path(self) -> str:
        return self.target.decode("latin-1")

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    @property
    def reason(self) -> str | None:
        """The reason code of a response the proxy made itself."""
        return self.get("x-mesh-reason")


class Reader:
    """Feeds on octets, yields complete messages in `messages`; `partial` is the one being read.

    `role` is what the stream carries: "request" or "response". For responses call `expect(method)` once per request
    sent, since HEAD and CONNECT change what a response means (RFC 9112 6.3).
    """

    def __init__(self, role: str):
        self.role = role
        self.messages: deque[Message] = deque()
        self.partial: Message | None = None
        self.tunnel: bytearray | None = None  # everything after a switch of protocol
        self.ended = False
        self._methods: deque[bytes] = deque()
        self._upgrades = False
        self._buffer = bytearray()
        self._at = 0
        self._run = self._messages()
        next(self._run)

    def expect(self, method: str | bytes) -> None:
        self._methods.append(method.encode() if isinstance(method, str) else method)

    def tunnel_from_here(self) -> None:
        """The peer answered 101 or 2xx to CONNECT: what follows is not HTTP."""
        self.tunnel = self._buffer[self._at :]
        self._buffer.clear()
        self._at = 0

    @property
    def unread(self) -> bytes:
        return bytes(self._buffer[self._at :])

    @property
    def mid_message(self) -> bool:
        return self.tunnel is None and (self.partial is not None or self._at < len(self._buffer))

    def feed(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel += data
            return
        self._buffer += data
        self._run.send(None)
        if self._at > 65536:
            del self._buffer[: self._at]
            self._at = 0

    def feed_end(self) -> None:
        """The stream is over: a close-delimited response is complete, anything else half-read is not."""
        self.ended = True
        if self.tunnel is None and self.partial is not None and self.partial.framing == "close":
            self._finish(self.partial)

    # --- the grammar, as a coroutine that yields whenever it needs more octets -------------------------------------

    def _messages(self):
        yield
        while True:
            while self._at >= len(self._buffer) or self.tunnel is not None:
                yield
            yield from self._message()

    def _message(self):
        start = self._at
        line = yield from self._line("start line")
        message = self._start(line)
        self.partial = message
        while True:
            field_line = yield from self._line("field line")
            if not field_line:
                break
            message.fields.append(self._field(field_line))
            if len(message.fields) > 20000:
                raise WireError("more than 20000 fields")
        del start
        length = self._framing(message)
        if message.framing == "length":
            yield from self._octets(message, length)
        elif message.framing == "chunked":
            yield from self._chunks(message)
        elif message.framing == "close":
            while True:
                if self._at < len(self._buffer):
                    self._take(message, len(self._buffer) - self._at)
                yield
        self._finish(message)
        if self.role == "response" and (message.status == 101 or self._connected):
            self._connected = False
            self.tunnel_from_here()

    _connected = False

    def _start(self, line: bytes) -> Message:
        if self.role == "request":
            match = REQUEST_LINE.fullmatch(line)
            if not match:
                raise WireError(f"not a request line: {line[:120]!r}")
            message = Message(line, [], method=match[1], target=match[2], version=b"1." + match[3])
        else:
            match = STATUS_LINE.fullmatch(line)
            if not match:
                raise WireError(f"not a status line: {line[:120]!r}")
            message = Message(line, [], status=int(match[2]), version=b"1." + match[1])
        message.raw += line + b"\r\n"
        return message

    def _field(self, line: bytes) -> tuple[bytes, bytes]:
        match = FIELD_LINE.fullmatch(line)
        if not match:
            raise WireError(f"not a field line: {line[:120]!r}")
        return match[1], match[2] or b""

    def _framing(self, message: Message) -> int:
        lengths = [v for k, v in message.fields if k.lower() == b"content-length"]
        codings = [v for k, v in message.fields if k.lower() == b"transfer-encoding"]
        if lengths and codings:
            raise WireError("content-length and transfer-encoding together")
        if len(lengths) > 1 or (lengths and not DIGITS.fullmatch(lengths[0])):
            raise WireError(f"content-length: {lengths}")
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or message.version == b"1.0"):
            raise WireError(f"transfer-encoding: {codings} in HTTP/{message.version.decode()}")
        length = int(lengths[0]) if lengths else 0
        if self.role == "request":
            hosts = [v for k, v in message.fields if k.lower() == b"host"]
            if len(hosts) != 1 or not AUTHORITY.fullmatch(hosts[0]):
                raise WireError(f"host: {hosts}")
            message.framing = "chunked" if codings else "length" if lengths else "none"
            return length
        if 100 <= message.status < 200:
            # RFC 9112 6.3 (1): interim responses and 101 end with their head; RFC 9110 8.6, 9112 6.1: and say so.
            if lengths or codings:
                raise WireError(f"{message.status} with a message length")
            message.framing = "none"
            return 0
        method = self._methods.popleft() if self._methods else b"GET"
        if method == b"CONNECT" and 200 <= message.status < 300:
            if lengths or codings:
                raise WireError("2xx to CONNECT with a message length")
            message.framing, self._connected = "none", True
        elif method == b"HEAD" or message.status in (204, 304):
            if message.status == 204 and (lengths or codings):
                raise WireError("204 with a message length")
            message.framing = "none"
        else:
            message.framing = "chunked" if codings else "length" if lengths else "close"
        return length

    def _chunks(self, message: Message):
        while True:
            line = yield from self._line("chunk size")
            message.raw += line + b"\r\n"
            if not CHUNK_SIZE.fullmatch(line):
                raise WireError(f"not a plain chunk size: {line[:60]!r}")
            size = int(line, 16)
            if size == 0:
                break
            yield from self._octets(message, size)
            end = yield from self._line("end of chunk")
            if end:
                raise WireError(f"chunk data not followed by CRLF: {end[:20]!r}")
            message.raw += b"\r\n"
        while True:
            line = yield from self._line("trailer")
            message.raw += line + b"\r\n"
            if not line:
                return
            message.trailers.append(self._field(line))

    def _octets(self, message: Message, wanted: int):
        while wanted:
            have = min(wanted, len(self._buffer) - self._at)
            if have:
                self._take(message, have)
                wanted -= have
            if wanted:
                yield

    def _take(self, message: Message, n: int) -> None:
        part = self._buffer[self._at : self._at + n]
        self._at += n
        message.body_bytes += n
        if len(message.raw) < KEPT_BYTES:
            message.body += part
            message.raw += part
        if self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0

    def _line(self, what: str):
        searched = self._at
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                break
            searched = len(self._buffer)
            if searched - self._at > 1 << 20:
                raise WireError(f"endless {what}")
            before = self._at
            yield
            searched -= before - self._at
        line = bytes(self._buffer[self._at : end])
        self._at = end + 1
        if not line.endswith(b"\r"):
            raise WireError(f"bare LF after {what}: {line[:60]!r}")
        line = line[:-1]
        if b"\r" in line or b"\0" in line:
            raise WireError(f"bare CR or NUL in {what}: {line[:60]!r}")
        if self.partial is not None and what == "field line" and len(self.partial.raw) < KEPT_BYTES:
            self.partial.raw += line + b"\r\n"
        return line

    def _finish(self, message: Message) -> None:
        message.complete = True
        self.partial = None
        self.messages.append(message)


def agrees_with_h11(message: Message) -> str | None:
    """None when h11 reads the same head, body and trailers in a request, else what differs."""
    import h11

    if message.method == b"CONNECT" or len(message.raw) >= KEPT_BYTES:
        return None
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 21)
    server.receive_data(bytes(message.raw))
    body = bytearray()
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                if (event.method, event.target) != (message.method, message.target):
                    return f"h11 reads {event.method!r} {event.target!r}"
                ours = [(k.lower(), v) for k, v in message.fields if k.lower() != b"transfer-encoding"]
                theirs = [(k, v) for k, v in event.headers if k != b"transfer-encoding"]
                if ours != theirs:
                    return f"h11 reads other fields: {theirs} for {ours}"
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if bytes(body) != bytes(message.body):
                    return f"h11 reads another body: {bytes(body[:60])!r}"
                return None
            else:
                return f"h11 stops at {event}"
    except h11.RemoteProtocolError as error:
        return f"h11: {error}"
