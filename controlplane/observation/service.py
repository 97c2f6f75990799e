"""Observation: what operators ask, as a gRPC service. Owns who may and the messages; sessions and tables are others'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from meshcore.api import observation_pb2, observation_pb2_grpc, relay_pb2
from meshcore.api.tap_wire import filter_of, seen_of
from meshcore.taps import TapFilterError

from ..errors import Denied, Invalid
from ..serving.answers import refuse
from ..serving.peers import Peer, Peers
from .directory import Member
from .resources import KINDS, NOT_RUNNING, Resource, parse_resource
from .stat_tables import DEFAULT_WINDOW_S, MAX_WINDOW_S, Row, StatTables
from .taps import Taps

QUANTILES = (0.5, 0.95, 0.99)


class Permissions(Protocol):
    """Who may do what."""

    def check(self, peer: Peer, word: str, namespace: str) -> None:
        """Denied, and on the audit, when this peer may not; an empty namespace means every one."""

    def allows(self, peer: Peer, word: str, namespace: str) -> bool:
        """The same as a question."""


class Observation(observation_pb2_grpc.ObservationServicer):  # type: ignore[misc]
    """The service."""

    def __init__(self, taps: Taps, tables: StatTables, peers: Peers, permissions: Permissions) -> None:
        self._taps = taps
        self._tables = tables
        self._peers = peers
        self._permissions = permissions

    async def Tap(self, request: observation_pb2.TapRequest, context: Any) -> AsyncIterator[observation_pb2.TapTold]:
        try:
            peer = self._peers.of(context)
            target, to, origin = _resource(request.target), _optional(request, "to"), _optional(request, "from")
            if target.label in NOT_RUNNING:
                raise Invalid(f"unsupported resource type [{request.target.kind[:80]}]: a service runs no proxy; ask for it with --to", ())
            try:
                asked = filter_of(request.ask)
            except TapFilterError as error:
                raise Invalid(str(error), ()) from None
            namespace = target.name if target.label == "namespace" else target.namespace
            if namespace or peer.identity is None:
                self._permissions.check(peer, "tap", namespace)

            def may_tap(member: Member) -> bool:
                return self._permissions.allows(peer, "tap", member.namespace)

            async for shown, progress in self._taps.watch(target, to, origin, asked, peer.name, may_tap):
                told = observation_pb2.TapTold(
                    seen=[observation_pb2.Seen(seen=relay_pb2.Seen.FromString(seen_of(one.event)), workload=one.workload) for one in shown]
                )
                told.progress.proxies, told.progress.unmeshed = progress.proxies, progress.unmeshed
                told.progress.hidden, told.progress.dropped = progress.hidden, progress.dropped
                yield told
        except Exception as error:
            await refuse(context, error)

    async def Stat(self, request: observation_pb2.StatRequest, context: Any) -> observation_pb2.StatTable:
        try:
            target, to, origin = _resource(request.target), _optional(request, "to"), _optional(request, "from")
            namespace = target.name if target.label == "namespace" else target.namespace
            self._permissions.check(self._peers.of(context), "view", namespace)
            window_s = request.window_s or DEFAULT_WINDOW_S
            if not 1 <= window_s <= MAX_WINDOW_S:
                raise Invalid(f"a window of {window_s:g} s; expected 1 s to a day", ())
            if request.rows == observation_pb2.StatRequest.ROUTES:
                rows, span_s = self._tables.routes(target, to, window_s)
            elif request.rows == observation_pb2.StatRequest.EDGES:
                rows, span_s = self._tables.edges(target, window_s)
            else:
                rows, span_s = self._tables.resources(target, to, origin, window_s)
            return observation_pb2.StatTable(rows=[_row(row) for row in rows], span_s=span_s)
        except Exception as error:
            await refuse(context, error)


def _resource(told: observation_pb2.Resource) -> Resource:
    if not told.kind:
        raise Invalid(f"no resource; expected a kind such as {', '.join(list(KINDS)[:1])}, and perhaps a name", ())
    return parse_resource((told.kind, told.name) if told.name else told.kind, told.namespace)


def _optional(request: Any, name: str) -> Resource | None:
    return _resource(getattr(request, name)) if request.HasField(name) else None


def _row(row: Row) -> observation_pb2.Row:
    told = observation_pb2.Row(
        namespace=row.namespace, name=row.name, other_namespace=row.other_namespace, other=row.other,
        meshed=row.meshed, running=row.running, requests=row.sums.requests, successes=row.sums.successes,
        failures=row.sums.failures, secure=row.sums.secure,
        tcp_open=row.sums.tcp_open, tcp_opened=row.sums.tcp_opened,
        tcp_read_bytes=row.sums.tcp_read, tcp_written_bytes=row.sums.tcp_written,
    )  # fmt: skip
    p50, p95, p99 = row.sums.latency.quantiles_ms(QUANTILES)
    if p50 is not None and p95 is not None and p99 is not None:
        told.p50_ms, told.p95_ms, told.p99_ms = p50, p95, p99
    return told
