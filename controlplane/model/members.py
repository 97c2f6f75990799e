"""Services, the workloads behind them, and their endpoints. Owns their fields and rules, not how they are stored."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..spiffe import SPIFFE_WHAT, is_spiffe_id
from . import names
from .checks import Found

PROTOCOLS = ("detect", "http1", "http2", "grpc", "tcp", "tls", "opaque")
MAX_PORTS = 64  # more ports than any real service has; a bound on what one service costs each of its clients
MAX_ADDRESSES = 16
MAX_WEIGHT = 65_535  # as in the proxies' configuration
DEFAULT_WEIGHT = 100  # room to go both up and down


class Named(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all kinds have: a namespace and a name, unique together within the kind."""

    kind: ClassVar[str] = ""

    namespace: str
    name: str

    @property
    def key(self) -> str:
        """Where it is stored, within its kind."""
        return f"{self.namespace}/{self.name}"

    def check(self, found: Found) -> None:
        """Notes everything that is wrong."""
        found.label("namespace", self.namespace)
        found.name("name", self.name)


class ServicePort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port that clients call."""

    port: int
    protocol: str = "detect"
    name: str = ""
    target_port: int = 0
    """Where workloads that its selector takes listen; 0: on the same port."""

    def check(self, found: Found) -> None:
        found.number("port", self.port, 1, 65_535)
        found.word("protocol", self.protocol, PROTOCOLS)
        found.number("target_port", self.target_port, 0, 65_535)
        if self.name:
            found.label("name", self.name)


class Service(Named, frozen=True, kw_only=True, omit_defaults=True):
    """A name that clients call. It has endpoints, and policies may point to it."""

    kind: ClassVar[str] = "service"

    ports: tuple[ServicePort, ...] = ()
    labels: dict[str, str] = {}
    selector: dict[str, str] = {}
    """Labels of the workloads that serve it; empty when endpoints are registered one by one."""
    accounts: tuple[str, ...] = ()
    """Accounts whose identity clients accept from its endpoints; empty means what each endpoint names."""
    addresses: tuple[str, ...] = ()
    """Virtual addresses: who calls one of them means this service."""

    def check(self, found: Found) -> None:
        Named.check(self, found)
        found.label("name", self.name)
        ports = found.at("ports")
        ports.count(self.ports, MAX_PORTS)
        for index, port in enumerate(self.ports):
            port.check(ports.at(index))
        ports.unique((port.port for port in self.ports), "port")
        ports.unique((port.name for port in self.ports if port.name), "name")
        found.labels("labels", self.labels)
        found.labels("selector", self.selector)
        found.at("accounts").count(self.accounts, MAX_ADDRESSES)
        for index, account in enumerate(self.accounts):
            found.at("accounts").at(index).unless(names.is_name(account), account, names.NAME_WHAT)
        _check_addresses(found, self.addresses)


class Workload(Named, frozen=True, kw_only=True, omit_defaults=True):
    """One member of the mesh: a process group with one identity, on Kubernetes, a VM or bare metal."""

    kind: ClassVar[str] = "workload"

    account: str = "default"
    """With the namespace and the trust domain it makes the identity."""
    labels: dict[str, str] = {}
    zone: str = ""
    node: str = ""
    addresses: tuple[str, ...] = ()
    """Where it can be reached; empty for a machine behind NAT that only dials out."""
    lease: int = 0
    """Its registration ends with this lease; 0 means never by itself."""

    def check(self, found: Found) -> None:
        Named.check(self, found)
        found.name("account", self.account)
        found.labels("labels", self.labels)
        _check_place(found, self.zone, self.node)
        _check_addresses(found, self.addresses)
        found.number("lease", self.lease, 0, 2**63 - 1)


class Endpoint(Named, frozen=True, kw_only=True, omit_defaults=True):
    """One address of one service. Endpoints of a service lie together: their key is namespace/service/name."""

    kind: ClassVar[str] = "endpoint"

    service: str
    address: str
    port: int
    service_port: int = 0
    """The port of the service that it answers; 0: any."""
    weight: int = DEFAULT_WEIGHT
    """Share of the requests, relative to the others; 0 takes no new ones (draining)."""
    labels: dict[str, str] = {}
    zone: str = ""
    identity: str = ""
    """SPIFFE id that its certificate must carry; empty: it speaks no mTLS."""
    protocol: str = "detect"
    """What it is best spoken to with; `http2` lets two proxies share one connection."""
    workload: str = ""
    lease: int = 0
    """It vanishes with this lease; 0 means it stays until it is deleted."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.service}/{self.name}"

    def check(self, found: Found) -> None:
        Named.check(self, found)
        found.label("service", self.service)
        found.at("address").unless(names.is_address(self.address), self.address, names.ADDRESS_WHAT)
        found.number("port", self.port, 1, 65_535)
        found.number("service_port", self.service_port, 0, 65_535)
        found.number("weight", self.weight, 0, MAX_WEIGHT)
        found.labels("labels", self.labels)
        _check_place(found, self.zone, "")
        found.at("identity").unless(self.identity == "" or is_spiffe_id(self.identity), self.identity, SPIFFE_WHAT)
        found.word("protocol", self.protocol, PROTOCOLS)
        found.name("workload", self.workload, may_be_empty=True)
        found.number("lease", self.lease, 0, 2**63 - 1)


class Drain(Named, frozen=True, kw_only=True, omit_defaults=True):
    """The workload of this name takes no new requests, whoever registers it and however often, until this is deleted."""

    kind: ClassVar[str] = "drain"


def _check_place(found: Found, zone: str, node: str) -> None:
    found.at("zone").unless(names.is_label_value(zone), zone, names.LABEL_VALUE_WHAT)
    found.name("node", node, may_be_empty=True)


def _check_addresses(found: Found, addresses: tuple[str, ...]) -> None:
    place = found.at("addresses")
    place.count(addresses, MAX_ADDRESSES)
    for index, address in enumerate(addresses):
        place.at(index).unless(names.is_address(address), address, names.ADDRESS_WHAT)
    place.unique(addresses, "address")
