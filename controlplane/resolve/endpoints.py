"""Which endpoints a name has now. Pure; encodes nothing.

Those that are registered one by one, and one for each address of the workloads that the service's selector takes. An
endpoint whose weight is 0, or whose workload an operator drains, drains: it is told as gone, and what it is answering ends in peace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from ..model import Endpoint, Workload
from ..spiffe import SpiffeId
from .index import Index, ServiceEntry
from .names import Address, Name
from .policy import port_of, traffic_of

MAX_ENDPOINTS = 10_000  # as many as a cluster of the proxies may have


def endpoints_of(name: Name, entry: ServiceEntry | None, trust_domain: str) -> list[Endpoint]:
    """All that may be there, draining ones included, in the order of their names."""
    if entry is None:
        return []
    port = port_of(entry.service, name.port)
    if port is None:
        return []
    found = [one for one in entry.endpoints.values() if one.service_port in (0, name.port)]
    for workload in entry.selected.values():
        target = port.target_port or name.port
        found += (
            _of_workload(name.service, workload, ip, target, port.protocol, trust_domain) for ip in workload.addresses
        )
    if traffic_of(entry).mtls == "off":
        found = [msgspec.structs.replace(one, identity="") if one.identity else one for one in found]
    found.sort(key=lambda one: one.name)
    return found[:MAX_ENDPOINTS]


def endpoint_at(address: Address, index: Index, trust_domain: str) -> Endpoint | None:
    """The endpoint that has this very address; else the workload that has it, on any port."""
    workload: Workload | None = None
    for value in index.at(address.ip):
        if isinstance(value, Endpoint) and value.port == address.port:
            return value
        if isinstance(value, Workload):
            workload = value
    if workload is None:
        return None
    return _of_workload(workload.name, workload, address.ip, address.port, "detect", trust_domain)


def _of_workload(service: str, workload: Workload, ip: str, port: int, protocol: str, trust_domain: str) -> Endpoint:
    # A pod or machine that no proxy stands beside speaks no mTLS: its label says so, as Linkerd's annotation does.
    is_meshed = workload.labels.get("meshcore.io/proxy") != "none"
    return Endpoint(
        namespace=workload.namespace,
        service=service,
        name=workload.name if len(workload.addresses) == 1 else f"{workload.name}.{workload.addresses.index(ip)}",
        address=ip,
        port=port,
        labels=workload.labels,
        zone=workload.zone,
        identity=str(SpiffeId(trust_domain, workload.namespace, workload.account)) if is_meshed else "",
        protocol=protocol if protocol in ("http2", "grpc", "tcp", "opaque") else "detect",
        workload=workload.name,
    )


def live(endpoints: list[Endpoint], drained: Collection[str] = ()) -> Iterator[Endpoint]:
    """Those that take new requests. drained: workloads that do not, whatever their endpoints say."""
    return (one for one in endpoints if one.weight > 0 and one.workload not in drained)
