"""Statistics: what this proxy counted, told to the control plane each second. Reads counters; never touches traffic.

A frame is what came since the frame before. It is kept until it was received, and sent again as it is; what is counted
meanwhile goes into the next one. So a control plane that was away for a while gets all of it, late, and nothing twice.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from meshcore.api import statistics_pb2, statistics_pb2_grpc
from meshcore.api.statistics_frame import MAX_FRAME_BYTES, Direction, Report, Row, encode
from meshcore.counts import Count, Counts, Taken

EVERY_S = 1.0
LONGEST_S = 60.0  # that a server may ask to wait
RECEIPT_S = 30.0
QUIET_S = 10.0  # between frames that say that nothing happened
SHORT_S = 0.005
# A proxy of ten thousand busy names counts for a while: then it tells less often, and never spends more than this part of a core.
PER_TAKEN = 100


class Counted(Protocol):
    """What has statistics: a Proxy."""

    def counts(self) -> Counts: ...


class Frames:
    """Counts as frames. Sans-I/O: what was counted in, bytes out. direction_of: "in" or "out" by a route's name; routes that
    are neither are left out, and so are endpoints behind inbound routes: their requests were counted by the route."""

    def __init__(self, direction_of: Callable[[str], str], is_local: Callable[[str], bool] = lambda cluster: False) -> None:
        self.life = secrets.randbits(64)
        self.sequence = 0
        self._direction_of = direction_of
        self._is_local = is_local

    def next(self, taken: Taken, span_s: float) -> statistics_pb2.Frame:
        """What was counted since the frame before, in so much time."""
        rows = [_row("in", one.name, "", one) for one in taken.routes if self._direction_of(one.name) == "in"]
        rows += [_row("out", "", one.name, one) for one in taken.endpoints if not self._is_local(one.name)]
        self.sequence += 1
        if not rows and not taken.reasons:
            return statistics_pb2.Frame(sequence=self.sequence, life=self.life)
        raw = encode(Report(rows=tuple(rows), span_s=round(span_s, 3), reasons=taken.reasons))
        while len(raw) > MAX_FRAME_BYTES:
            # The busiest rows say the most.
            rows = sorted(rows, key=lambda row: row.requests, reverse=True)[: len(rows) // 2]
            raw = encode(Report(rows=tuple(rows), span_s=round(span_s, 3), reasons=taken.reasons))
        frame = statistics_pb2.Frame(sequence=self.sequence, life=self.life, msgpack=raw)
        frame.taken_at.GetCurrentTime()
        return frame


def _row(direction: Direction, route: str, service: str, one: Count) -> Row:
    return Row(
        direction, route, service, one.labels or {}, one.requests, one.successes, one.failures, one.secure, one.retries, one.latency,
        one.tcp_opened, one.tcp_failed, one.tcp_open, one.bytes_out, one.bytes_in,
    )  # fmt: skip


class Statistics:
    """One part of the link."""

    def __init__(
        self, proxy: Counted, workload: str, direction_of: Callable[[str], str], is_local: Callable[[str], bool] = lambda cluster: False
    ) -> None:
        self.received = 0
        self._proxy = proxy
        self._workload = workload
        self._frames = Frames(direction_of, is_local)
        self._counts: Counts | None = None
        self._unreceived: statistics_pb2.Frame | None = None
        self._taken_s = time.monotonic()
        self._took_s = SHORT_S

    async def __call__(self, channel: grpc.aio.Channel) -> None:
        """Report until the stream ends."""
        call: Any = statistics_pb2_grpc.StatisticsStub(channel).Report()
        told_s = -math.inf
        try:
            while True:
                began_s = time.monotonic()
                if self._unreceived is None:
                    # A stat of ten thousand endpoints would hold up everything else on this loop.
                    frame = self._take() if self._took_s < SHORT_S else await asyncio.to_thread(self._take)
                    self._took_s = time.monotonic() - began_s
                    if not frame.msgpack and began_s - told_s < QUIET_S:
                        await asyncio.sleep(max(EVERY_S, self._took_s * PER_TAKEN))
                        continue
                    self._unreceived = frame
                told_s = began_s
                self._unreceived.workload = self._workload
                await call.write(self._unreceived)
                async with asyncio.timeout(RECEIPT_S):
                    receipt = await call.read()
                if receipt is grpc.aio.EOF:
                    await call.code()
                    return
                if receipt.sequence == self._unreceived.sequence:
                    self._unreceived = None
                    self.received += 1
                wait_s = min(LONGEST_S, max(EVERY_S, self._took_s * PER_TAKEN, receipt.next_after.ToMilliseconds() / 1000))
                await asyncio.sleep(max(0.0, wait_s - (time.monotonic() - began_s)))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                self._unreceived = None  # again it would be refused again
            raise
        finally:
            call.cancel()

    def _take(self) -> statistics_pb2.Frame:
        if self._counts is None:
            self._counts = self._proxy.counts()
        before_s, self._taken_s = self._taken_s, time.monotonic()
        return self._frames.next(self._counts.take(), self._taken_s - before_s)
