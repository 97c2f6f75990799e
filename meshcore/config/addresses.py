"""Addresses: `host:port`, `:port`, `[v6]:port`, `unix:/path`. Reads and writes them; resolves no name."""

from __future__ import annotations

import re
import socket
from typing import Any

from .values import Bad, Kind

LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\Z")


def is_ip4(text: str) -> bool:
    """Whether `text` is an IPv4 address in dotted form."""
    return _parses(socket.AF_INET, text)


def is_ip6(text: str) -> bool:
    """Whether `text` is an IPv6 address, without brackets."""
    return _parses(socket.AF_INET6, text)


def _parses(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (host "" then). Raises Bad."""
    if "://" in text:
        scheme, rest = text.split("://", 1)
        raise Bad(
            f"the address {text[:80]!r} is a URL", f"write '{rest.split('/')[0][:60]}' without '{scheme[:20]}://'"
        )
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise Bad(f"the address {text[:80]!r} has no port", "write '[::1]:8080'")
        if not is_ip6(host):
            raise Bad(f"{host[:60]!r} is not an IPv6 address")
        port = tail[1:]
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise Bad(f"the address {text[:80]!r} has no port", f"did you mean '{text[:60]}:80'?")
        if ":" in host:
            if is_ip6(host):
                raise Bad(f"the IPv6 address in {text[:80]!r} needs brackets", f"write '[{host}]:{port[:8]}'")
            raise Bad(f"{text[:80]!r} is not an address", "write 'host:port'")
    if not (port.isascii() and port.isdigit()):
        raise Bad(f"the port in {text[:80]!r} is not a number", "write 'host:port'")
    if len(port) > 5 or int(port) > 65535:
        raise Bad(f"the port {port[:12]} is out of range", "from 1 to 65535")
    if host and not text.startswith("["):
        lowered = host.lower()
        if re.fullmatch(r"[0-9.]+", host):
            if not is_ip4(host):
                raise Bad(f"{host[:60]!r} is not an IPv4 address")
        elif not lowered.isascii() or len(lowered) > 253 or not LABELS.match(lowered.removesuffix(".")):
            raise Bad(f"{host[:60]!r} is not a host name", "letters, digits, '-', '_' and '.' only")
    return host.lower(), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AddressKind(Kind):
    """`host:port`, or `unix:/path` where sockets of the file system are allowed."""

    def __init__(
        self, *, any_host: bool = False, port_zero: bool = False, unix: bool = False, loopback: bool = False
    ) -> None:
        self.any_host = any_host
        self.port_zero = port_zero
        self.unix = unix
        self.loopback = loopback
        forms = [":8080" if any_host else "127.0.0.1:8080"] + (["unix:/path"] if unix else [])
        self.what = "an address such as " + " or ".join(f"'{form}'" for form in forms)

    def read(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
            raise self.wrong(
                value, f"did you mean ':{value}'?" if self.any_host else f"did you mean '127.0.0.1:{value}'?"
            )
        if not isinstance(value, str) or not value:
            raise self.wrong(value) if value != "" else Bad(f"expected {self.what}, got an empty string", "", self.what)
        if value.startswith("unix:"):
            return self.unix_path(value)
        if value.isascii() and value.isdigit():
            meant = f"{'' if self.any_host else '127.0.0.1'}:{value[:20]}"
            raise Bad(f"the address '{value[:20]}' is a port alone", f"did you mean '{meant}'?", self.what)
        if value.startswith("/"):
            raise Bad(
                f"{value[:80]!r} is not an address",
                f"did you mean 'unix:{value[:80]}'?" if self.unix else "",
                self.what,
            )
        host, port = split_address(value)
        if not host:
            if not self.any_host:
                raise Bad(f"the address '{value}' has no host", f"did you mean '127.0.0.1:{port}'?", self.what)
            host = "0.0.0.0"
        if port == 0 and not self.port_zero:
            raise Bad(f"the address '{value}' has port 0", "a port is 1 to 65535", self.what)
        if self.loopback and not is_loopback(host):
            raise Bad(
                f"the admin address '{value}' is not a loopback address",
                "it has no authentication: use 'unix:/path' or '127.0.0.1:port', and a tunnel from elsewhere",
                self.what,
            )
        return join_address(host, port)

    def unix_path(self, value: str) -> str:
        path = value[5:]
        if not self.unix:
            raise Bad(f"a unix socket is not possible here: {value[:80]!r}", "write 'host:port'", self.what)
        if not path.startswith("/"):
            raise Bad(f"the unix socket path {path[:80]!r} is not absolute", "write 'unix:/path'", self.what)
        if "\0" in path or len(path.encode(errors="surrogateescape")) > 107:  # sun_path holds 108 bytes with its NUL
            raise Bad("the unix socket path is longer than 107 bytes or holds a NUL", "", self.what)
        return value

    def describe(self) -> str:
        return "`host:port`" + (" or `:port`" if self.any_host else "") + (" or `unix:/path`" if self.unix else "")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address on `host`."""
    return host in ("localhost", "::1") or (is_ip4(host) and host.startswith("127."))
