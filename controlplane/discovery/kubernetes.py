"""Services, endpoint slices and pods of a Kubernetes cluster. Follows three collections; what they mean is next door.

An event costs work in proportion to the services it concerns. A watch that is gone (410) lists again, one that breaks
goes on behind its last bookmark; both, and silence, are the client's. Why not kubernetes_asyncio: see that client.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

from meshcore.clients.kubernetes import Gone, KubernetesClient, Object

from .configured import KubernetesConf
from .kubernetes_values import Cluster
from .source import Listener

QUIET_S = 0.1
SERVICES = ("/api/v1", "services")
SLICES = ("/apis/discovery.k8s.io/v1", "endpointslices")
PODS = ("/api/v1", "pods")


class KubernetesSource:
    """One cluster, or one namespace of it."""

    def __init__(self, conf: KubernetesConf, trust_domain: str) -> None:
        self._conf = conf
        self._trust_domain = trust_domain

    @property
    def name(self) -> str:
        return self._conf.name

    async def follow(self, listener: Listener) -> None:
        cluster = Cluster(self._trust_domain)
        heard: set[str] = set()

        async def one(group: str, kind: str) -> None:
            middle = f"/namespaces/{self._conf.namespace}" if self._conf.namespace else ""
            async for event in _events(client, f"{group}{middle}/{kind}"):
                touched = cluster.take(kind, event)
                if isinstance(event, dict):
                    heard.add(kind)
                if len(heard) < 3:
                    continue  # endpoints without their pods would be told without identities
                if isinstance(event, dict):
                    listener.whole(cluster.everything())
                elif touched:
                    listener.some({str(key): cluster.values(key) for key in touched})
                listener.well()

        async with self._client() as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for above, kind in (SERVICES, SLICES, PODS):
                        group.create_task(one(above, kind))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None  # one collection lost is the source lost; the rest was cancelled

    def _client(self) -> KubernetesClient:
        if not self._conf.url:
            return KubernetesClient.in_cluster()
        tls = ssl.create_default_context(cafile=self._conf.ca_file) if self._conf.ca_file else None
        return KubernetesClient(self._conf.url, token_file=self._conf.token_file or None, tls=tls)


async def _events(client: KubernetesClient, path: str) -> AsyncIterator[dict[tuple[str, str], Object] | tuple[str, Object]]:
    """All objects as a dict, then each event as (type, object); a dict again whenever something may have been missed."""
    while True:
        with suppress(Gone):  # of a watch, or of the next page of a list that took too long
            objects, version = await client.list(path)
            yield objects
            while True:
                async for kind, found in client.watch(path, version):
                    version = str((found.get("metadata") or {}).get("resourceVersion") or version)
                    if kind != "BOOKMARK":
                        yield kind, found
                await asyncio.sleep(QUIET_S * random.uniform(0.5, 1.0))
        await asyncio.sleep(QUIET_S * random.uniform(0.5, 1.0))


