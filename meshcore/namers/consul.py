"""`io.l5d.consul`: services of Consul, `/datacenter[/tag]/service`. One blocking query for each name in use.

Source: linkerd ConsulNamer docs, SvcAddr.scala, ConsulNamerTest; issues #1230, #2003 (never reconnects), #1766 (a scan of
names becomes endless queries), #1593 and #2205 (keep what was known). Names are in lower case; `.local` is the agent's own
datacenter; a service without instances is `~`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..clients.consul import ConsulClient, next_index
from ..naming import Neg, Path
from .namer import CatalogueNamer
from .source import Source, SourceError
from .states import Address, Replicas, State, pairs

KIND = "io.l5d.consul"
PASSING = ("passing",)
QUIET_S = 0.05
"""Between two answers about one service: one that flaps must not keep a processor busy. Consul advises to limit."""


class ConsulRules(msgspec.Struct, frozen=True, kw_only=True):
    """How instances are chosen and told."""

    has_tag: bool = False
    statuses: tuple[str, ...] = ()
    """Health of the instances that are told; () tells all."""
    prefers_service_address: bool = True
    sets_host: bool = False
    """Whether endpoints are to be asked as `service.service.dc.consul`."""
    tells_metadata: bool = False
    weights: tuple[tuple[str, float], ...] = ()
    """By tag; the last one that an instance has counts."""
    domain: str = "consul"


class ConsulSource(Source):
    """The keys are `/datacenter/service` or `/datacenter/tag/service`."""

    def __init__(self, client: ConsulClient, rules: ConsulRules) -> None:
        super().__init__(f"{KIND} {client.url}")
        self._client = client
        self._rules = rules

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        datacenter, *tags, service = key.texts
        params = {}
        if datacenter != ".local":
            params["dc"] = datacenter
        if tags:
            params["tag"] = tags[0]
        if self._rules.statuses == PASSING:
            params["passing"] = "true"
        index = 0
        while True:
            answer = await self._client.get(f"/v1/health/service/{_quoted(service)}", params, index)
            tell(self._read(answer.value, key))
            before, index = index, next_index(index, answer.index)
            if not index or answer.index == before:
                # Consul without an index cannot block; and a wait that ended without news need not hurry either.
                await asyncio.sleep(1.0 if not index else 0)
            await asyncio.sleep(QUIET_S * random.uniform(0.5, 1.0))

    def _read(self, entries: Any, key: Path) -> State:
        if not isinstance(entries, list):
            raise SourceError(f"{self.name}: {key}: got {type(entries).__name__}; expected a list of instances")
        try:
            found = [self._address(entry) for entry in entries if self._is_wanted(entry)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"{self.name}: {key}: an instance cannot be read: {error!r}") from None
        if not found:
            return Neg()
        metadata: dict[str, str] = {}
        if self._rules.sets_host:
            datacenter, *tags, service = key.texts
            where = f".{datacenter}" if datacenter != ".local" else ""
            metadata["authority"] = f"{''.join(f'{tag}.' for tag in tags)}{service}.service{where}.{self._rules.domain}"
        return Replicas.of(found, metadata)

    def _is_wanted(self, entry: Mapping[str, Any]) -> bool:
        if not self._rules.statuses:
            return True
        checks = [check.get("Status", "critical") for check in entry.get("Checks") or ()]
        return all(status in self._rules.statuses for status in checks)

    def _address(self, entry: Mapping[str, Any]) -> Address:
        node, service = entry["Node"], entry["Service"]
        host = node.get("Address") or service["Address"]
        if self._rules.prefers_service_address and service.get("Address"):
            host = service["Address"]
        weight = 1.0
        for tag, value in self._rules.weights:
            if tag in (service.get("Tags") or ()):
                weight = value
        metadata = dict(service.get("Meta") or {}) if self._rules.tells_metadata else {}
        if node.get("Node"):
            metadata["nodeName"] = node["Node"]
        return Address(host, int(service["Port"]), weight, pairs(metadata))

    async def close(self) -> None:
        await super().close()
        await self._client.close()


def _quoted(service: str) -> str:
    from urllib.parse import quote

    return quote(service, safe="")


def consul_namer(prefix: Path, client: ConsulClient, rules: ConsulRules | None = None) -> CatalogueNamer:
    rules = rules or ConsulRules()
    count = 3 if rules.has_tag else 2

    def cut(rest: Path) -> tuple[Path, Path] | None:
        if len(rest) < count:
            return None
        return Path(tuple(elem.lower() for elem in rest.elems[:count])), rest.drop(count)

    return CatalogueNamer(KIND, prefix, ConsulSource(client, rules), cut)


def weights_of(configured: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    return tuple((str(one["tag"]), float(one["weight"])) for one in configured)
