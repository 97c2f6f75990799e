"""What an authority, or an address, names: a name of the mesh to ask for, or an address as it is. Text only."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

DEFAULT_PORT = 80
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class Authority(NamedTuple):
    """A host in lower case without trailing dot, and a port. `is_address`: the host is an IP literal."""

    host: str
    port: int
    is_address: bool

    @property
    def path(self) -> str:
        """As the control plane is asked for it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def authority_of(text: str) -> Authority | None:
    """`host`, `host:port`, `ip:port` or `[v6]:port`; None for what cannot be a name of anything."""
    text = text.strip().lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            return None
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
    if (colon and colon != ":") or (colon and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        return None
    number = int(port) if colon else DEFAULT_PORT
    if not 1 <= number <= 65_535:
        return None
    try:
        return Authority(str(ipaddress.ip_address(host)), number, True)
    except ValueError:
        host = host.removesuffix(".")
        sound = not text.startswith("[") and 0 < len(host) <= 253 and _HOST.fullmatch(host)
        return Authority(host, number, False) if sound else None
