"""Taps and statistics of one control plane, put together. Owns which part knows which; starts nothing."""

from __future__ import annotations

import time
from typing import Any

from meshcore.api import observation_pb2_grpc, relay_pb2_grpc, statistics_pb2_grpc

from ..audit import Audit
from ..resolve.index import Index
from ..serving.peers import Peers
from ..serving.streams import Streams
from ..settings import Bounds
from .attached import Attached
from .directory import Directory
from .relays import Relays
from .reports import Reports
from .service import Observation, Permissions
from .stat_tables import StatTables
from .statistics_store import StatisticsStore
from .taps import Taps


class Observing:
    """What the mesh sees of its traffic."""

    def __init__(self, index: Index, audit: Audit, permissions: Permissions, streams: Streams, bounds: Bounds) -> None:
        self._permissions = permissions
        self._streams = streams
        self._bounds = bounds
        self.directory = Directory(index)
        self.attached = Attached()
        self.store = StatisticsStore(time.time())
        self.taps = Taps(self.attached, self.directory, audit)
        self.tables = StatTables(self.store, self.directory, self.attached, time.time)
        self._draining: list[Any] = []

    def serve_proxies(self, server: Any, peers: Peers) -> None:
        """Relay and statistics, on the server that proxies call."""
        relays = Relays(self.attached, self.directory, self.taps, peers, self._streams, self._bounds)
        reports = self.reports = Reports(self.store, self.directory, peers, self._streams, self._bounds)
        relay_pb2_grpc.add_RelayServicer_to_server(relays, server)
        statistics_pb2_grpc.add_StatisticsServicer_to_server(reports, server)
        self._draining += [relays, reports]

    def serve_operators(self, server: Any, peers: Peers) -> None:
        """Taps and tables, on any server that tells operators apart."""
        service = Observation(self.taps, self.tables, peers, self._permissions)
        observation_pb2_grpc.add_ObservationServicer_to_server(service, server)

    def drain(self) -> None:
        """Let proxies go elsewhere."""
        for one in self._draining:
            one.drain()
