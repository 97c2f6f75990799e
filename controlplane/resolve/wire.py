"""Endpoints as bytes of linkerd's Update, each made once. Owns encoding of endpoints; decides nothing about them.

Protobuf messages may be put together from the bytes of their parts: an endpoint is serialized when it changes, and all
messages that name it, for all watchers, are made of these bytes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from meshcore.api import destination_pb2, net_pb2
from meshcore.api.octets import field

from ..model import Endpoint
from ..spiffe import SpiffeId

H2 = destination_pb2.ProtocolHint(h2=destination_pb2.ProtocolHint.H2())
OPAQUE = destination_pb2.ProtocolHint(opaque=destination_pb2.ProtocolHint.Opaque())
HINTS = {"http2": H2, "grpc": H2, "tcp": OPAQUE, "opaque": OPAQUE}


def address_of(ip: str, port: int) -> net_pb2.TcpAddress:
    """An address as linkerd writes it: IPv4 in one number, IPv6 in two, high half first."""
    parsed = ipaddress.ip_address(ip)
    if parsed.version == 4:
        return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=int(parsed)), port=port)
    number = int(parsed)
    halves = net_pb2.IPv6(first=number >> 64, last=number & (1 << 64) - 1)
    return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv6=halves), port=port)


def weighted(endpoint: Endpoint) -> destination_pb2.WeightedAddr:
    """One endpoint, with all that a proxy is to know of it."""
    labels = {
        **endpoint.labels,
        "namespace": endpoint.namespace,
        "service": endpoint.service,
        "endpoint": endpoint.name,
    }
    if endpoint.workload:
        labels["workload"] = endpoint.workload
    if endpoint.zone:
        labels["zone"] = endpoint.zone
    message = destination_pb2.WeightedAddr(
        addr=address_of(endpoint.address, endpoint.port),
        weight=endpoint.weight,
        metric_labels=labels,
        protocol_hint=_hint(endpoint),
    )
    if endpoint.identity:
        identity = SpiffeId.parse(endpoint.identity)
        message.tls_identity.uri_like_identity.uri = endpoint.identity
        # A URI has no place in SNI; linkerd's proxies need a name beside it.
        message.tls_identity.server_name.name = f"{identity.account}.{identity.namespace}"
    return message


def _hint(endpoint: Endpoint) -> destination_pb2.ProtocolHint | None:
    """Where an identity is expected stands a proxy of the mesh, unless it is said what else speaks there: requests of
    any HTTP version may share one connection to it."""
    if endpoint.protocol == "detect" and endpoint.identity:
        return H2
    return HINTS.get(endpoint.protocol)


def added(endpoint: Endpoint) -> bytes:
    """An endpoint as an entry of WeightedAddrSet."""
    return field(1, weighted(endpoint).SerializeToString(deterministic=True))


def removed(ip: str, port: int) -> bytes:
    """An address as an entry of AddrSet."""
    return field(1, address_of(ip, port).SerializeToString())


def set_labels(namespace: str, service: str) -> bytes:
    """The labels that all endpoints of a WeightedAddrSet have, as its last fields."""
    labels = {"namespace": namespace, "service": service}
    octets: bytes = destination_pb2.WeightedAddrSet(metric_labels=labels).SerializeToString(deterministic=True)
    return octets


def update_add(entries: Iterable[bytes], labels: bytes) -> bytes:
    """Update.add of entries that `added` made."""
    return field(1, b"".join(entries) + labels)


def update_remove(entries: Iterable[bytes]) -> bytes:
    """Update.remove of entries that `removed` made."""
    return field(2, b"".join(entries))


NO_ENDPOINTS: Mapping[bool, bytes] = {
    exists: destination_pb2.Update(
        no_endpoints=destination_pb2.NoEndpoints(exists=exists)
    ).SerializeToString()
    for exists in (False, True)
}
