"""What a proxy asks for: `host[:port]` to a service, an address, or a name of somebody else's. Looks nothing up.

`web.shop`, `web.shop.svc` and `web.shop.svc.<cluster domain>` are one name; `web` alone is that of one's own namespace.
A well-formed name that is none of these is foreign: it belongs to DNS.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from ..model.names import is_label

DEFAULT_PORT = 80
MAX_PATH_CHARS = 300  # the longest host name, a port, and a little

_PORT = re.compile(r"[0-9]{1,5}")
# Underscores occur in DNS names of others; no rule of ours needs to refuse them.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")


class Malformed(ValueError):
    """Not a name at all. Its text says why."""


class Name(msgspec.Struct, frozen=True):
    """A port of a service of the mesh, whether it exists or not."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.service}.{self.namespace}:{self.port}"


class Address(msgspec.Struct, frozen=True):
    """A place: that of an endpoint, of a workload, or a service's virtual one."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Foreign(msgspec.Struct, frozen=True):
    """A host outside the mesh."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Target = Name | Address | Foreign


def parse(path: str, own_namespace: str, cluster_domain: str) -> Target:
    """What is meant; Malformed when nothing can be."""
    if not 1 <= len(path) <= MAX_PATH_CHARS:
        raise Malformed(f"a name of {len(path)} characters; expected 1 to {MAX_PATH_CHARS}")
    host, port = _split(path)
    if (ip := _ip(host)) is not None:
        return Address(ip, port)
    host = host.lower().removesuffix(".")
    if _HOST.fullmatch(host) is None:
        raise Malformed(f"{_shown(host)} is not a host name")
    inner = host.removesuffix(f".svc.{cluster_domain}") if cluster_domain else host
    if inner == host:
        inner = host.removesuffix(".svc")
    parts = inner.split(".")
    if len(parts) == 1 and inner == host and own_namespace:
        parts.append(own_namespace)
    if len(parts) == 2 and is_label(parts[0]) and is_label(parts[1]):
        return Name(parts[1], parts[0], port)
    return Foreign(host, port)


def _split(path: str) -> tuple[str, int]:
    if path.startswith("["):
        host, bracket, rest = path[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Malformed(f"{_shown(path)}: an IPv6 address stands in brackets, then ':' and the port")
        text = rest[1:] if rest else str(DEFAULT_PORT)
    else:
        host, colon, text = path.partition(":")
        if ":" in text:
            raise Malformed(f"{_shown(path)}: more than one ':'; IPv6 addresses stand in brackets")
        text = text if colon else str(DEFAULT_PORT)
    if _PORT.fullmatch(text) is None or not 1 <= int(text) <= 65_535:
        raise Malformed(f"{_shown(text)} is not a port; expected 1 to 65535")
    return host, int(text)


def _ip(host: str) -> str | None:
    if len(host) > 45 or "%" in host:
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else shown[:79] + "…"
