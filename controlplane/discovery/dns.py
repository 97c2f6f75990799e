"""Addresses of a DNS name as endpoints of a service. Asks again when the answer ends; judges nothing else.

An answer that fails (SERVFAIL, no answer) changes nothing; that there is no such name is an answer. Times to live are
clamped: a zero would be a load test of somebody's name server, a day would be an outage.
"""

from __future__ import annotations

import asyncio
import random

from meshcore.clients.dns import DnsClient
from meshcore.clients.errors import StoreUnavailable

from ..model import Endpoint, Named
from .configured import DnsConf
from .source import Listener, sound

MIN_TTL_S, MAX_TTL_S = 5.0, 300.0
MAX_RECORDS = 1_000
AFTER_FAILURE_S = 5.0


class DnsSource:
    """One name."""

    def __init__(self, conf: DnsConf, min_ttl_s: float = MIN_TTL_S) -> None:
        self._conf = conf
        self._min_ttl_s = min_ttl_s

    @property
    def name(self) -> str:
        return f"dns {self._conf.srv or self._conf.host}:{self._conf.port} for {self._conf.namespace}/{self._conf.service}"

    async def follow(self, listener: Listener) -> None:
        client = DnsClient(self._conf.servers)
        try:
            while True:
                try:
                    values, wait_s = await self.ask(client)
                except StoreUnavailable as error:
                    listener.wrong(str(error))
                    wait_s = min(self._min_ttl_s, AFTER_FAILURE_S)
                else:
                    listener.whole({self._conf.service: values})
                # Names that end together are not asked for together.
                await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))
        finally:
            await client.close()

    async def ask(self, client: DnsClient) -> tuple[list[Named], float]:
        """The endpoints as of now, and after how many seconds to ask again."""
        values, ttl_s = await self._asked(client)
        return values, min(max(ttl_s, self._min_ttl_s), MAX_TTL_S)

    async def _asked(self, client: DnsClient) -> tuple[list[Named], float]:
        if self._conf.host:
            found = await client.hosts(self._conf.host)
            if found is None:
                return [], self._min_ttl_s
            return self._endpoints([(ip, self._conf.port, 1) for ip in found.addresses]), found.ttl_s
        services = await client.services(self._conf.srv)
        if services is None:
            return [], self._min_ttl_s
        # RFC 2782: the lowest priority is used as long as anybody of it answers; whether, proxies find out.
        first = min(record.priority for record in services.records)
        places: list[tuple[str, int, int]] = []
        ttl_s: float = services.ttl_s
        for record in services.records[:MAX_RECORDS]:
            if record.priority != first:
                continue
            hosts = await client.hosts(record.host)
            if hosts is not None:
                ttl_s = min(ttl_s, hosts.ttl_s)
                places += [(ip, record.port, record.weight) for ip in hosts.addresses]
        return self._endpoints(places), ttl_s

    def _endpoints(self, places: list[tuple[str, int, int]]) -> list[Named]:
        conf = self._conf
        return sound(
            Endpoint(
                namespace=conf.namespace,
                service=conf.service,
                name=f"dns-{ip.replace(':', '-').replace('.', '-')}-{port}",
                address=ip,
                port=port,
                # RFC 2782 gives records of weight 0 a small chance beside others; here 0 would mean none.
                weight=min(max(weight, 1) * 100, 65_535),
                protocol=conf.protocol,
            )
            for ip, port, weight in sorted(set(places))[:MAX_RECORDS]
        )
