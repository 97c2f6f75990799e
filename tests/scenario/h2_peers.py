"""One end of an HTTP/2 connection for tests: sends any frames, reads strictly. Owns its socket; knows no proxy.

`H2Client` connects, `H2Server` is a RawServer whose scripts get an `H2ServerConnection`:

    def refusing(connection):
        request = connection.next_request()
        connection.send(h2.rst_stream(request.stream, h2.REFUSED_STREAM))

What a peer sends by itself can be switched off: `acknowledges` (SETTINGS and PING), `opens_windows`, `reads`.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Callable

import hpack

from tests.scenario import h2_frames as h2
from tests.scenario import h2_hpack
from tests.scenario.clients import PIECE_GAP_S
from tests.scenario.h2_frames import Frame
from tests.scenario.h2_wire import H2Message, H2Reader
from tests.scenario.servers import PATIENCE_S, PeerGone, RawServer, ServerConnection, Script, reset
from tests.scenario.wire import WireError


class StreamReset(AssertionError):
    """The other side reset the stream that something was awaited on."""


class H2Peer:
    """Verbs of both ends. `end` is None while the other side may still send, then "fin" or "rst"."""

    role: str

    def __init__(self, sock: socket.socket, other: str):
        self.sock = sock
        self.reader = H2Reader(other)
        self.encoder = hpack.Encoder()
        self.acknowledges = self.opens_windows = self.reads = True
        self.patience_s = PATIENCE_S
        self.end: str | None = None
        self.refused = False  # the other side would not take all we sent
        self.seen: list[Frame] = []  # every frame in order, DATA without its payload
        self.window = h2.DEFAULT_WINDOW_BYTES
        self._windows: dict[int, int] = {}
        self._first_window = h2.DEFAULT_WINDOW_BYTES
        self._largest_frame = h2.DEFAULT_FRAME_BYTES
        self.holds_replies = False  # something of ours is cut inside a frame: nothing may come between
        self._held = bytearray()
        self._bodies: dict[int, tuple[memoryview, bool, list | None]] = {}
        self._came = bytearray()
        sock.settimeout(None)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # --- octets ------------------------------------------------------------------------------------------------------

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        """All of these octets; what comes meanwhile is read, so that two full pipes never wait for each other."""
        deadline = time.monotonic() + (timeout_s or self.patience_s)
        rest = memoryview(data)
        while len(rest) and not self.refused:
            readable = [self.sock] if self.reads and not self.end else []
            ready, writable, _ = select.select(readable, [self.sock], [], max(0.0, deadline - time.monotonic()))
            if ready:
                self._receive()
            if writable:
                try:
                    rest = rest[self.sock.send(rest) :]
                except BlockingIOError:
                    pass
                except (BrokenPipeError, ConnectionResetError, OSError):
                    self.refused = True
            elif not ready:
                raise TimeoutError(f"{len(rest)} octets were not taken")

    def send_pieces(self, pieces: list[bytes], gap_s: float = PIECE_GAP_S) -> None:
        for piece in pieces:
            self.send(piece)
            if gap_s and not self.refused:
                time.sleep(gap_s)

    def _receive(self) -> bool:
        """One read into the waiting octets; False when nothing more will come."""
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return True
        except OSError:
            data, self.end = b"", "rst"
        if not data:
            self.end = self.end or "fin"
            return False
        self._came += data
        return True

    def pump(self, timeout_s: float) -> bool:
        """Read once, waiting at most so long, and react to what came; False when nothing did."""
        if not self._came and not self.end and select.select([self.sock], [], [], max(0.0, timeout_s))[0]:
            self._receive()
        if not self._came:
            return False
        data, self._came = bytes(self._came), bytearray()
        try:
            self.reader.feed(data)
        finally:
            while self.reader.frames:
                self._react(self.reader.frames.popleft())
        return True

    def wait(self, claim: Callable[[], object], what: str = "it", timeout_s: float | None = None) -> None:
        """Read until `claim()` holds. Ends with an AssertionError when the connection does, TimeoutError when nothing comes."""
        deadline = time.monotonic() + (timeout_s or self.patience_s)
        while not claim():
            if self.end and not self._came:
                raise AssertionError(f"connection ended ({self.end}) before {what}; frames: {self.seen[-8:]}")
            if not self.pump(deadline - time.monotonic()) and not self.end and time.monotonic() >= deadline:
                raise TimeoutError(f"{what} did not come; frames: {self.seen[-8:]}")

    def _react(self, frame: Frame) -> None:
        self.seen.append(frame if frame.type != h2.DATA else frame._replace(payload=b""))
        if frame.type == h2.SETTINGS and not frame.flags & h2.ACK:
            self._take_settings()
            if self.acknowledges:
                self._reply(h2.settings(ack=True))
        elif frame.type == h2.PING and not frame.flags & h2.ACK and self.acknowledges:
            self._reply(h2.ping(frame.payload, ack=True))
        elif frame.type == h2.WINDOW_UPDATE:
            increment = int.from_bytes(frame.payload, "big")
            if frame.stream:
                self._windows[frame.stream] = self.stream_window(frame.stream) + increment
            else:
                self.window += increment
            self._flush()
        elif frame.type == h2.DATA and self.opens_windows and frame.payload:
            open_still = not frame.flags & h2.END_STREAM
            self.open_window(frame.stream if open_still else 0, len(frame.payload))

    def _reply(self, frames: bytes) -> None:
        if self.holds_replies:
            self._held += frames
        else:
            self.send(frames)

    def release_replies(self) -> None:
        """The octets of ours are whole frames again."""
        self.holds_replies, held = False, bytes(self._held)
        self._held.clear()
        if held:
            self.send(held)

    def _take_settings(self) -> None:
        values = self.reader.settings
        first = values.get(h2.INITIAL_WINDOW_SIZE, self._first_window)
        self._windows = {stream: window + first - self._first_window for stream, window in self._windows.items()}
        self._first_window = first
        self._largest_frame = values.get(h2.MAX_FRAME_SIZE, self._largest_frame)
        if h2.HEADER_TABLE_SIZE in values:
            self.encoder.header_table_size = min(4096, values[h2.HEADER_TABLE_SIZE])
        self._flush()

    def stream_window(self, stream: int) -> int:
        return self._windows.setdefault(stream, self._first_window)

    # --- verbs of sending --------------------------------------------------------------------------------------------

    def send_settings(self, values: dict[int, int] | None = None) -> None:
        self.reader.receiver_sent_settings(values or {})
        self.send(h2.settings(values or {}))

    def open_window(self, stream: int, increment: int) -> None:
        """Let the other side send so much more: on the connection, and on the stream unless it is 0."""
        frames = b""
        for target in {0, stream}:
            self.reader.receiver_sent_window(target, increment)
            frames += h2.window_update(target, increment)
        self._reply(frames)

    def send_headers(self, stream: int, fields, *, end_stream: bool = False) -> None:
        """A field section, through the table; in HEADERS and CONTINUATION of legal sizes."""
        block = self.encoder.encode([(h2_hpack.octets(name), h2_hpack.octets(value)) for name, value in fields])
        parts = [block[at : at + self._largest_frame] for at in range(0, len(block), self._largest_frame)] or [b""]
        frames = h2.headers(stream, parts[0], end_stream=end_stream, end_headers=len(parts) == 1)
        for part in parts[1:]:
            frames += h2.continuation(stream, part, end_headers=part is parts[-1])
        if end_stream:
            self.reader.receiver_ended(stream)
        self.send(frames)

    def send_data(self, stream: int, payload: bytes = b"", *, end_stream: bool = False) -> None:
        """One DATA frame, whatever the windows say; they are charged."""
        self.window -= len(payload)
        self._windows[stream] = self.stream_window(stream) - len(payload)
        if end_stream:
            self.reader.receiver_ended(stream)
        self.send(h2.data(stream, payload, end_stream=end_stream))

    def queue_body(self, stream: int, body: bytes, *, end_stream: bool = True, trailers=None) -> None:
        """Send as the windows allow, now and whenever they open, behind what still waits; trailers or END_STREAM after it."""
        waiting = self._bodies.pop(stream, (b"",))[0]
        self._bodies[stream] = (memoryview(bytes(waiting) + body), end_stream, trailers)
        self._flush()

    def send_body(self, stream: int, body: bytes, *, end_stream: bool = True, trailers=None) -> None:
        """The same, and wait until all of it is sent."""
        self.queue_body(stream, body, end_stream=end_stream, trailers=trailers)
        self.wait(lambda: stream not in self._bodies or self.was_reset(stream), f"window for all of the body on stream {stream}")
        if stream in self._bodies:
            del self._bodies[stream]
            raise StreamReset(f"stream {stream} was reset: {h2.error_name(self.reader.streams[stream].reset)}")

    def was_reset(self, stream: int) -> bool:
        return stream in self.reader.streams and self.reader.streams[stream].reset is not None

    def _flush(self) -> None:
        for stream, (rest, ends, trailers) in list(self._bodies.items()):
            while True:
                size = min(len(rest), self.window, self.stream_window(stream), self._largest_frame)
                if rest and size <= 0:
                    self._bodies[stream] = (rest, ends, trailers)
                    break
                part, rest = bytes(rest[: max(size, 0)]), rest[max(size, 0) :]
                last = not rest and ends and not trailers
                if part or last:
                    self.send_data(stream, part, end_stream=last)
                if not rest:
                    self._bodies.pop(stream, None)
                    if trailers:
                        self.send_headers(stream, trailers, end_stream=True)
                    break

    def reset_stream(self, stream: int, error: int = h2.CANCEL) -> None:
        self.reader.receiver_sent_reset(stream)
        self._bodies.pop(stream, None)
        self.send(h2.rst_stream(stream, error))

    # --- verbs of reading --------------------------------------------------------------------------------------------

    def expect(self, kind: int, *, stream: int | None = None, flags: int = 0, timeout_s: float | None = None) -> Frame:
        """The first frame of a kind since the last `expect` of it; other frames may come before."""
        taken = self.__dict__.setdefault("_expected", {})
        found: list[Frame] = []

        def come() -> bool:
            for at in range(taken.get((kind, stream), 0), len(self.seen)):
                frame = self.seen[at]
                if frame.type == kind and stream in (None, frame.stream) and frame.flags & flags == flags:
                    taken[(kind, stream)] = at + 1
                    found.append(frame)
                    return True
            return False

        self.wait(come, f"{h2.TYPE_NAMES[kind]} on {stream}", timeout_s)
        return found[0]

    def read_to_end(self, timeout_s: float | None = None) -> str:
        """Read until the other side stops; how it did: "fin" or "rst"."""
        deadline = time.monotonic() + (timeout_s or self.patience_s)
        while not self.end or self._came:
            if not self.pump(deadline - time.monotonic()) and not self.end and time.monotonic() >= deadline:
                raise TimeoutError(f"the connection stayed open; frames: {self.seen[-8:]}")
        return self.end

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset_connection(self) -> None:
        reset(self.sock)


class H2Client(H2Peer):
    """A client connection. With `greet` it has sent the preface and its SETTINGS."""

    role = "client"

    def __init__(self, address: tuple[str, int], *, settings: dict[int, int] | None = None, greet: bool = True, receive_buffer: int = 0):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        super().__init__(sock, "server")
        self.next_stream = 1
        if greet:
            self.send(h2.PREFACE)
            self.send_settings(settings)

    def open(self, method: str = "GET", path: str = "/", fields=(), *, end_stream: bool = True, authority: str | None = "a.test",
             scheme: str | None = "http") -> int:
        """Open a stream with a request head; the stream's number."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        pairs = fields.items() if isinstance(fields, dict) else fields
        request = h2_hpack.request(method, None if method == "CONNECT" else path, authority=authority,
                                   scheme=None if method == "CONNECT" else scheme, extra=pairs)
        self.reader.expect(stream, method)
        self.send_headers(stream, request, end_stream=end_stream)
        return stream

    def request(self, method: str = "GET", path: str = "/", fields=(), body: bytes | None = None, *, trailers=None, **options) -> int:
        """Send a whole request, its body as the windows allow; the stream's number."""
        stream = self.open(method, path, fields, end_stream=body is None and not trailers, **options)
        if body is not None or trailers:
            self.queue_body(stream, body or b"", trailers=trailers)
        return stream

    def response_head(self, stream: int, timeout_s: float | None = None) -> H2Message:
        """The final response's head, its body perhaps still to come."""
        self.wait(lambda: (m := self.reader.streams.get(stream)) and (m.fields or m.ended), f"a response head on stream {stream}", timeout_s)
        return self.reader.streams[stream]

    def response(self, stream: int, timeout_s: float | None = None) -> H2Message:
        """The complete response on a stream."""
        self.wait(lambda: (m := self.reader.streams.get(stream)) and m.ended, f"a response on stream {stream}", timeout_s)
        message = self.reader.streams[stream]
        if not message.complete:
            raise StreamReset(f"stream {stream} was reset: {h2.error_name(message.reset)}")
        return message

    def get(self, path: str = "/", fields=(), **options) -> H2Message:
        return self.response(self.request("GET", path, fields, **options))

    def post(self, path: str = "/", body: bytes = b"", fields=(), **options) -> H2Message:
        return self.response(self.request("POST", path, fields, body, **options))

    def reset_code(self, stream: int, timeout_s: float | None = None) -> int:
        """The code with which the other side resets the stream. It must."""
        self.wait(lambda: self.was_reset(stream), f"RST_STREAM on {stream}", timeout_s)
        return self.reader.streams[stream].reset


