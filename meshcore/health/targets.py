"""Who is to be asked and how, as frozen values from a configuration and its plan. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Cluster, Config
from ..config.addresses import join_address
from ..config.health_checks import HealthCheck
from ..errors import ConfigError
from .secure import CheckTls

# What a connection to an endpoint that expects a PROXY header begins with, when it carries nobody's request.
PROXY_PREFIXES = {
    "off": b"",
    "v1": b"PROXY UNKNOWN\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",  # version 2, command LOCAL, no address
}


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint and how it is asked. Equal targets are asked alike."""

    cluster: str
    address: str  # as statistics name the endpoint
    place: str | tuple[str, int]  # where to connect: a path, or an IP address with a port
    authority: str
    prefix: bytes  # sent before all else
    check: HealthCheck
    tls: CheckTls | None = None

    @property
    def timeout_s(self) -> float:
        return int(self.check.timeout) / 1e9  # type: ignore[arg-type]

    @property
    def interval_s(self) -> float:
        return int(self.check.interval) / 1e9  # type: ignore[arg-type]

    def accepts(self, status: int) -> bool:
        for text in self.check.expect:  # type: ignore[union-attr]
            low, _, high = str(text).partition("-")
            if int(low) <= status <= int(high or low):
                return True
        return False


def targets_of(config: Config, plan: dict[str, Any], tls: Mapping[str, CheckTls] | None = None) -> list[Target]:
    """The endpoints that clusters want asked, with names resolved as in the plan. `tls`: by cluster, where it has some."""
    checked = {cluster.name: cluster for cluster in config.clusters if cluster.health_check is not None}
    return [
        target
        for row in plan["clusters"]
        if row["name"] in checked
        for target in _of_cluster(checked[row["name"]], row, (tls or {}).get(row["name"]))
    ]


def _of_cluster(cluster: Cluster, row: dict[str, Any], tls: CheckTls | None) -> Iterator[Target]:
    check = cluster.health_check
    assert check is not None
    for endpoint in row["endpoints"]:
        address, place = endpoint["address"], endpoint["sockaddr"]
        authority = "localhost"
        if not isinstance(place, str):
            place = (place[0], check.port or place[1])
            authority = join_address(*place)
        yield Target(
            cluster=cluster.name,
            address=address,
            place=place,
            authority=check.host or authority,
            # Another port is another service: whether that expects the header too is unlikely, and known to nobody here.
            prefix=b"" if check.port else PROXY_PREFIXES[cluster.proxy_protocol],
            check=check,
            # At another port the service is another.
            tls=None if check.port else tls,
        )


def require_grpc(config: Config) -> None:
    """Refuse a configuration whose gRPC checks nobody could make, before anything of it is applied."""
    for cluster in config.clusters:
        if cluster.health_check is not None and cluster.health_check.type == "grpc":
            try:
                import grpc  # noqa: F401
            except ImportError as error:
                raise ConfigError(
                    f"cluster '{cluster.name}': its grpc health check needs grpcio ({error}): pip install 'meshcore[mesh]'"
                ) from None
