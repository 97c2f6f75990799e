"""Tables in Consul, as namerd keeps them: a key a namespace, its value the text. A write and its record are one transaction.

Source: namerd's ConsulDtabStore.scala and its test: keys further below are not namespaces. A namerd may share them: what it writes
has no record, and is told all the same.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from meshcore.clients.consul import ConsulClient, ConsulError, Pair, next_index

from .tables import KEPT, AlreadyThere, Forbidden, Missing, Record, Table, Tables, Whole, WrongVersion

TRIES = 50


class Written(msgspec.Struct, frozen=True):
    """The value of a record."""

    text: str | None
    by: str
    time_s: float


class ConsulTables(Tables):
    """Below `root`; the records stand below `<root>.history`."""

    def __init__(
        self,
        client: ConsulClient,
        root: str = "namerd/dtabs",
        *,
        datacenter: str = "",
        kept: int = KEPT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._root = root.strip("/")
        self._records = f"{self._root}.history"
        self._params = {"dc": datacenter} if datacenter else {}
        self._kept = kept
        self._clock = clock

    async def open(self) -> None:
        """Nothing to do: connections are made when they are needed."""

    async def close(self) -> None:
        await self._client.close()

    async def get(self, namespace: str) -> Table | None:
        pairs, _ = await self._client.pairs(self._key(namespace), params={**self._params, "consistent": ""})
        return next((_table(namespace, pair) for pair in pairs if pair.key == self._key(namespace)), None)

    async def create(self, namespace: str, text: str, by: str) -> Table:
        if not await self._write(namespace, text, by, 0):
            raise AlreadyThere(f"there is a table '{namespace}' already")
        return await self._written(namespace, text)

    async def put(self, namespace: str, text: str, by: str, version: bytes | None = None) -> Table:
        expected = await self._expected(namespace, version)
        for _ in range(TRIES):
            if await self._write(namespace, text, by, expected):
                return await self._written(namespace, text)
            if version is not None:
                raise WrongVersion(f"table '{namespace}' has another version by now")
            expected = await self._expected(namespace, None)
        raise WrongVersion(f"table '{namespace}' is being written by others all the time: gave up after {TRIES} tries")

    async def delete(self, namespace: str, by: str, version: bytes | None = None) -> int:
        for _ in range(TRIES):
            expected = await self._expected(namespace, version)
            if not expected:
                raise Missing(f"there is no table '{namespace}'")
            if await self._write(namespace, None, by, expected):
                records = await self.history(namespace, 1)
                return records[-1].revision
            if version is not None:
                break
        raise WrongVersion(f"table '{namespace}' has another version by now")

    async def _expected(self, namespace: str, version: bytes | None) -> int:
        """The index that a write is to be over: the one now, which must be that of the version where one is given."""
        table = await self.get(namespace)
        if version is not None:
            if table is None:
                raise Missing(f"there is no table '{namespace}'")
            if table.version != version:
                raise WrongVersion(f"table '{namespace}' has another version by now")
        return table.revision if table is not None else 0

    async def _write(self, namespace: str, text: str | None, by: str, expected: int) -> bool:
        """False when the index is another one by now."""
        record = msgspec.json.encode(Written(text, by, self._clock()))
        here: dict[str, Any] = {"Verb": "cas", "Key": self._key(namespace), "Index": expected}
        if text is None:
            here["Verb"] = "delete-cas"
        else:
            here["Value"] = base64.b64encode(text.encode()).decode()
        there = {
            "Verb": "set",
            "Key": f"{self._records}/{namespace}/{time.time_ns():020}",
            "Value": base64.b64encode(record).decode(),
        }
        try:
            done = await self._client.transact([{"KV": here}, {"KV": there}], self._params)
        except ConsulError as error:
            raise (Forbidden(str(error)) if error.status == 403 else error) from None
        return done is not None

    async def _written(self, namespace: str, text: str) -> Table:
        """The write of ours, by its record: the table may have been written again since."""
        records = await self.history(namespace)
        revision = max(one.revision for one in records if one.text == text)
        for pair in (await self._pairs(namespace))[: -self._kept]:
            await self._client.send("DELETE", f"/v1/kv/{pair.key}", self._params)
        return Table(namespace, text, _version(revision), revision)

    async def history(self, namespace: str, most: int = KEPT) -> list[Record]:
        found = []
        for pair in (await self._pairs(namespace))[-most:]:
            try:
                told = msgspec.json.decode(pair.value, type=Written)
            except msgspec.MsgspecError:
                continue
            version = _version(pair.index) if told.text is not None else b""
            found.append(Record(pair.index, version, told.text, told.by, told.time_s))
        return sorted(found, key=lambda one: one.revision)

    async def _pairs(self, namespace: str) -> list[Pair]:
        pairs, _ = await self._client.pairs(f"{self._records}/{namespace}/", params={**self._params, "consistent": ""})
        return sorted(pairs, key=lambda one: one.key)

    async def watch(self) -> AsyncIterator[Whole]:
        index = 0
        while True:
            pairs, told = await self._client.pairs(f"{self._root}/", index, self._params)
            index = next_index(index, told)
            found = [(pair.key[len(self._root) + 1 :], pair) for pair in pairs]
            yield Whole(tuple(_table(name, pair) for name, pair in found if name and "/" not in name))
            if not index:
                await asyncio.sleep(1.0)  # without an index Consul does not wait

    def _key(self, namespace: str) -> str:
        return f"{self._root}/{namespace}"


def _table(namespace: str, pair: Pair) -> Table:
    return Table(namespace, pair.value.decode(errors="replace"), _version(pair.index), pair.index)


def _version(index: int) -> bytes:
    """The index as text, as namerd's store in Consul has it."""
    return str(index).encode()
