"""What a proxy counted since it was asked last, of what had traffic: for whoever tells statistics on. The whole of it: see stats."""

from __future__ import annotations

from typing import NamedTuple

from meshcore import _fastpath


class Count(NamedTuple):
    """The difference of one route or endpoint. TCP connections are none of its requests.

    name: of the route, of the endpoint's cluster. labels: of the endpoint; None: it is a route.
    latency: see `Histogram.changes`. tcp_open: connections now. bytes_out: of TCP, to the endpoint.
    """

    name: str
    labels: dict[str, str] | None
    requests: int
    successes: int
    failures: int
    secure: int
    retries: int
    latency: bytes
    tcp_opened: int
    tcp_failed: int
    tcp_open: int
    bytes_out: int
    bytes_in: int


class Taken(NamedTuple):
    """One look. reasons: answers the proxy made itself."""

    routes: list[Count]
    endpoints: list[Count]
    reasons: dict[str, int]


class Counts:
    """One reader's. Each difference is told once; what was counted before the first look belongs to that."""

    def __init__(self, engine: _fastpath.Engine, names: _fastpath.Names | None) -> None:
        self._counts = _fastpath.Counts(engine, names)

    def take(self) -> Taken:
        routes, endpoints, reasons = self._counts.take()
        return Taken([Count(*row) for row in routes], [Count(*row) for row in endpoints], reasons)
