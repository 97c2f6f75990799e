"""Discovery: all names of one proxy on one stream. Owns the stream; what is told of a name is its subject's.

A stream remembers the state it told last of each name, and which names have a newer one. It never queues messages: when
the reader is slow, the next one it takes says how things are by then. One message carries as many names as fit.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from meshcore.api import discovery_pb2
from meshcore.api.octets import field, varint

from ..errors import StoreUnavailable
from ..model import Position
from ..resolve import Malformed, State, Subject, View, parse
from ..settings import Bounds
from .answers import refuse
from .peers import Peer, Peers
from .streams import Streams

SERVICE = "meshcore.discovery.Discovery"
MESSAGE_BYTES = 65_536  # names are put into one message up to here; a single one may be longer
MALFORMED, TOO_MANY = 3, 8  # as in gRPC
DRAIN_HINT_MS = 3_000  # proxies come back spread over so long


class Discovery:
    """The service."""

    def __init__(self, view: View, peers: Peers, streams: Streams, bounds: Bounds, cluster_domain: str) -> None:
        self.view = view
        self.bounds = bounds
        self.cluster_domain = cluster_domain
        self.streams: set[Stream] = set()
        self.messages = 0
        self.octets = 0
        self._peers = peers
        self._counted = streams

    async def Watch(self, requests: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            with self._counted.one(peer):
                stream = Stream(self, peer)
                self.streams.add(stream)
                try:
                    await stream.run(requests, context)
                finally:
                    self.streams.discard(stream)
                    stream.end_all()
        except Exception as error:
            await refuse(context, error)

    async def keep_time(self) -> None:
        """Looks after every stream, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.bounds.heartbeat_ms / 4_000))
            now_s = asyncio.get_running_loop().time()
            for stream in tuple(self.streams):
                stream.tick(now_s)

    def drain(self) -> None:
        """Tells everyone to go elsewhere; each stream ends when it has been told."""
        for stream in tuple(self.streams):
            stream.drain()


class _Asked:
    """One name on one stream."""

    __slots__ = ("known", "subject", "told")

    def __init__(self, subject: Subject, known: bytes) -> None:
        self.subject = subject
        self.known = known
        self.told: State | None = None


