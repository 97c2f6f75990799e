"""`io.l5d.etcd`: instances in etcd, one key each: `<prefix>/<name>/<instance>`. One stream for each name in use.

Ours: Linkerd keeps tables in etcd, no instances. A value is `host port [* weight]` as in files, `host:port`, or JSON
{"host", "port", "weight", "metadata"}; keys under a lease vanish with who wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..clients.etcd import EtcdClient, EtcdError, decoded, encoded
from ..naming import Neg, Path
from .hosts_lines import read_line
from .namer import CatalogueNamer
from .source import Source, SourceError
from .states import Address, Replicas, State, pairs

KIND = "io.l5d.etcd"
MOST_INSTANCES = 10_000


class EtcdSource(Source):
    """The keys are names, as the elements between prefix and instance."""

    def __init__(self, client: EtcdClient, root: str) -> None:
        super().__init__(f"{KIND} {root}")
        self._client = client
        self._root = root.rstrip("/")
        self._is_open = False

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        if not self._is_open:
            self._is_open = True
            await self._client.open()
        folder = f"{self._root}/{'/'.join(key.texts)}/"
        whole = {"key": encoded(folder), "range_end": encoded(folder[:-1] + "0")}  # '0' is the byte behind '/'
        answer = await self._client.call("/v3/kv/range", {**whole, "limit": MOST_INSTANCES}, is_read=True)
        if answer.get("more"):
            raise SourceError(f"{self.name}: {folder} has more than {MOST_INSTANCES} instances")
        instances = {decoded(item["key"]): decoded(item.get("value")) for item in answer.get("kvs", ())}
        tell(self._state(instances))
        since = int(answer["header"]["revision"]) + 1
        try:
            async with self._client.stream("/v3/watch", {"create_request": {**whole, "start_revision": since}}) as results:
                async for result in results:
                    if result.get("canceled") or int(result.get("compact_revision", 0)):
                        break  # history is gone: begin again with what is there now
                    for event in result.get("events", ()):
                        item = event["kv"]
                        if event.get("type") == "DELETE":
                            instances.pop(decoded(item["key"]), None)
                        else:
                            instances[decoded(item["key"])] = decoded(item.get("value"))
                    if result.get("events"):
                        tell(self._state(instances))
        except EtcdError as error:
            raise SourceError(str(error)) from None
        raise SourceError(f"{self.name}: the stream of {folder} ended")

    def _state(self, instances: dict[bytes, bytes]) -> State:
        found = [read_instance(value, name.decode(errors="replace")) for name, value in instances.items()]
        return Replicas.of(found) if found else Neg()

    async def close(self) -> None:
        await super().close()
        await self._client.close()


def read_instance(value: bytes, where: str) -> Address:
    """One value; SourceError when it is no address."""
    text = value.decode(errors="replace").strip()
    if text.startswith("{"):
        try:
            told: Any = msgspec.json.decode(value)
            return Address(
                str(told["host"]), int(told["port"]), float(told.get("weight", 1)), pairs(told.get("metadata") or {})
            )
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"etcd: {where}: no instance: {error!r}") from None
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and " " not in text:
        text = f"{host} {port}"
    return read_line(text, f"etcd: {where}")


def etcd_namer(prefix: Path, client: EtcdClient, root: str, segments: int = 1) -> CatalogueNamer:
    """Names of `segments` elements below `root`."""

    def cut(rest: Path) -> tuple[Path, Path] | None:
        return (rest.take(segments), rest.drop(segments)) if len(rest) >= segments else None

    return CatalogueNamer(KIND, prefix, EtcdSource(client, root), cut)
