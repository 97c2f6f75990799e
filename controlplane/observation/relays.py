"""Relay: the streams by which proxies are told to tap, and send what they see. Owns a stream's life; sessions decide what is seen.

A proxy attaches once per connection. What it sends for a session that is over, or that it was never asked for, is passed over.
Nothing waits here: commands queue up to a bound, and who does not read them is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from meshcore.api import relay_pb2, relay_pb2_grpc
from meshcore.api.tap_wire import event_of
from meshcore.taps import TapEvent

from ..errors import Denied
from ..serving.answers import refuse
from ..serving.peers import Peer, Peers
from ..serving.streams import Streams
from ..settings import Bounds
from .attached import Attached
from .directory import Directory, Member

MAX_COMMANDS = 256  # sessions that begin and end between two writes; a proxy serves eight at a time
MAX_EVENTS_IN_MESSAGE = 1_000


class Receiver(Protocol):
    """Whoever began a session."""

    def take(self, proxy: int, session: int, events: list[TapEvent], hidden: int, dropped: int) -> None: ...

    def ended(self, proxy: int, session: int, why: str) -> None: ...

    def left(self, proxy: int) -> None: ...


class _Stream:
    """One attached proxy."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.commands: asyncio.Queue[relay_pb2.Down] = asyncio.Queue(MAX_COMMANDS)

    def begin(self, session: int, ask: bytes) -> bool:
        down = relay_pb2.Down(begin=relay_pb2.Begin(session=session, ask=relay_pb2.Ask.FromString(ask)))
        return self._put(down)

    def end(self, session: int) -> None:
        self._put(relay_pb2.Down(end=relay_pb2.End(session=session)))

    def _put(self, down: relay_pb2.Down) -> bool:
        try:
            self.commands.put_nowait(down)
        except asyncio.QueueFull:
            return False
        return True


class Relays(relay_pb2_grpc.RelayServicer):  # type: ignore[misc]
    """The service."""

    def __init__(
        self, attached: Attached, directory: Directory, receiver: Receiver, peers: Peers, streams: Streams, bounds: Bounds
    ) -> None:
        self._attached = attached
        self._directory = directory
        self._receiver = receiver
        self._peers = peers
        self._streams = streams
        self._bounds = bounds
        self._draining = asyncio.Event()

    async def Attach(self, request_iterator: Any, context: Any) -> None:
        try:
            with self._streams.one(peer := self._peers.member(context)):
                stream = _Stream(await self._hello(request_iterator, peer))
                number = self._attached.add(stream)
                telling = asyncio.create_task(self._tell(stream, context))
                try:
                    await self._listen(number, request_iterator)
                finally:
                    telling.cancel()
                    self._attached.remove(number)
                    self._receiver.left(number)
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await telling
        except Exception as error:
            await refuse(context, error)

    async def _hello(self, messages: Any, peer: Peer) -> Member:
        async with asyncio.timeout(self._bounds.silence_ms / 1000):
            first = await anext(aiter(messages))
        if first.WhichOneof("what") != "hello":
            raise Denied("bad_request", "a relay began with something else than hello")
        return member_of(self._directory, peer, first.hello.workload)

    async def _listen(self, number: int, messages: Any) -> None:
        """Until the stream ends, or nothing has come for too long."""
        upward = aiter(messages)
        while not self._draining.is_set():
            async with asyncio.timeout(self._bounds.silence_ms / 1000):
                try:
                    up = await anext(upward)
                except StopAsyncIteration:
                    return
            kind = up.WhichOneof("what")
            if kind == "events":
                told = up.events
                found = [event for seen in told.seen[:MAX_EVENTS_IN_MESSAGE] if (event := event_of(seen)) is not None]
                lost = max(0, len(told.seen) - MAX_EVENTS_IN_MESSAGE)
                self._receiver.take(number, told.session, found, told.hidden, told.dropped + lost)
            elif kind == "ended":
                self._receiver.ended(number, up.ended.session, up.ended.reason[:200])

    async def _tell(self, stream: _Stream, context: Any) -> None:
        age_s = self._bounds.stream_age_s * random.uniform(0.9, 1.1)
        until_s = time.monotonic() + age_s
        while not self._draining.is_set() and time.monotonic() < until_s:
            try:
                async with asyncio.timeout(self._bounds.heartbeat_ms / 1000):
                    down = await stream.commands.get()
            except TimeoutError:
                down = relay_pb2.Down(heartbeat=relay_pb2.Heartbeat())
            await context.write(down)
        await context.write(relay_pb2.Down(draining=relay_pb2.Draining(retry_after_ms=1_000)))

    def drain(self) -> None:
        """Tell every proxy to attach elsewhere."""
        self._draining.set()


def member_of(directory: Directory, peer: Peer, workload: str) -> Member:
    """Who a proxy speaks for: its identity is proved; the workload it names must be of that namespace, and is called by the
    account where it names none."""
    if peer.identity is None:
        raise Denied("no_identity", f"{peer.name} is no member of the mesh")
    namespace, slash, name = workload.partition("/")
    if workload and (not slash or namespace != peer.identity.namespace or not 0 < len(name) <= 253):
        raise Denied("not_yours", f"{peer.name} spoke for the workload {workload[:80]!r}")
    return directory.member(peer.identity.namespace, name or peer.identity.account, peer.identity.account)


