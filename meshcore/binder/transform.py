"""Transformers: the addresses of a bound name as another set, say "the proxy on the same node". Pure.

Source: linkerd PortTransformer, LocalhostTransformer, SpecificHostTransformer. A name that is changed has another id,
`/%/io.l5d.port/4141/#/…`, and so a client of its own.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

import msgspec
from msgspec.structs import replace as _replace

from ..naming import Path
from ..naming.transformers import transformed
from ..namers.states import Address
from .nodes import is_near


class Transformer(msgspec.Struct, frozen=True):
    """kind: port, localhost, host, or localnode (whose host is an address of this node, or its name)."""

    kind: str
    host: str = ""
    port: int = 0

    @property
    def prefix(self) -> Path:
        detail = {"port": str(self.port), "host": self.host, "localnode": self.host}.get(self.kind)
        kind = {"host": "io.l5d.specificHost", "localnode": "io.l5d.k8s.localnode"}.get(self.kind, f"io.l5d.{self.kind}")
        return Path.of(kind, detail) if detail else Path.of(kind)

    def change(self, addresses: Iterable[Address]) -> list[Address]:
        """Those that are left. Several that have become one address are one, with all their weight."""
        found: dict[tuple[str, int], Address] = {}
        for one in _CHANGES[self.kind](self, addresses):
            before = found.get((one.host, one.port))
            found[one.host, one.port] = one if before is None else _replace(before, weight=before.weight + one.weight)
        return list(found.values())


def _port(one: Transformer, addresses: Iterable[Address]) -> list[Address]:
    return [_replace(address, port=one.port) for address in addresses]


def _host(one: Transformer, addresses: Iterable[Address]) -> list[Address]:
    return [address for address in addresses if address.host == one.host]


def _localhost(one: Transformer, addresses: Iterable[Address]) -> list[Address]:
    here = own_addresses()
    return [address for address in addresses if address.host in here or _is_loopback(address.host)]


def _localnode(one: Transformer, addresses: Iterable[Address]) -> list[Address]:
    return [address for address in addresses if address.meta("nodeName") == one.host or is_near(one.host, address.host)]


_CHANGES: dict[str, Callable[[Transformer, Iterable[Address]], list[Address]]] = {
    "port": _port, "host": _host, "localhost": _localhost, "localnode": _localnode,
}  # fmt: skip


def changed_id(transformers: Iterable[Transformer], found: Path) -> Path:
    for one in transformers:
        found = transformed(one.prefix, found)
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_addresses() -> frozenset[str]:
    """The addresses of this machine's interfaces, as /proc tells them."""
    found: set[str] = set()
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as table:
            last = ""
            for line in table:
                text = line.strip()
                if text.startswith("|-- "):
                    last = text.removeprefix("|-- ")
                elif text == "/32 host LOCAL":
                    found.add(last)
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            found.update(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in table)
    except OSError:
        pass
    return frozenset(found)
