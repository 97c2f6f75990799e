"""A DNS client: addresses and services with their time to live. Caches nothing; who asks decides when to ask again.

Why aiodns: c-ares underneath has the retries, TCP fall-back, search domains and /etc/hosts of a system resolver, and
unlike getaddrinfo it tells the time to live and blocks no thread. dnspython would do the same in Python.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import aiodns
import msgspec
import pycares

from .errors import StoreUnavailable

TIMEOUT_S = 2.0
TRIES = 2
NO_SUCH_NAME = {pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA, pycares.errno.ARES_ENONAME}
NEVER_A_NAME = {pycares.errno.ARES_EBADNAME, pycares.errno.ARES_EBADQUERY}


class Hosts(msgspec.Struct, frozen=True):
    """The addresses of a host name."""

    addresses: tuple[str, ...]
    ttl_s: int


class Service(msgspec.Struct, frozen=True):
    """One SRV record (RFC 2782)."""

    priority: int
    weight: int
    host: str
    port: int


class Services(msgspec.Struct, frozen=True):
    """The SRV records of a name."""

    records: tuple[Service, ...]
    ttl_s: int


class DnsClient:
    """Asks `servers` (`ip` or `ip:port`), else those of the system. None as an answer: there is no such name."""

    def __init__(self, servers: Sequence[str] = (), *, timeout_s: float = TIMEOUT_S, tries: int = TRIES) -> None:
        self._servers = list(servers)
        self._timeout_s = timeout_s
        self._tries = tries
        self._resolver: aiodns.DNSResolver | None = None

    def _open(self) -> aiodns.DNSResolver:
        if self._resolver is None:
            self._resolver = aiodns.DNSResolver(self._servers or None, timeout=self._timeout_s, tries=self._tries)
        return self._resolver

    async def hosts(self, name: str) -> Hosts | None:
        """IPv4 and IPv6 addresses; an address is its own answer."""
        try:
            found = await self._open().getaddrinfo(name, socket.AF_UNSPEC, 0, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            _raise_unless_absent(name, error)
            return None
        addresses = tuple(sorted({node.addr[0].decode() for node in found.nodes}))
        return Hosts(addresses, min((node.ttl for node in found.nodes), default=0)) if addresses else None

    async def services(self, name: str) -> Services | None:
        """SRV records, in the order of their priorities."""
        try:
            found: Any = await self._open().query_dns(name, "SRV")
        except aiodns.error.DNSError as error:
            _raise_unless_absent(name, error)
            return None
        answers = [one for one in found.answer if one.type == pycares.QUERY_TYPE_SRV]
        records = sorted(
            (one.data.priority, one.data.weight, one.data.target.rstrip("."), one.data.port) for one in answers
        )
        # RFC 2782: a target of "." says that the service is decidedly not there.
        services = tuple(Service(*record) for record in records if record[2])
        return Services(services, min((one.ttl for one in answers), default=0)) if services else None

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


def _raise_unless_absent(name: str, error: aiodns.error.DNSError) -> None:
    code, *_ = error.args or (0,)
    if code in NO_SUCH_NAME or code in NEVER_A_NAME:
        return
    raise StoreUnavailable(f"DNS has no answer for {name}: {error.args[-1] if error.args else error}", is_unsent=True)
