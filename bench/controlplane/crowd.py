"""Many watching proxies in one process of their own: when each read what. Judges nothing.

A watcher is a gRPC stream in HTTP/2 over mTLS, written as octets: a client library takes longer for a message than the control
plane does, and a hundred of them would measure themselves. One loop reads all connections and notes the time (CLOCK_MONOTONIC, which
all processes share); what was read is looked into when nothing is left to read.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from meshcore.api import discovery_pb2

from .plane import NAME

BEAT_S = 45.0  # a server ends streams that are silent for a minute; beats of thousands are no part of what a change costs
LONGEST_S = 150.0  # for any one thing: then the run is over, and says where
WINDOW = 2**31 - 1
CLIENT_WINDOW = 65_535  # what a server takes of a stream before it has said more; we do not wait to be told
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
READ_BYTES = 262_144


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _fields(*pairs: tuple[str, str]) -> bytes:
    """A header block of literals (RFC 7541 6.2.2), each shorter than 127 octets."""
    words = (b"\x00" + b"".join(bytes((len(word),)) + word.encode() for word in pair) for pair in pairs)
    return b"".join(words)


def _message(asked: Any) -> bytes:
    octets: bytes = asked.SerializeToString()
    return b"\x00" + len(octets).to_bytes(4, "big") + octets


HELLO = _message(discovery_pb2.Asked(hello=discovery_pb2.Hello(version="bench")))
BEAT = _message(discovery_pb2.Asked(heartbeat=discovery_pb2.Heartbeat()))
PREFACE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(SETTINGS, 0, 0, b"\x00\x04" + WINDOW.to_bytes(4, "big"))
    + _frame(8, 0, 0, (WINDOW - CLIENT_WINDOW).to_bytes(4, "big"))
)
WATCH = _fields(
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/meshcore.discovery.Discovery/Watch"),
    (":authority", NAME),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class _Watching:
    """One connection, and the streams on it."""

    def __init__(self, address: str, context: ssl.SSLContext, streams: int, begins: bytes) -> None:
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), 60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=NAME)
        self.streams = range(1, 2 * streams + 1, 2)
        asked = HELLO + begins
        parts = [PREFACE]
        for stream in self.streams:
            parts.append(_frame(HEADERS, 0x4, stream, WATCH))
            parts += [_frame(DATA, 0, stream, asked[at : at + 16_384]) for at in range(0, len(asked), 16_384)]
        self.socket.sendall(b"".join(parts))
        self.beat_at_s = time.monotonic() + BEAT_S
        self.socket.setblocking(False)
        self._read = bytearray()
        self._messages: dict[int, bytearray] = {stream: bytearray() for stream in self.streams}

    def send(self, octets: bytes) -> None:
        """What fits into any socket's buffer: answers and beats are a few octets."""
        self.socket.setblocking(True)
        self.socket.sendall(octets)
        self.socket.setblocking(False)

    def beat(self) -> None:
        self.beat_at_s = time.monotonic() + BEAT_S
        self.send(b"".join(_frame(DATA, 0, stream, BEAT) for stream in self.streams))

    def read(self, found: list[tuple[float, bytes]]) -> int:
        """Takes what is there; messages that are whole go to `found`. How many streams have ended."""
        lost = 0
        while True:
            try:
                octets = self.socket.recv(READ_BYTES)
            except ssl.SSLWantReadError:
                return lost
            except OSError as error:
                return self._end(len(self.streams), str(error))
            if not octets:
                return self._end(len(self.streams), "the connection was closed")
            at_s = time.monotonic()
            self._read += octets
            while len(self._read) >= 9 and len(self._read) >= 9 + (size := int.from_bytes(self._read[:3], "big")):
                kind, flags, stream = self._read[3], self._read[4], int.from_bytes(self._read[5:9], "big")
                payload = bytes(self._read[9 : 9 + size])
                del self._read[: 9 + size]
                if kind == DATA:
                    self._take(stream, payload, at_s, found)
                elif kind in (SETTINGS, PING) and not flags & 1:
                    self.send(_frame(kind, 1, 0, payload if kind == PING else b""))
                elif kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & 1):
                    lost += self._end(1, f"a frame of type {kind} on stream {stream}: {payload[:200]!r}")

    @staticmethod
    def _end(streams: int, why: str) -> int:
        print(f"lost: {why}", file=sys.stderr, flush=True)
        return streams

    def _take(self, stream: int, payload: bytes, at_s: float, found: list[tuple[float, bytes]]) -> None:
        whole = self._messages[stream]
        whole += payload
        while len(whole) >= 5 and len(whole) >= 5 + (size := int.from_bytes(whole[1:5], "big")):
            found.append((at_s, bytes(whole[5 : 5 + size])))
            del whole[: 5 + size]


