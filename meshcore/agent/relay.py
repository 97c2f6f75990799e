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
from meshcore._fastpath import TapLimitError
from meshcore.api import relay_pb2
from meshcore.api.octets import field, number_field
from meshcore.api.tap_wire import filter_of, seen_of
from meshcore.errors import MeshError
from meshcore.taps import TapFilter, TapFilterError, TapSession

# Counts go with events. Alone they go so often: under load they change all the time, and a tap's ceiling lets something through each second.
COUNTS_S = 1.5
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

    def __init__(self, session: TapSession, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.looking: asyncio.TimerHandle | None = None
        self.counting: asyncio.TimerHandle | None = None
        self.told, self.told_s, self.lost = (0, 0), 0.0, 0
        self._loop = loop

    def close(self) -> None:
        for timer in (self.looking, self.counting):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self.session.bell.fd)
        self.session.close()


class Relay:
    """One part of the link. direction_of: "in", "out" or "" by an event's route."""

    def __init__(self, proxy: Tapped, workload: str, version: str, direction_of: Callable[[str], str] = lambda route: "") -> None:
        self._proxy = proxy
        self._hello = relay_pb2.Hello(version=version, workload=workload)
        self._direction_of = direction_of
        self._sessions: dict[int, _Tapped] = {}
        self._up: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)

    @property
    def sessions(self) -> int:
        """That run now."""
        return len(self._sessions)

    async def __call__(self, channel: grpc.aio.Channel) -> None:
        """Attach, and do what is asked until the stream ends."""
        self._up = asyncio.Queue(MAX_WAITING)
        call: Any = channel.stream_stream("/meshcore.relay.Relay/Attach", response_deserializer=relay_pb2.Down.FromString)()
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
        await call.write(relay_pb2.Up(hello=self._hello).SerializeToString())
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    up = await self._up.get()
            except TimeoutError:
                up = relay_pb2.Up(heartbeat=relay_pb2.Heartbeat()).SerializeToString()
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
            self._say(relay_pb2.Up(ended=relay_pb2.Ended(session=number, reason=str(error)[:200])).SerializeToString())
            return
        self._loop = asyncio.get_running_loop()
        tapped = self._sessions[number] = _Tapped(session, self._loop)
        self._loop.add_reader(session.bell.fd, self._rung, number, tapped)
        self._look(number, tapped)
        self._count(number, tapped)

    def _end(self, number: int) -> None:
        if (found := self._sessions.pop(number, None)) is not None:
            found.close()

    def _rung(self, number: int, tapped: _Tapped) -> None:
        """Something came while nothing was there. Callbacks, all of these: as tasks they would cost twice as much."""
        tapped.session.bell.hush()
        if tapped.looking is None:
            tapped.looking = self._loop.call_later(TapSession.GATHER_SECONDS, self._look, number, tapped)

    def _look(self, number: int, tapped: _Tapped) -> None:
        """Hand on what came since the last look, and wait for the bell."""
        tapped.looking = None
        events = tapped.session.take()
        for at in range(0, len(events), MAX_EVENTS_IN_MESSAGE):
            part = events[at : at + MAX_EVENTS_IN_MESSAGE]
            if not self._tell(number, tapped, [seen_of(event, self._direction_of(event.route)) for event in part]):
                tapped.lost += len(part)
        if not tapped.session.arm() and not tapped.session.closed:
            tapped.looking = self._loop.call_later(TapSession.GATHER_SECONDS, self._look, number, tapped)

    def _count(self, number: int, tapped: _Tapped) -> None:
        """Tell counts that no events took along."""
        now_s = self._loop.time()
        if now_s >= tapped.told_s + COUNTS_S and tapped.told != _counts(tapped):
            self._tell(number, tapped, [])
        tapped.counting = self._loop.call_at(max(now_s, tapped.told_s) + COUNTS_S, self._count, number, tapped)

    def _tell(self, number: int, tapped: _Tapped, seen: list[bytes]) -> bool:
        hidden, dropped = counts = _counts(tapped)
        parts = [number_field(1, number), *[field(2, one) for one in seen], number_field(3, dropped), number_field(4, hidden)]
        if not self._say(field(2, b"".join(parts))):
            return False
        tapped.told, tapped.told_s = counts, self._loop.time()
        return True

    def _say(self, up: bytes) -> bool:
        try:
            self._up.put_nowait(up)
        except asyncio.QueueFull:
            return False
        return True


def _counts(tapped: _Tapped) -> tuple[int, int]:
    """Requests that were above the ceiling, and events that were lost."""
    return tapped.session.hidden, tapped.session.dropped + tapped.lost
