"""The stream on which all names of a proxy are watched: said anew on each connection, silent where nothing changed.

Owns the stream, not what is known: that is `watching`, which outlives every connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import grpc.aio

from meshcore.api import discovery_pb2, discovery_pb2_grpc

from .watching import Watched, Watching

SILENCE_S = 30.0  # the server speaks every 10 s
MOST_WAIT_S = 30.0  # whatever it asks for
NAMES_IN_MESSAGE = 1_000  # after a reconnect: some 60 KB, far below what a server takes in one message
MAX_UNSENT = 65_536  # more than every name that may be watched, begun and ended
_log = logging.getLogger("meshcore.agent")


class Discovery:
    """A part of the link. on_leaving: the server asked us to go elsewhere."""

    def __init__(self, watching: Watching, *, version: str, workload: str, on_leaving: Callable[[], None]) -> None:
        self._watching = watching
        self._version = version
        self._workload = workload
        self._on_leaving = on_leaving
        self._asked: asyncio.Queue[discovery_pb2.Asked] | None = None
        self.position = ""
        watching.on_began = self._began
        watching.on_ended = self._ended

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Watch on this channel until the stream ends."""
        asked: asyncio.Queue[discovery_pb2.Asked] = asyncio.Queue(MAX_UNSENT)
        hello = discovery_pb2.Hello(version=self._version, position=self.position, workload=self._workload)
        asked.put_nowait(discovery_pb2.Asked(hello=hello))
        self._asked = asked
        begins = [_begin(watched) for watched in self._watching.all()]
        for first in range(0, len(begins), NAMES_IN_MESSAGE):
            asked.put_nowait(discovery_pb2.Asked(begins=discovery_pb2.Begins(names=begins[first : first + NAMES_IN_MESSAGE])))
        call = discovery_pb2_grpc.DiscoveryStub(channel).Watch()
        writing = asyncio.create_task(self._write(call, asked))
        try:
            await self._read(call)
        finally:
            self._asked = None
            writing.cancel()
            call.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                told = await call.read()
            if told is grpc.aio.EOF:
                return
            if told.position:
                self.position = told.position
            if told.changes:
                self._watching.changed(told.changes)
            if told.HasField("draining"):
                # Spread over as long again: everybody here was told in the same moment.
                await asyncio.sleep(min(told.draining.retry_after_ms / 1000, MOST_WAIT_S) * (1 + random.random()))
                self._on_leaving()
                return

    @staticmethod
    async def _write(call: grpc.aio.StreamStreamCall, asked: asyncio.Queue[discovery_pb2.Asked]) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S / 3):
                    message = await asked.get()
            except TimeoutError:
                message = discovery_pb2.Asked(heartbeat=discovery_pb2.Heartbeat(every_ms=int(SILENCE_S * 1000 / 3)))
            await call.write(message)

    # --- names come and go ---

    def _began(self, watched: Watched) -> None:
        self._say(discovery_pb2.Asked(begin=_begin(watched)))

    def _ended(self, watched: Watched) -> None:
        self._say(discovery_pb2.Asked(end=discovery_pb2.End(id=watched.number)))

    def _say(self, message: discovery_pb2.Asked) -> None:
        if self._asked is not None:
            self._asked.put_nowait(message)  # QueueFull ends the stream, and the next one says everything again


def _begin(watched: Watched) -> discovery_pb2.Begin:
    known = watched.held.answer.digest if watched.held.answer is not None else b""
    return discovery_pb2.Begin(id=watched.number, path=watched.path, known=known)
