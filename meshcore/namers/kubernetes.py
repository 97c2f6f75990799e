"""`io.l5d.k8s`: endpoint slices of Kubernetes, `/namespace/port/service[/label]`. One watch for each name in use.

Source: linkerd EndpointsNamer.scala with K8sNamerTest; issues #1730, #1626, #1805, #1636 (old endpoints for hours). The port is
a name, or the number of the service's port.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

from ..clients.kubernetes import KubernetesClient, Object, Objects
from ..naming import Neg, Path
from .live import Cell, Derived
from .namer import CatalogueNamer
from .source import Source
from .states import Address, Replicas, State, pairs

KIND = "io.l5d.k8s"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
SERVICE = "kubernetes.io/service-name"


class SliceSource(Source):
    """The keys are `/namespace/port/service`, with the value of the label behind it where there is one."""

    def __init__(self, client: KubernetesClient, label: str = "") -> None:
        super().__init__(f"{KIND} {client.url}")
        self._client = client
        self._label = label

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        namespace, port, service, *value = key.texts
        if not all(map(_NAME.fullmatch, (namespace, port, service))) or not all(map(_LABEL.fullmatch, value)):
            tell(Neg())  # nothing in Kubernetes can be called so
            await asyncio.get_running_loop().create_future()
            return
        selector = f"{SERVICE}={service}" + (f",{self._label}={value[0]}" if value else "")
        slices: Cell[Objects | None] = Cell(None)
        services: Cell[Objects | None] = Cell(None)
        above = f"/api/v1/namespaces/{namespace}"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._feed(slices, f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", "labelSelector", selector)
                )
                if port.isdigit():
                    group.create_task(self._feed(services, f"{above}/services", "fieldSelector", f"metadata.name={service}"))
                else:
                    services.set({})
                group.create_task(_tell(slices, services, namespace, service, port, tell))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def _feed(self, cell: Cell[Objects | None], path: str, selector: str, value: str) -> None:
        async for objects in self._client.follow(path, {selector: value}):
            cell.set(objects)

    async def close(self) -> None:
        await super().close()
        await self._client.close()


async def _tell(
    slices: Cell[Objects | None],
    services: Cell[Objects | None],
    namespace: str,
    service: str,
    port: str,
    tell: Callable[[State], None],
) -> None:
    both: Derived[tuple[Objects | None, Objects | None]] = Derived(lambda read: (read(slices), read(services)))
    async with both.watch() as values:
        async for found, known in values:
            if found is None or known is None:
                continue
            names = port_names(known.get((namespace, service)), port) if port.isdigit() else [port]
            addresses = [one for each in found.values() for one in addresses_of(each, names)]
            tell(Replicas.of(addresses) if addresses else Neg())


def port_names(service: Object | None, number: str) -> list[str]:
    """What the ports of a service with this number are called; one without a name is called ``""``."""
    ports = ((service or {}).get("spec") or {}).get("ports") or ()
    return [str(one.get("name") or "") for one in ports if str(one.get("port")) == number]


def addresses_of(endpoint_slice: Object, names: list[str]) -> Iterator[Address]:
    """The endpoints of a slice that take new requests, at the ports of these names."""
    ports = [one["port"] for one in endpoint_slice.get("ports") or () if (one.get("name") or "") in names and one.get("port")]
    for endpoint in endpoint_slice.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        told = {"nodeName": endpoint.get("nodeName"), "zone": endpoint.get("zone")}
        metadata = pairs({key: value for key, value in told.items() if value})
        for host in endpoint.get("addresses") or ():
            for port in ports:
                yield Address(str(host), int(port), 1.0, metadata)


def kubernetes_namer(prefix: Path, client: KubernetesClient, label: str = "", namespace: str = "") -> CatalogueNamer:
    """`namespace` set: `io.l5d.k8s.ns`, whose names do not begin with one."""
    count = 2 + (not namespace) + bool(label)
    fixed = Path.of(namespace) if namespace else Path()
    source = SliceSource(client, label)
    kind = f"{KIND}.ns" if namespace else KIND

    def cut(rest: Path) -> tuple[Path, Path] | None:
        return (rest.take(count), rest.drop(count)) if len(rest) >= count else None

    if not namespace:
        return CatalogueNamer(kind, prefix, source, cut)
    return _NamespacedNamer(kind, prefix, source, cut, fixed)


class _NamespacedNamer(CatalogueNamer):
    """Ids do not have the namespace that the configuration has."""

    def __init__(self, kind: str, prefix: Path, source: Source, cut: Any, fixed: Path) -> None:
        super().__init__(kind, prefix, source, cut)
        self._fixed = fixed

    def key(self, rest: Path) -> Path:
        return self._fixed + rest
