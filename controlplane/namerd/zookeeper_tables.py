"""Tables in ZooKeeper, as namerd keeps them: a node a namespace, its data the text. A write and its record are one transaction.

Source: namerd's ZkDtabStore.scala. A namerd may share them: what it writes has no record, and is told all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from meshcore.clients.zookeeper import BadVersion, Denied, Node, NodeExists, NoNode, Write, ZooKeeperClient

from .tables import (
    KEPT,
    AlreadyThere,
    Forbidden,
    Missing,
    Record,
    Table,
    Tables,
    Whole,
    WrongVersion,
)

TRIES = 50


class Written(msgspec.Struct, frozen=True):
    """The data of a record."""

    text: str | None
    by: str
    time_s: float


class ZooKeeperTables(Tables):
    """Below `root`; the records stand below `<root>.history`."""

    def __init__(
        self, client: ZooKeeperClient, root: str = "/dtabs", *, kept: int = KEPT, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._root = root.rstrip("/")
        self._records = f"{self._root}.history"
        self._kept = kept
        self._clock = clock

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def get(self, namespace: str) -> Table | None:
        try:
            return _table(namespace, await self._client.get(f"{self._root}/{namespace}"))
        except NoNode:
            return None

    async def create(self, namespace: str, text: str, by: str) -> Table:
        return await self._write(namespace, text, by, lambda: Write("create", self._node(namespace), text.encode()))

    async def put(self, namespace: str, text: str, by: str, version: bytes | None = None) -> Table:
        node = self._node(namespace)
        if version is not None:
            expected = _expected(namespace, version)
            return await self._write(namespace, text, by, lambda: Write("set", node, text.encode(), expected))
        for _ in range(TRIES):
            is_there = await self._client.exists(node)
            verb = "set" if is_there else "create"
            try:
                return await self._write(namespace, text, by, lambda verb=verb: Write(verb, node, text.encode()))  # type: ignore[misc]
            except (AlreadyThere, Missing):  # it came or went in between
                continue
        raise WrongVersion(f"table '{namespace}' comes and goes all the time: gave up after {TRIES} tries")

    async def delete(self, namespace: str, by: str, version: bytes | None = None) -> int:
        expected = -1 if version is None else _expected(namespace, version)
        table = await self._write(namespace, None, by, lambda: Write("delete", self._node(namespace), version=expected))
        return table.revision

    async def _write(self, namespace: str, text: str | None, by: str, here: Callable[[], Write]) -> Table:
        record = msgspec.json.encode(Written(text, by, self._clock()))
        folder = f"{self._records}/{namespace}"
        try:
            await self._make(folder)
            # A node that is made in the same transaction has its number: that is how records are found and ordered.
            await self._client.transact(here(), Write("create", f"{folder}/{time.time_ns():020}", record))
            if text is None:
                records = await self._client.children(folder)
                return Table(namespace, "", b"", (await self._client.get(f"{folder}/{records[-1]}")).created)
            found = await self._client.get(self._node(namespace))
        except NodeExists:
            raise AlreadyThere(f"there is a table '{namespace}' already") from None
        except NoNode:
            raise Missing(f"there is no table '{namespace}'") from None
        except BadVersion:
            raise WrongVersion(f"table '{namespace}' has another version by now") from None
        except Denied as error:
            raise Forbidden(str(error)) from None
        await self._trim(folder)
        return Table(namespace, text, _version(found.version), found.modified)

    async def _make(self, folder: str) -> None:
        for node in (self._root, folder):
            try:
                if not await self._client.exists(node):
                    await self._client.create(node, makes_parents=True)
            except NodeExists:
                pass

    async def _trim(self, folder: str) -> None:
        for name in (await self._client.children(folder))[: -self._kept]:
            try:
                await self._client.delete(f"{folder}/{name}")
            except NoNode:
                pass

    async def history(self, namespace: str, most: int = KEPT) -> list[Record]:
        folder = f"{self._records}/{namespace}"
        try:
            names = await self._client.children(folder)
        except NoNode:
            return []
        found = []
        for name in names[-most:]:
            try:
                node = await self._client.get(f"{folder}/{name}")
                told = msgspec.json.decode(node.data, type=Written)
            except (NoNode, msgspec.MsgspecError):
                continue
            found.append(Record(node.created, b"", told.text, told.by, told.time_s))
        return sorted(found, key=lambda one: one.revision)

    async def watch(self) -> AsyncIterator[Whole]:
        changed = asyncio.Event()
        try:
            while True:
                changed.clear()
                yield Whole(tuple([one async for one in self._all(changed)]))
                await changed.wait()
        finally:
            self._client.forget(changed)

    async def _all(self, changed: asyncio.Event) -> AsyncIterator[Table]:
        try:
            names = await self._client.children(self._root, changed)
        except NoNode:
            if await self._client.exists(self._root, changed):
                changed.set()
            return
        for name in names:
            try:
                yield _table(name, await self._client.get(f"{self._root}/{name}", changed))
            except NoNode:
                continue  # gone in between: the children have changed, too

    def _node(self, namespace: str) -> str:
        return f"{self._root}/{namespace}"


def _table(namespace: str, node: Node) -> Table:
    return Table(namespace, node.data.decode(errors="replace"), _version(node.version), node.modified)


def _version(version: int) -> bytes:
    """Four bytes, as namerd's store in ZooKeeper has them."""
    return version.to_bytes(4, "big")


def _expected(namespace: str, version: bytes) -> int:
    if len(version) != 4 or version[0] > 127:
        raise WrongVersion(f"table '{namespace}' never had this version")
    return int.from_bytes(version, "big")