class Stream:
    """One proxy's watch. Holds per name: its subject, and the state told last."""

    def __init__(self, discovery: Discovery, peer: Peer) -> None:
        self.peer = peer
        self.workload = ""
        self.version = ""
        self._discovery = discovery
        self._bounds = discovery.bounds
        self._asked: dict[int, _Asked] = {}
        self._ids: dict[Subject, set[int]] = {}
        self._due: dict[int, None] = {}  # ids with something to tell, in the order in which it came up
        self._failed: list[bytes] = []
        self._wake = asyncio.Event()
        self._draining = False
        self._is_over = False
        self._beat_is_due = False
        self._writing_since_s = 0.0
        self._heard_at_s = self._told_at_s = self._now_s()
        self._ends_at_s = self._heard_at_s + self._bounds.stream_age_s * random.uniform(0.9, 1.1)
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # gRPC's, of this call

    @property
    def names(self) -> int:
        return len(self._asked)

    async def run(self, requests: Any, context: Any) -> None:
        """Until either side ends it."""
        listening = asyncio.create_task(self._listen(requests))
        try:
            await self._tell(context, listening)
        finally:
            listening.cancel()

    def drain(self) -> None:
        """Says so, and ends."""
        self._draining = True
        self._wake.set()

    def end_all(self) -> None:
        """Watches no name any more."""
        for number in tuple(self._asked):
            self._end(number)

    # -- hearing ----------------------------------------------------------------------------------------------------

    async def _listen(self, requests: Any) -> None:
        is_first = True
        async for asked in requests:
            self._heard_at_s = self._now_s()
            what = asked.WhichOneof("what")
            if is_first:
                is_first = False
                if what != "hello":
                    raise Malformed("the first message on a stream is `hello`")
                await self._hello(asked.hello)
            elif what == "begin":
                self._begin(asked.begin)
            elif what == "begins":
                for begin in asked.begins.names:
                    self._begin(begin)
            elif what == "end":
                self._end(asked.end.id)
            elif what == "hello":
                raise Malformed("`hello` comes once")

    async def _hello(self, hello: Any) -> None:
        self.version, self.workload = hello.version[:64], hello.workload[:320]
        newest = Position.parse(hello.position)
        if not await self._discovery.view.reached(newest, self._bounds.catch_up_ms / 1_000):
            raise StoreUnavailable("this replica is behind what the caller knows")

    def _begin(self, begin: Any) -> None:
        number = begin.id
        if number == 0 or number in self._asked:
            raise Malformed(f"id {number} cannot begin: ids are above 0, and each is in use once")
        if len(self._asked) >= self._bounds.names_per_stream:
            self._fail(number, TOO_MANY, f"a stream has {self._bounds.names_per_stream} names at most")
            return
        own = self.peer.identity.namespace if self.peer.identity is not None else ""
        try:
            target = parse(begin.path, own, self._discovery.cluster_domain)
        except Malformed as error:
            self._fail(number, MALFORMED, str(error))
            return
        subject = self._discovery.view.begin(target, self)
        self._asked[number] = _Asked(subject, begin.known)
        self._ids.setdefault(subject, set()).add(number)
        self._mark(number)

    def _end(self, number: int) -> None:
        asked = self._asked.pop(number, None)
        self._due.pop(number, None)
        if asked is None:
            return  # it was refused, and its end crossed the refusal
        ids = self._ids[asked.subject]
        ids.discard(number)
        if not ids:
            del self._ids[asked.subject]
            self._discovery.view.end(asked.subject, self)

    def _fail(self, number: int, code: int, message: str) -> None:
        failed = discovery_pb2.Failed(code=code, message=message[:300])
        self._failed.append(discovery_pb2.Change(id=number, failed=failed).SerializeToString())
        if len(self._failed) > 1_000:
            raise Malformed("a thousand refused names in a row")
        self._wake.set()

    def changed(self, subject: Subject) -> None:
        """See Watcher."""
        for number in self._ids[subject]:
            self._mark(number)

    def _mark(self, number: int) -> None:
        self._due[number] = None
        self._wake.set()

    # -- telling ----------------------------------------------------------------------------------------------------

    async def _tell(self, context: Any, listening: asyncio.Task[None]) -> None:
        listening.add_done_callback(lambda _: self._wake.set())
        while not self._is_over:
            if listening.done():
                listening.result()  # what went wrong there ends the stream with its reason
                return
            if self._draining:
                await self._write(context, _draining(random.randrange(DRAIN_HINT_MS)))
                return
            self._wake.clear()
            message = self._message() or (self._heartbeat() if self._beat_is_due else b"")
            if message:
                await self._write(context, message)
            else:
                await self._wake.wait()

    async def _write(self, context: Any, message: bytes) -> None:
        self._discovery.messages += 1
        self._discovery.octets += len(message)
        self._beat_is_due = False
        self._told_at_s = self._writing_since_s = self._now_s()
        await context.write(message)
        self._writing_since_s = 0.0

    def tick(self, now_s: float) -> None:
        """Once a second: whether a heartbeat is due, and whether the other side is still there.

        One clock for all streams: a timer for each write and each wait would cost more than what is written.
        """
        silence_s = self._bounds.silence_ms / 1_000
        if self._writing_since_s and now_s - self._writing_since_s > silence_s:
            self._task.cancel()  # it does not read: nothing else ends a write
        elif now_s - self._heard_at_s > silence_s:
            self._is_over = True
            self._wake.set()
        elif now_s > self._ends_at_s:
            self.drain()
        elif now_s - self._told_at_s >= self._bounds.heartbeat_ms / 1_000:
            self._beat_is_due = True
            self._wake.set()

    def _message(self) -> bytes:
        """As much as fits of what is due; empty when nothing is."""
        parts = [field(2, one) for one in self._failed]
        self._failed.clear()
        size = 0
        while self._due and size < MESSAGE_BYTES:
            number = next(iter(self._due))
            del self._due[number]
            if change := self._change(self._asked[number]):
                parts.append(field(2, b"\x08" + varint(number) + change))
                size += len(parts[-1])
        if not parts:
            return b""
        return b"".join((field(1, str(self._discovery.view.position).encode()), *parts))

    def _change(self, asked: _Asked) -> bytes:
        told, asked.told = asked.told, asked.subject.state
        if told is None and asked.known and asked.known == asked.subject.state.digest:
            asked.known = b""
            return b"\x30\x01"  # is_current = 6
        return b"" if told is asked.subject.state else asked.subject.change(told)

    def _heartbeat(self) -> bytes:
        position = str(self._discovery.view.position)
        beat = discovery_pb2.Heartbeat(every_ms=self._bounds.heartbeat_ms)
        octets: bytes = discovery_pb2.Told(position=position, heartbeat=beat).SerializeToString()
        return octets

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _draining(retry_after_ms: int) -> bytes:
    draining = discovery_pb2.Draining(retry_after_ms=retry_after_ms)
    octets: bytes = discovery_pb2.Told(draining=draining).SerializeToString()
    return octets
