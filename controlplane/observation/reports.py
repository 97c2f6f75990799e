"""Statistics: the streams by which proxies report what they counted. Owns a stream's life and who may send; the store counts."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Any

from meshcore.api import statistics_pb2, statistics_pb2_grpc
from meshcore.api.statistics_frame import Report, decode

from ..errors import Denied, Invalid
from ..serving.answers import refuse
from ..serving.peers import Peers
from ..serving.streams import Streams
from ..settings import Bounds
from .directory import Directory, Member
from .relays import member_of
from .statistics_store import StatisticsStore

EVERY_MS = 1_000
MAX_LIVES = 20_000  # of proxies, the last that reported; each is a number and a name


class Reports(statistics_pb2_grpc.StatisticsServicer):  # type: ignore[misc]
    """The service."""

    def __init__(
        self, store: StatisticsStore, directory: Directory, peers: Peers, streams: Streams, bounds: Bounds,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.frames = 0
        self.bytes = 0
        self.again = 0
        """Frames that had been counted: a receipt was lost."""
        self.refused = 0
        self._store = store
        self._directory = directory
        self._peers = peers
        self._streams = streams
        self._bounds = bounds
        self._clock = clock
        self._lives: collections.OrderedDict[tuple[str, int], int] = collections.OrderedDict()
        self._draining = False

    async def Report(self, request_iterator: Any, context: Any) -> None:
        try:
            with self._streams.one(peer := self._peers.member(context)):
                member: Member | None = None
                upward = aiter(request_iterator)
                while not self._draining:
                    async with asyncio.timeout(self._bounds.silence_ms / 1000):
                        try:
                            frame = await anext(upward)
                        except StopAsyncIteration:
                            return
                    if member is None:
                        member = member_of(self._directory, peer, frame.workload)
                    # Asked each time: labels may have changed, and the workload may have been registered meanwhile.
                    member = member_of(self._directory, peer, member.key)
                    self.take(member, frame)
                    receipt = statistics_pb2.Receipt(sequence=frame.sequence)
                    receipt.next_after.FromMilliseconds(EVERY_MS)
                    await context.write(receipt)
        except Exception as error:
            await refuse(context, error)

    def take(self, member: Member, frame: statistics_pb2.Frame) -> None:
        """Count a frame, once. Invalid for one that cannot be read: its proxy is not asked for it again."""
        life = (member.key, frame.life)
        if frame.sequence <= self._lives.get(life, 0):
            self.again += 1
            return
        try:
            report = decode(frame.msgpack) if frame.msgpack else Report()
        except ValueError as error:
            self.refused += 1
            raise Invalid(f"statistics of {member.key}: {error}"[:300], ()) from None
        if frame.sequence == 0:
            raise Denied("bad_request", f"{member.key} sent a frame without a sequence")
        if life not in self._lives:
            self._store.close_all(member.key)
        self._lives[life] = frame.sequence
        self._lives.move_to_end(life)
        if len(self._lives) > MAX_LIVES:
            self._lives.popitem(last=False)
        self.frames += 1
        self.bytes += len(frame.msgpack)
        self._store.add(self._clock(), member, report.rows)

    def drain(self) -> None:
        """End every stream at its next frame; proxies keep what was not received."""
        self._draining = True
