"""What a case says to the proxy: frames in any cut, and what came back. Owns the feeding; judges nothing.

Every octet of a case passes `Talk.send`, so that one case is fed in one piece, octet by octet, or cut at random places.
"""

from __future__ import annotations

import random
import select
import time
from typing import Callable, Iterable

from tests.scenario import clients, h2_frames as h2
from tests.scenario.h2_hpack import request, stateless
from tests.scenario.h2_peers import H2Client
from tests.scenario.h2_wire import H2Message

FEEDINGS = ("one-shot", "bytewise", "random")
GREETING = h2.PREFACE + h2.settings()

Steps = Callable[["Talk"], None]


def pieces(data: bytes, feeding: str, rng: random.Random) -> list[bytes]:
    if feeding == "bytewise":
        return clients.every_byte(data)
    if feeding == "random":
        return clients.random_pieces(data, rng)
    return [data]


def get(stream: int = 1, path: str = "/case", **options) -> bytes:
    """HEADERS of a whole GET, through no table."""
    return h2.headers(stream, stateless(request(path=path, **options)))


def post(stream: int = 1, path: str = "/case", extra=(), **options) -> bytes:
    """HEADERS of a POST whose body is to come."""
    return h2.headers(stream, stateless(request("POST", path, extra=extra)), end_stream=False, **options)


class Talk:
    """One case on one connection."""

    def __init__(self, address: tuple[str, int], feeding: str, seed: str, patience_s: float):
        self.feeding = feeding
        self.rng = random.Random(seed)
        self.client = H2Client(address, greet=False)
        self.client.patience_s = patience_s
        self.greeted = False
        self.sentinel_due = True
        self.block_open = False  # a header block of ours is unfinished: nothing may follow it
        self.method = "GET"  # of the streams that are opened next, for the reading of their answers
        self.ignored_streams: set[int] = set()  # whose outcome is not the case's
        self.facts: dict[str, object] = {}  # what steps found, for their claims
        self.opened: set[int] = set()
        self.http1_answer = b""

    # --- sending -----------------------------------------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Octets without a greeting before them."""
        self.greeted = True
        self._feed(data)

    def send(self, *frames: bytes) -> None:
        data = b"".join(frames)
        if not self.greeted:
            self.greeted = True
            data = GREETING + data
        self._feed(data)

    def greet(self, settings: dict[int, int] | Iterable[tuple[int, int]] = ()) -> None:
        """The preface with settings of the case's own."""
        self.raw(h2.PREFACE + h2.settings(settings))

    def _feed(self, data: bytes) -> None:
        self._tell_reader(data)
        self.client.send_pieces(pieces(data, self.feeding, self.rng), 0 if self.feeding == "one-shot" else clients.PIECE_GAP_S)

    def flood(self, frames: Iterable[bytes], *, read: bool = True, at_once: int = 65536) -> None:
        """Send until the iterable ends or the proxy does: cut every `at_once` octets, or at random."""
        self.client.reads = read
        self.client.holds_replies = True
        buffer = bytearray()
        try:
            for octets in frames:
                self._tell_reader(octets)
                buffer += octets
                size = self.rng.randint(1, at_once) if self.feeding == "random" else at_once
                if len(buffer) >= size:
                    self._pour(buffer, size)
                if self.ended:
                    return
            while buffer and not self.ended:
                self._pour(buffer, len(buffer))
        except TimeoutError:
            self.block_open = True  # the cut may be inside a frame
        finally:
            self.client.reads = True
        if not self.block_open and not self.ended:
            self.client.release_replies()

    def _pour(self, buffer: bytearray, size: int) -> None:
        data = bytes(buffer[:size])
        del buffer[:size]
        self.client.send(data)
        if self.client.reads:
            self.client.pump(0)

    def _tell_reader(self, data: bytes) -> None:
        """Let the strict reader know what these octets allow the other side. What is malformed allows nothing."""
        reader, at = self.client.reader, len(h2.PREFACE) if data.startswith(h2.PREFACE) else 0
        while found := h2.first_frame(data[at : at + 9 + int.from_bytes(data[at : at + 3], "big")]):
            frame, length = found
            at += length
            stream = frame.stream & 0x7FFFFFFF
            if frame.type == h2.HEADERS and stream:
                if stream not in self.opened:
                    reader.expect(stream, self.method)
                self.opened.add(stream)
            elif frame.type == h2.SETTINGS and not frame.flags and not frame.stream and not len(frame.payload) % 6:
                pairs = [frame.payload[i : i + 6] for i in range(0, len(frame.payload), 6)]
                reader.receiver_sent_settings({int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs})
            elif frame.type == h2.WINDOW_UPDATE and len(frame.payload) == 4:
                reader.receiver_sent_window(stream, int.from_bytes(frame.payload, "big"))
            elif frame.type == h2.RST_STREAM and stream:
                reader.receiver_sent_reset(stream)
            if frame.flags & h2.END_STREAM and frame.type in (h2.HEADERS, h2.DATA):
                reader.receiver_ended(stream)

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return bool(self.client.refused or self.client.end or self.client.reader.goaway)

    def message(self, stream: int) -> H2Message | None:
        return self.client.reader.streams.get(stream)

    def wait_response(self, stream: int = 1) -> None:
        """Until the stream is over, or the connection is."""
        self._until(lambda: (m := self.message(stream)) and m.ended)

    def wait_settings(self) -> dict[int, int]:
        """The server's SETTINGS."""
        self._until(lambda: self.client.reader.got_settings)
        return self.client.reader.settings

    def wait_quiet(self, quiet_s: float = 0.15) -> None:
        """Until nothing has come for a while. For proxies that stop reading, which no frame tells of."""
        last = time.monotonic()
        while time.monotonic() - last < quiet_s and not self.client.end:
            if self.client.pump(0.02):
                last = time.monotonic()

    def read_plain(self) -> None:
        """What comes where the other side may not take this for HTTP/2 at all."""
        client = self.client
        while not client.end and self._readable():
            client._receive()
        if client._came.startswith(b"HTTP/1."):
            self.http1_answer, client._came = bytes(client._came), bytearray()

    def _readable(self) -> bool:
        return bool(select.select([self.client.sock], [], [], self.client.patience_s)[0])

    def _until(self, claim: Callable[[], object], timeout_s: float | None = None) -> bool:
        deadline = time.monotonic() + (timeout_s or self.client.patience_s)
        while not claim():
            if self.client.end and not self.client._came or time.monotonic() > deadline:
                return False
            self.client.pump(min(0.05, max(0.0, deadline - time.monotonic())))
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self, sentinel: int) -> None:
        """A sentinel behind the case, so that nothing waits for "nothing more comes"; then everything until it is answered."""
        client = self.client
        opened = self.opened - self.ignored_streams
        if self.sentinel_due and not self.block_open and not self.ended:
            probe = h2.ping(b"sentinel") + get(sentinel, "/sentinel")
            self._tell_reader(probe)
            client.send(probe)

        def over() -> bool:
            if not self.sentinel_due or self.block_open:
                return False
            answered = (m := self.message(sentinel)) is not None and m.ended
            return answered and all(
                (m := self.message(s)) is not None and m.ended or s in client.reader.closed_by_receiver for s in opened)

        self._until(over, client.patience_s)
        if client.reader.goaway is not None and client.reader.goaway.error:
            self._until(lambda: False, 2.0)  # after a connection error the connection must end, too

    def close(self) -> None:
        self.client.close()
