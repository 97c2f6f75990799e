"""The contenders: how each is started, found ready and stopped. What is measured: bench.compare."""

from __future__ import annotations

from bench.peers.base import Peer, PeerFailed, Ports, free_ports
from bench.peers.envoy import Envoy
from bench.peers.forwarder import Forwarder
from bench.peers.haproxy import HAProxy
from bench.peers.meshcore import Meshcore
from bench.peers.nginx import Nginx

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Meshcore, Forwarder, Nginx, HAProxy, Envoy)
}

__all__ = ["PEERS", "Meshcore", "Peer", "PeerFailed", "Ports", "free_ports"]
