"""Streams of namerd's HTTP interface: one value a line, chunked, heartbeats where they are asked for. Knows no value.

A plain `?watch=true` is as namerd's. `&heartbeat=10` adds an empty line whenever nothing was said for so many seconds, so that
a reader knows a quiet stream from a dead one (linkerd/linkerd#2219); readers of JSON lines skip it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

MOST_WATCHES = 20_000
"""Of one interface: each is a connection and some 10 KiB."""
STALLED_S = 60.0
"""A reader whose connection takes nothing for so long is cut off."""
HEARTBEAT_S = (1, 300)


class Watches:
    """All that are open."""

    def __init__(self) -> None:
        self.open = self.begun = self.lines = self.stalled = 0
        self._tasks: set[asyncio.Task[object]] = set()

    async def stream(self, request: web.Request, kind: str, values: AsyncIterator[bytes]) -> web.StreamResponse:
        """Writes each value as a line until the reader goes, the values end, or the server closes."""
        heartbeat_s = heartbeat_of(request)
        if self.open >= MOST_WATCHES:
            raise web.HTTPServiceUnavailable(reason=f"more than {MOST_WATCHES} watches are open")
        answer = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-store"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        self.open += 1
        self.begun += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        told = _Told()
        beating = asyncio.create_task(_beat(answer, told, heartbeat_s)) if heartbeat_s else None
        try:
            async for line in values:
                self.lines += 1
                told.lines += 1
                async with asyncio.timeout(STALLED_S):
                    await answer.write(line + b"\n")
        except TimeoutError:
            self.stalled += 1
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            if beating is not None:
                beating.cancel()
            if hasattr(values, "aclose"):
                await values.aclose()
        return answer

    def close(self) -> None:
        """Ends every stream; their readers come back and find another replica, or this one again."""
        for task in self._tasks:
            task.cancel()


class _Told:
    """How many lines a stream has told, for its heartbeat."""

    lines = 0


async def _beat(answer: web.StreamResponse, told: _Told, heartbeat_s: float) -> None:
    """An empty line after each time in which no line was told. That a reader is gone is the other task's to notice."""
    before = told.lines
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(heartbeat_s)
            if told.lines == before:
                await answer.write(b"\n")
            before = told.lines


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch", "").lower() == "true"


def heartbeat_of(request: web.Request) -> float | None:
    """Seconds, None for no heartbeats; 400 for anything else."""
    told = request.query.get("heartbeat")
    if told is None:
        return None
    least, most = HEARTBEAT_S
    if not told.isdecimal() or not least <= int(told) <= most:
        raise web.HTTPBadRequest(reason=f"heartbeat: got {told[:20]!a}; expected {least} to {most} seconds")
    return float(told)


def one_line(message: str) -> str:
    """A message that may stand in a header or a reason: one line, and nothing that does not print."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in message)[:2000]