class H2ServerConnection(H2Peer, ServerConnection):
    """One accepted connection, as a script sees it."""

    role = "server"

    def __init__(self, sock: socket.socket, number: int, server: RawServer):
        H2Peer.__init__(self, sock, "client")
        self.number = number
        self.server = server
        self.closed = False
        self._taken: set[int] = set()

    def greet(self, settings: dict[int, int] | None = None) -> None:
        """The server's preface. `H2Server` sends it before the script, unless told not to."""
        self.send_settings(settings)

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        super().send(data, timeout_s)
        if self.refused:
            raise PeerGone

    def next_request(self, *, complete: bool = True) -> H2Message:
        """The next request nobody has taken: whole, or with `complete=False` as soon as its head is there."""
        while True:
            begun = [] if complete else [m for m in self.reader.streams.values() if m.fields and m.reset is None]
            while begun or self.reader.completed:
                message = begun.pop(0) if begun else self.reader.completed.popleft()
                if message.stream not in self._taken:
                    self._taken.add(message.stream)
                    message.connection = self.number
                    self.server._note(message)
                    return message
            if self.end and not self._came:
                raise PeerGone
            if not self.pump(self.patience_s) and not self.end:
                raise TimeoutError

    def respond(self, stream: int, status: int = 200, body: bytes = b"ok", fields=(), *, trailers=None, wait: bool = False) -> None:
        """A whole response, its body as the windows allow."""
        pairs = list(fields.items() if isinstance(fields, dict) else fields)
        head = [(":status", str(status)), *pairs]
        self.send_headers(stream, head, end_stream=not body and not trailers)
        if body or trailers:
            (self.send_body if wait else self.queue_body)(stream, body, trailers=trailers)

    def answer(self, status: int = 200, body: bytes = b"ok", fields=(), **options) -> H2Message:
        """Take one whole request, answer it."""
        request = self.next_request()
        self.respond(request.stream, status, b"" if request.method == "HEAD" or status in (204, 304) else body, fields, **options)
        return request

    def wait_reset(self, stream: int) -> int:
        """Wait until the other side gives the stream up: its code."""
        self.wait(lambda: self.was_reset(stream), f"RST_STREAM on {stream}")
        return self.reader.streams[stream].reset

    def wait_closed(self) -> str:
        return self.read_to_end()

    def close(self) -> None:
        self.closed = True
        self.sock.close()

    def reset(self) -> None:
        self.closed = True
        reset(self.sock)


def answer_all_h2(connection: H2ServerConnection) -> None:
    while True:
        connection.answer()


class H2Server(RawServer):
    """A listening HTTP/2 server over cleartext, scripted like RawServer. Every script starts greeted unless `greets` is off."""

    connection_type = H2ServerConnection

    def __init__(self, script: Script | None = None, *, settings: dict[int, int] | None = None, greets: bool = True, **options):
        inner = script or answer_all_h2

        def run(connection: H2ServerConnection) -> None:
            try:
                if greets:
                    connection.greet(settings)
                inner(connection)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise PeerGone from error

        super().__init__(run, **options)

    def _note(self, message: H2Message) -> None:
        with self._changed:
            self.requests.append(message)
            self._changed.notify_all()


__all__ = ["H2Client", "H2Peer", "H2Server", "H2ServerConnection", "StreamReset", "WireError", "answer_all_h2"]
