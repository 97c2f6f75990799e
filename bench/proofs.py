"""What a row claims about a proxy and its load cannot see: proved once, on a process of its own. Measures nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.backends import GrpcBackend
from bench.load import run_load
from bench.peers import Peer, PeerFailed
from bench.shapes import GRPC, MTLS

PROOF_SECONDS = 0.2


def _grpc_passes(peer: Peer, directory: Path) -> None:
    """A client of grpcio gets its message and status OK, which is in the trailers."""
    with GrpcBackend(peer.ports.backend, directory):
        command = [sys.executable, "-m", "bench.grpc_echo", "ask", str(peer.ports.listen)]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=root)
    if done.returncode:
        raise PeerFailed(f"{peer.name}: gRPC does not pass: {' '.join(done.stderr.split())[-300:]}")


def _both_sides_are_verified(peer: Peer, directory: Path) -> None:
    """Without a certificate a client gets nothing, and nothing is sent to a backend of another root."""
    held = peer.credentials

    def refused(what: str, arguments: list[str]) -> None:
        load = run_load(
            peer.ports.listen, peer.ports.backend, ["--conns=4", *arguments], seconds=PROOF_SECONDS, warmup_seconds=0
        )
        if load.errors < max(load.total_requests, 1):
            raise PeerFailed(f"{peer.name}: {what} was served: {load.total_requests} requests, {load.errors} errors")

    backend = [f"--backend-cert={held.cert('backend')}", f"--backend-key={held.key('backend')}"]
    stranger = [f"--backend-cert={held.cert('stranger')}", f"--backend-key={held.key('stranger')}"]
    client = [f"--tls-cert={held.cert('client')}", f"--tls-key={held.key('client')}"]
    ca = f"--tls-ca={held.ca}"
    refused("a client without a certificate", [ca, *backend])
    refused("a client, by a backend that nobody vouches for,", [ca, *client, *stranger])


PROOFS = {GRPC: _grpc_passes, MTLS: _both_sides_are_verified}


def prove(peer: Peer, wire: str, directory: Path) -> None:
    """Raises PeerFailed when `peer` does less than a row of that wire says."""
    if wire in PROOFS and not peer.is_yardstick:
        PROOFS[wire](peer, directory)
