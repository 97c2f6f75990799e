"""`io.l5d.dnssrv`: names that are DNS services, `/_http._tcp.example.com`. Asked again when their time to live is over.

Source: linkerd DnsSrvNamer.scala; RFC 2782. Of several priorities the best one counts, as the RFC has it: the others are
for when none of it answers, which is what an alternation is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..naming import Neg, Path
from .inet import ABSENT_S, wait_of
from .namer import CatalogueNamer
from .source import Source
from .states import Address, Replicas, State

if TYPE_CHECKING:
    from ..clients.dns import DnsClient

KIND = "io.l5d.dnssrv"


class DnsSrvSource(Source):
    """The keys are `/name`."""

    def __init__(self, servers: Sequence[str] = (), longest_s: float = 60.0) -> None:
        super().__init__(KIND)
        self._servers = servers
        self._longest_s = longest_s
        self._client: DnsClient | None = None

    @property
    def client(self) -> DnsClient:
        if self._client is None:
            from ..clients.dns import DnsClient

            self._client = DnsClient(self._servers)
        return self._client

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        (name,) = key.texts
        while True:
            found = await self.client.services(name)
            if found is None:
                tell(Neg())
                await asyncio.sleep(wait_of(min(ABSENT_S, self._longest_s)))
                continue
            best = found.records[0].priority
            records = [one for one in found.records if one.priority == best]
            # RFC 2782: weight 0 has a very small chance beside others, and all are 0 where nothing is chosen by weight.
            weighs = any(one.weight for one in records)
            tell(
                Replicas.of(Address(one.host, one.port, (one.weight or 0.1) if weighs else 1.0) for one in records)
            )
            await asyncio.sleep(wait_of(min(found.ttl_s, self._longest_s)))

    async def close(self) -> None:
        await super().close()
        if self._client is not None:
            await self._client.close()


def dns_srv_namer(prefix: Path, servers: Sequence[str] = (), longest_s: float = 60.0) -> CatalogueNamer:
    """At most `longest_s` between two questions, however long the answer says that it lives."""
    return CatalogueNamer(
        KIND, prefix, DnsSrvSource(servers, longest_s), lambda rest: (rest.take(1), rest.drop(1)) if rest else None
    )