class _Crowd:
    """All of them; obeys what comes through a pipe."""

    def __init__(self, pipe: Connection, address: str, member: dict[str, str]) -> None:
        self._pipe = pipe
        self._address = address
        self._context = ssl.create_default_context(cafile=member["roots"])
        self._context.load_cert_chain(member["chain"], member["key"])
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.set_alpn_protocols(["h2"])
        self._all: dict[int, _Watching] = {}
        self._poll = select.epoll()
        self._poll.register(pipe.fileno(), select.EPOLLIN)
        self._found: list[tuple[float, bytes]] = []
        self._names = 0
        self._read_at_s: list[float] = []
        self._lost = 0

    def obey(self) -> None:
        while True:
            self._turn(1.0)
            if self._pipe.poll():
                what, *words = self._pipe.recv()
                if what == "end":
                    return
                if what == "join":
                    self._pipe.send(self._join(*words))
                elif what == "expect":
                    self._look()
                    self._read_at_s.clear()
                    self._pipe.send("ready")
                    self._pipe.send(self._expect(*words))

    def _join(self, connections: int, streams: int, services: Sequence[int]) -> tuple[int, int]:
        """So many more; how many names were told whole, and how many streams were lost, so far."""
        names = [discovery_pb2.Begin(id=number + 1, path=f"s{number}.shop") for number in services]
        begins = b"".join(
            _message(discovery_pb2.Asked(begins=discovery_pb2.Begins(names=names[at : at + 500])))
            for at in range(0, len(names), 500)
        )
        if len(begins) > CLIENT_WINDOW - 1_000:
            raise ValueError(f"{len(names)} names are {len(begins)} octets; expected fewer than {CLIENT_WINDOW}")
        before, lost, deadline_s = self._names, self._lost, time.monotonic() + LONGEST_S
        for _ in range(connections):
            made = _Watching(self._address, self._context, streams, begins)
            self._all[made.socket.fileno()] = made
            self._poll.register(made.socket.fileno(), select.EPOLLIN)
            self._turn(0.0)
        wanted = before + connections * streams * len(names)
        while self._names < wanted and self._lost == lost and time.monotonic() < deadline_s:
            self._turn(0.1)
            self._look()
        return self._names, self._lost

    def _expect(self, updates: int) -> tuple[list[float], int]:
        """When each of so many updates was read, and how many streams were lost so far."""
        deadline_s = time.monotonic() + LONGEST_S
        lost = self._lost
        while len(self._read_at_s) < updates and self._lost == lost and time.monotonic() < deadline_s:
            self._turn(0.1)
        return self._read_at_s[:], self._lost

    def _turn(self, wait_s: float) -> None:
        """Reads what is there; without anything to read, looks into what was read, and shows signs of life."""
        ready = self._poll.poll(0.0 if self._found else wait_s, 256)
        if not ready:
            self._look()
            now_s = time.monotonic()
            for one in self._all.values():
                if one.beat_at_s <= now_s:
                    one.beat()
        for number, _ in ready:
            watching = self._all.get(number)
            if watching is not None and (lost := watching.read(self._found)):
                self._lost += lost
                self._poll.unregister(number)
                del self._all[number]

    def _look(self) -> None:
        for at_s, octets in self._found:
            for change in discovery_pb2.Told.FromString(octets).changes:
                if change.is_whole:
                    self._names += 1
                else:
                    self._read_at_s.append(at_s)
        self._found.clear()


def _run(pipe: Connection, address: str, member: dict[str, str]) -> None:
    _Crowd(pipe, address, member).obey()


class Crowd:
    """The process with the watchers, as the instrument sees it."""

    def __init__(self, address: str, member: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(other, address, member), daemon=True)
        self._process.start()
        other.close()
        self.names = self.lost = 0

    def join(self, connections: int, streams: int, services: Sequence[int]) -> float:
        """So many more connections with so many watchers each; how long until all have been told all names."""
        started_s = time.monotonic()
        wanted = self.names + connections * streams * len(services)
        self._pipe.send(("join", connections, streams, services))
        self.names, self.lost = self._pipe.recv()
        if self.names < wanted or self.lost:
            raise RuntimeError(f"{self.names} names were told of {wanted}, {self.lost} streams lost")
        return time.monotonic() - started_s

    def expect(self, updates: int) -> None:
        """From now on updates count."""
        self._pipe.send(("expect", updates))
        assert self._pipe.recv() == "ready"

    def read(self, updates: int) -> list[float]:
        """When each was read."""
        read_at_s: list[float]
        read_at_s, self.lost = self._pipe.recv()
        if len(read_at_s) < updates or self.lost:
            raise RuntimeError(f"{len(read_at_s)} updates were read of {updates}, {self.lost} streams lost")
        return read_at_s

    def close(self) -> None:
        self._pipe.send(("end",))
        self._process.join(10)
        self._process.kill()
