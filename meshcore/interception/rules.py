"""What a sidecar intercepts, and the steps that bring it about. Decides the order; each tool's words are its own file's.

In the order of the first match, as Conduit's proxy-init had it:

    outbound   the proxy's own user, loopback, skipped ports, skipped networks, then: to the outbound port
    inbound    what is for another machine, (with TPROXY: loopback, answers), skipped ports, skipped networks, then: to
               the inbound port

Only a connection's first packet (SYN) is sent to the proxy: one that is older than the rules would break on its way
through it.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from ..errors import MeshError

Tool = Literal["iptables", "nft"]
Family = Literal["ipv4", "ipv6"]
FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")

# What TPROXY takes is marked, and what is marked is delivered here, whatever its address: "mc" in ASCII.
TPROXY_MARK = 0x6D63
TPROXY_TABLE = 28003


class RulesError(MeshError):
    """Rules that were not asked for rightly."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command. stdin: the rules it reads. optional: it undoes what may not be there."""

    command: tuple[str, ...]
    stdin: str = ""
    optional: bool = False


class Ports(msgspec.Struct, frozen=True):
    """One port, or all from `first` to `last`."""

    first: int
    last: int

    @classmethod
    def read(cls, text: str) -> Ports:
        first, dash, last = text.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
            raise RulesError(f"'{text[:40]}' is no port; write 5432, or 4567-4568")
        one = cls(int(numbers[0]), int(numbers[1]))
        if not 1 <= one.first <= one.last <= 65535:
            raise RulesError(f"'{text[:40]}': ports are 1 to 65535, the lower first")
        return one

    def text(self, between: str) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}{between}{self.last}"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the rules depend on. Raises RulesError for what would intercept nothing, or everything."""

    inbound_port: int = 4143
    outbound_port: int = 4140
    proxy_uid: int = 2102
    mode: Literal["redirect", "tproxy"] = "redirect"
    skip_inbound_ports: tuple[Ports, ...] = ()
    skip_outbound_ports: tuple[Ports, ...] = ()
    skip_subnets: tuple[str, ...] = ()
    families: tuple[Family, ...] = FAMILIES

    def __post_init__(self) -> None:
        for port in (self.inbound_port, self.outbound_port):
            Ports.read(str(port))
        if self.inbound_port == self.outbound_port:
            raise RulesError(f"port {self.inbound_port} cannot be both the inbound and the outbound port")
        if not 1 <= self.proxy_uid < 2**32 - 1:
            raise RulesError(
                f"{self.proxy_uid} is no user id for the proxy: what its user sends is not intercepted, so root (0) "
                "would pass all its processes; run the proxy as a user of its own"
            )
        for subnet in self.skip_subnets:
            network(subnet)

    def skipped_subnets(self, family: Family) -> tuple[str, ...]:
        version = 4 if family == "ipv4" else 6
        return tuple(str(net) for net in map(network, self.skip_subnets) if net.version == version)


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise RulesError(f"'{text[:60]}' is no network; write 10.0.0.0/8 or fd00::/8") from None


def plan_of(rules: Rules, tool: Tool, present: frozenset[tuple[str, ...]] = frozenset()) -> list[Step]:
    """The steps that bring the rules about. present: jumps into our chains that are there already (iptables)."""
    from . import iptables, nft

    steps = iptables.steps(rules, present) if tool == "iptables" else nft.steps(rules)
    return [*steps, *(_routing(rules) if rules.mode == "tproxy" else ())]


def undo_of(tool: Tool, present: frozenset[tuple[str, ...]], families: tuple[Family, ...] = FAMILIES) -> list[Step]:
    """The steps that take away everything of ours. present: what the tool finds of it (iptables)."""
    from . import iptables, nft

    steps = iptables.undo_steps(present) if tool == "iptables" else nft.undo_steps()
    return [*steps, *routing_undo(families)]


def _ip(family: Family) -> tuple[str, ...]:
    return ("ip", "-4") if family == "ipv4" else ("ip", "-6")


def _routing(rules: Rules) -> list[Step]:
    steps: list[Step] = []
    for family in rules.families:
        everywhere = "0.0.0.0/0" if family == "ipv4" else "::/0"
        steps += [
            *routing_undo((family,)),
            Step(command=(*_ip(family), "rule", "add", "fwmark", hex(TPROXY_MARK), "lookup", str(TPROXY_TABLE))),
            Step(command=(*_ip(family), "route", "replace", "local", everywhere, "dev", "lo",
                          "table", str(TPROXY_TABLE))),
        ]  # fmt: skip
    return steps


def routing_undo(families: tuple[Family, ...] = FAMILIES) -> list[Step]:
    rule = ("fwmark", hex(TPROXY_MARK), "lookup", str(TPROXY_TABLE))
    return [
        Step(command=(*_ip(family), *words), optional=True)
        for family in families
        for words in (("rule", "del", *rule), ("route", "flush", "table", str(TPROXY_TABLE)))
    ]
