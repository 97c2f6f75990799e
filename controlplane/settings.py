"""What a control plane is told when it starts: addresses, store, bounds, each with its default and reason. Starts nothing."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from meshcore.errors import Problem

from .errors import Invalid
from .identity.authority import LEAF_S, MAX_LEAF_S, MIN_LEAF_S
from .model.names import is_host
from .spiffe import TRUST_DOMAIN_WHAT, is_trust_domain


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What callers can make the control plane hold."""

    streams_per_connection: int = 1_024
    """A proxy of ours uses four; one of linkerd's three for each name it calls."""
    streams_per_identity: int = 10_000
    """Replicas of a workload share its identity."""
    streams: int = 100_000
    """Of all callers together: about 20 KiB each."""
    names_per_stream: int = 10_000
    """As many as a proxy binds; each costs some 200 bytes, and its share of what changes."""
    message_bytes: int = 1_048_576
    """What a caller may send in one message; claims and statistics are far smaller."""
    heartbeat_ms: int = 10_000
    silence_ms: int = 60_000
    """A proxy that has shown no sign of life, or has not read, for so long is gone."""
    stream_age_s: int = 3_600
    """Then a stream is asked to come again, so that load spreads over replicas that were added; ± 10 %."""
    catch_up_ms: int = 5_000
    """How long a caller that knows more than this replica waits for it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One control plane."""

    data: str
    """A folder of its own, mode 0700: store, authority, audit, admin socket."""
    trust_domain: str
    listen: str = "0.0.0.0:8086"
    """The one address that proxies know."""
    admin: str = ""
    """Path of the unix socket for operators on this machine; empty: `admin.sock` in `data`."""
    metrics: str = ""
    """Loopback `host:port` for /metrics, /live and /ready; empty: none."""
    etcd: tuple[str, ...] = ()
    """Endpoints of an etcd in place of the SQLite file, for several replicas."""
    etcd_prefix: str = "meshcore"
    cluster_domain: str = "cluster.local"
    """What names of services may end with, after `.svc.`."""
    leaf_s: int = LEAF_S
    """How long certificates live."""
    roles: str = ""
    """A file that says which identities may do what; empty: operators on this machine only."""
    kubernetes: str = ""
    """Whose service-account tokens prove an identity: the URL of an API server, or `in-cluster`; empty: nobody's."""
    kubernetes_token_file: str = ""
    """Our own token, for TokenReview; read again each time. Empty: that of the pod this runs in."""
    kubernetes_ca_file: str = ""
    """What vouches for the API server; empty: that of the pod this runs in, for a URL the roots of this system."""
    sources: str = ""
    """A file that names sources of discovery besides the store; empty: none."""
    drain_s: float = 5.0
    """How long streams have to go elsewhere after SIGTERM."""
    bounds: Bounds = Bounds()

    @property
    def admin_path(self) -> Path:
        return Path(self.admin) if self.admin else Path(self.data) / "admin.sock"

    def check(self) -> None:
        """Invalid with everything that is wrong."""
        problems = []
        if not is_trust_domain(self.trust_domain):
            problems.append(Problem(message=f"got {self.trust_domain[:80]!r}", path=("trust_domain",), expected=TRUST_DOMAIN_WHAT))
        if not is_host(self.cluster_domain):
            problems.append(Problem(message=f"got {self.cluster_domain[:80]!r}", path=("cluster_domain",), expected="a DNS name"))
        if not MIN_LEAF_S <= self.leaf_s <= MAX_LEAF_S:
            problems.append(
                Problem(message=f"got {self.leaf_s} s", path=("leaf_s",), expected=f"{MIN_LEAF_S} to {MAX_LEAF_S}")
            )
        if len(str(self.admin_path).encode()) > 100:
            # sockaddr_un has room for 107 octets; grpc adds none, but the message of the kernel would say nothing.
            problems.append(
                Problem(message=f"{len(str(self.admin_path))} characters", path=("admin",), expected="a path of at most 100")
            )
        if self.metrics and not _is_loopback(self.metrics):
            problems.append(
                Problem(message=f"got {self.metrics[:80]!r}", path=("metrics",), expected="loopback, like 127.0.0.1:9996")
            )
        if problems:
            raise Invalid("control plane", problems)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
