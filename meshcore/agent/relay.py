"""Relay: taps that the control plane asks of this proxy, and what they see, on a stream that we opened.

The engine matches, limits and captures, secrets are hidden here, and only then anything leaves the proxy. What the stream is too slow
for is dropped and counted. A session ends with its stream: whoever watched asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import grpc.aio
import msgspec

from meshcore._fastpath import TapLimitError
from meshcore.api import relay_pb2, relay_pb2_grpc
from meshcore.api.tap_wire import filter_of, seen_of
from meshcore.errors import MeshError
from meshcore.taps import TapEvent, TapFilter, TapFilterError, TapSession

# A line is to be seen within 100 ms of its request: 50 ms here at most, the rest is for the way.
LOOK_S = 0.05
COUNTS_S = 0.9
MAX_EVENTS_IN_MESSAGE = 500
MAX_WAITING = 64  # messages: with the ones above, more than a stream of a slow reader is worth
HEARTBEAT_S = 10.0
SILENCE_S = 30.0
_log = logging.getLogger("meshcore.agent")


class Tapped(Protocol):
    """What can be tapped: a Proxy."""

    def tap(self, filter: TapFilter | None = None, /) -> TapSession: ...


class _Tapped:
    """A session that runs, and what was told of it."""

    def __init__(self, session: TapSession) -> None:
        self.session = session
        self.timer: asyncio.TimerHandle | None = None
        self.told, self.told_s, self.lost = (0, 0), 0.0, 0

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.session.close()


class Relay:
    """One part of the link. direction_of: "in", "out" or "" by an event's route."""

    def __init__(self, proxy: Tapped, workload: str, version: str, direction_of: Callable[[str], str] = lambda route: "") -> None:
        self._proxy = proxy
        self._hello = relay_pb2.Hello(version=version, workload=workload)
        self._direction_of = direction_of
        self._sessions: dict[int, _Tapped] = {}
        self._up: asyncio.Queue[relay_pb2.Up] = asyncio.Queue(MAX_WAITING)

    @property
    def sessions(self) -> int:
        """That run now."""
        return len(self._sessions)

    async def __call__(self, channel: grpc.aio.Channel) -> None:
        """Attach, and do what is asked until the stream ends."""
        self._up = asyncio.Queue(MAX_WAITING)
        call = relay_pb2_grpc.RelayStub(channel).Attach()
        sending = asyncio.create_task(self._send(call))
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    down = await call.read()
                if down is grpc.aio.EOF:
                    return
                kind = down.WhichOneof("what")
                if kind == "begin":
                    self._begin(down.begin.session, down.begin.ask)
                elif kind == "end":
                    self._end(down.end.session)
                elif kind == "draining":
                    return
        finally:
            sending.cancel()
            call.cancel()
            for number in list(self._sessions):
                self._end(number)
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Any) -> None:
        await call.write(relay_pb2.Up(hello=self._hello))
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    up = await self._up.get()
            except TimeoutError:
                up = relay_pb2.Up(heartbeat=relay_pb2.Heartbeat())
            await call.write(up)

    def _begin(self, number: int, ask: relay_pb2.Ask) -> None:
        if number in self._sessions:
            # The same again with another ceiling: this proxy's share of it has changed.
            with contextlib.suppress(TapFilterError):
                self._sessions[number].session.limit(filter_of(ask).max_rps)
            return
        try:
            session = self._proxy.tap(filter_of(ask))
        except (TapFilterError, TapLimitError, MeshError) as error:
            # A cluster or a route that only other proxies have, or too many taps: this proxy has nothing to show.
            _log.info("tap %d: %s", number, error)
            self._say(relay_pb2.Up(ended=relay_pb2.Ended(session=number, reason=str(error)[:200])))
            return
        self._loop = asyncio.get_running_loop()
        self._sessions[number] = _Tapped(session)
        self._look(number)

    def _end(self, number: int) -> None:
        if (found := self._sessions.pop(number, None)) is not None:
            found.close()

    def _look(self, number: int) -> None:
        """Hand on what came since the last look, and look again later. A callback: as a task it would cost twice as much."""
        tapped = self._sessions.get(number)
        if tapped is None:
            return
        tapped.timer = self._loop.call_later(LOOK_S, self._look, number)
        events = tapped.session.take()
        # Counts alone can wait: under load they change with each look.
        if not events and self._loop.time() < tapped.told_s + COUNTS_S:
            return
        hidden, dropped = tapped.session.hidden, tapped.session.dropped + tapped.lost
        if not events and tapped.told == (hidden, dropped):
            return
        for at in range(0, max(1, len(events)), MAX_EVENTS_IN_MESSAGE):
            part = events[at : at + MAX_EVENTS_IN_MESSAGE]
            seen = [seen_of(self._directed(event)) for event in part]
            message = relay_pb2.Events(session=number, seen=seen, hidden=hidden, dropped=dropped)
            if self._say(relay_pb2.Up(events=message)):
                tapped.told, tapped.told_s = (hidden, dropped), self._loop.time()
            else:
                tapped.lost += len(part)

    def _directed(self, event: TapEvent) -> TapEvent:
        direction = self._direction_of(event.route)
        return msgspec.structs.replace(event, direction=direction) if direction else event

    def _say(self, up: relay_pb2.Up) -> bool:
        try:
            self._up.put_nowait(up)
        except asyncio.QueueFull:
            return False
        return True
