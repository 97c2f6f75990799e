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
from meshcore.api.statistics_frame import MAX_FRAME_BYTES, Report, Row, encode
from meshcore.stats import EndpointStats, RouteStats, Stats

EVERY_S = 1.0
LONGEST_S = 60.0  # that a server may ask to wait
RECEIPT_S = 30.0
QUIET_S = 10.0  # between frames that say that nothing happened
SHORT_S = 0.005
# A proxy of ten thousand busy names counts for a while: then it tells less often, and never spends more than this part of a core.
PER_TAKEN = 100


class Counted(Protocol):
    """What has statistics: a Proxy."""

    def stats(self) -> Stats: ...


class Frames:
    """Statistics as frames. Sans-I/O: a snapshot in, bytes out. direction_of: "in" or "out" by a route's name; routes that
    are neither are left out, and so are endpoints behind inbound routes: their requests were counted by the route."""

    def __init__(self, direction_of: Callable[[str], str], is_local: Callable[[str], bool] = lambda cluster: False) -> None:
        self.life = secrets.randbits(64)
        self.sequence = 0
        self._direction_of = direction_of
        self._is_local = is_local
        self._before = Stats()
        self._routes: dict[str, RouteStats] = {}
        self._endpoints: dict[tuple[str, str], EndpointStats] = {}

    def next(self, stats: Stats) -> statistics_pb2.Frame:
        """What was counted since the frame before."""
        rows = [row for route in stats.routes if (row := self._route(route)) is not None]
        for cluster in stats.clusters:
            if not self._is_local(cluster.name):
                rows += [row for endpoint in cluster.endpoints if (row := self._endpoint(endpoint)) is not None]
        self._routes = {route.name: route for route in stats.routes}
        self._endpoints = {(one.cluster, one.address): one for one in stats.endpoints}
        reasons = {name: more for name, count in stats.reasons.items() if (more := count - self._before.reasons.get(name, 0)) > 0}
        span_s = (stats.taken_ns - self._before.taken_ns) / 1e9 if self._before.taken_ns else stats.seconds
        self._before = Stats(taken_ns=stats.taken_ns, reasons=stats.reasons)
        self.sequence += 1
        if not rows and not reasons:
            return statistics_pb2.Frame(sequence=self.sequence, life=self.life)
        raw = encode(Report(rows=tuple(rows), span_s=round(span_s, 3), reasons=reasons))
        while len(raw) > MAX_FRAME_BYTES:
            # The busiest rows say the most.
            rows = sorted(rows, key=lambda row: row.requests, reverse=True)[: len(rows) // 2]
            raw = encode(Report(rows=tuple(rows), span_s=round(span_s, 3), reasons=reasons))
        frame = statistics_pb2.Frame(sequence=self.sequence, life=self.life, msgpack=raw)
        frame.taken_at.GetCurrentTime()
        return frame

    def _route(self, now: RouteStats) -> Row | None:
        if self._direction_of(now.name) != "in":
            return None
        before = self._routes.get(now.name)
        if before is not None and before.requests > now.requests:
            before = None  # born anew
        old = before or RouteStats(name=now.name)
        if now.requests == old.requests:
            return None
        good = _successes(now) - _successes(old)
        requests = now.requests - old.requests
        return Row(
            "in", now.name, "", {}, requests, good, max(0, requests - good), min(requests, max(0, now.secure - old.secure)), 0,
            now.latency.changes(old.latency),
        )  # fmt: skip

    def _endpoint(self, now: EndpointStats) -> Row | None:
        before = self._endpoints.get((now.cluster, now.address))
        if before is not None and before.requests > now.requests:
            before = None
        old = before or EndpointStats(cluster=now.cluster, address=now.address)
        requests = now.requests - old.requests
        if not requests:
            return None
        return Row(
            "out", "", now.cluster, now.labels, requests, now.successes - old.successes, now.failures - old.failures,
            requests if _is_secure(now) else 0, now.retries - old.retries, now.latency.changes(old.latency),
        )  # fmt: skip


def _successes(route: RouteStats) -> int:
    return sum(route.status_class[1:5]) - route.grpc_failed


def _is_secure(endpoint: EndpointStats) -> bool:
    # An endpoint is one trust: whoever has shaken hands with it once never speaks to it in the clear.
    return endpoint.tls_handshakes > 0


class Statistics:
    """One part of the link."""

    def __init__(
        self, proxy: Counted, workload: str, direction_of: Callable[[str], str], is_local: Callable[[str], bool] = lambda cluster: False
    ) -> None:
        self.received = 0
        self._proxy = proxy
        self._workload = workload
        self._frames = Frames(direction_of, is_local)
        self._unreceived: statistics_pb2.Frame | None = None
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
        return self._frames.next(self._proxy.stats())


