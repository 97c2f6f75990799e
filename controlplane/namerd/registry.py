"""`meshcore.registry`: services of the mesh itself, `/namespace/service[:port]`, out of the control plane's store.

Every endpoint is registered there under a lease, or stands there until it is deleted; what discovery found stands there, too.
One watch of the store feeds all names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from meshcore.clients.errors import StoreUnavailable
from meshcore.namers import Address, CatalogueNamer, Cell, Derived, Replicas, Source, State
from meshcore.namers.configured import NamerEntry, client_tls
from meshcore.namers.states import pairs
from meshcore.naming import Failed, Neg, Path

from ..errors import Unreadable
from ..model import Endpoint, decode
from ..model.change import Snapshot
from ..model.members import DEFAULT_WEIGHT
from ..store import Store

KIND = "meshcore.registry"
PROBE_S = 2.0
Service = tuple[str, str]


class Registry:
    """All endpoints, by service, kept while the store can be followed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._services: dict[Service, dict[str, Endpoint]] = {}
        self._cells: dict[Service, Cell[tuple[Endpoint, ...] | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_known = False
        self.trouble: Cell[str] = Cell("")
        """Why it cannot be followed; "" while it can."""

    def service(self, key: Service) -> Cell[tuple[Endpoint, ...] | None]:
        """The endpoints of one service; None before anything was heard."""
        if self._task is None:
            self._task = asyncio.create_task(self._both(), name=KIND)
        if key not in self._cells:
            self._cells[key] = Cell(None if not self._is_known else self._told(key))
        return self._cells[key]

    def _told(self, key: Service) -> tuple[Endpoint, ...]:
        return tuple(self._services.get(key, {}).values())

    async def _both(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._probe())

    async def _probe(self) -> None:
        """A watch of a store that is away may simply be silent: whether it answers is asked beside it."""
        while True:
            await asyncio.sleep(PROBE_S)
            if self._is_known:
                try:
                    await self._store.get(Endpoint.kind, "probe/probe/probe")
                except StoreUnavailable as error:
                    self.trouble.set(str(error))
                else:
                    self.trouble.set("")

    async def _follow(self) -> None:
        is_open = False
        while True:
            try:
                if not is_open:
                    await self._store.open()
                    is_open = True
                async with await self._store.watch(None, [Endpoint.kind]) as events:
                    async for event in events:
                        if isinstance(event, Snapshot):
                            self._services.clear()
                            for entry in event.entries:
                                self._take(entry.key, entry.value)
                            changed = set(self._cells)
                        else:
                            for change in event.changes:
                                self._take(change.key, change.value)
                            changed = {_service(change.key) for change in event.changes}
                        self._is_known = True
                        self.trouble.set("")
                        for key in changed & set(self._cells):
                            self._cells[key].set(self._told(key))
            except StoreUnavailable as error:
                self.trouble.set(str(error))
            await asyncio.sleep(0.5)

    def _take(self, key: str, value: bytes | None) -> None:
        """What this version cannot read is as good as gone: nobody sends requests to half a record."""
        endpoints = self._services.setdefault(_service(key), {})
        endpoints.pop(key, None)
        if value is not None:
            try:
                found = decode(Endpoint.kind, key, value)
            except Unreadable:
                return
            assert isinstance(found, Endpoint)
            endpoints[key] = found

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._store.close()


class RegistrySource(Source):
    """The keys are `/namespace/service` and `/namespace/service:port`."""

    def __init__(self, store: Store) -> None:
        super().__init__(KIND)
        self._registry = Registry(store)

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        namespace, last = key.texts
        service, _, port = last.partition(":")
        cell = self._registry.service((namespace, service))
        both: Derived[tuple[str, Any]] = Derived(lambda read: (read(self._registry.trouble), read(cell)))
        async with both.watch() as values:
            async for trouble, endpoints in values:
                if trouble:
                    tell(Failed(f"{KIND}: {trouble}"))
                elif endpoints is not None:
                    found = [_address(one) for one in endpoints if _serves(one, port)]
                    tell(Replicas.of(found) if found else Neg())

    async def close(self) -> None:
        await super().close()
        await self._registry.close()


def _service(key: str) -> Service:
    namespace, _, rest = key.partition("/")
    return namespace, rest.partition("/")[0]


def _serves(endpoint: Endpoint, port: str) -> bool:
    """Whether it takes new requests for this port of the service."""
    return endpoint.weight > 0 and (not port or endpoint.service_port in (0, int(port) if port.isdecimal() else -1))


def _address(endpoint: Endpoint) -> Address:
    told = {"zone": endpoint.zone, "identity": endpoint.identity, "protocol": endpoint.protocol}
    metadata = pairs({key: value for key, value in told.items() if value})
    return Address(endpoint.address, endpoint.port, endpoint.weight / DEFAULT_WEIGHT, metadata)


def registry_namer(prefix: Path, store: Store) -> CatalogueNamer:
    return CatalogueNamer(
        KIND, prefix, RegistrySource(store), lambda rest: (rest.take(2), rest.drop(2)) if len(rest) >= 2 else None
    )


class RegistryEntry(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    """Its keys in a file: the etcd that the control planes share."""

    endpoints: list[str]
    pathPrefix: str = "meshcore"
    tls: dict[str, Any] | None = None
    user: str = ""
    password: str = ""

    def make(self, prefix: Path) -> CatalogueNamer:
        from ..store.etcd import EtcdStore

        tls = client_tls(self.tls)
        store = EtcdStore(self.endpoints, prefix=self.pathPrefix, tls=tls, user=self.user, password=self.password)
        return registry_namer(prefix, store)
