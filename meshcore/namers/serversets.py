"""`io.l5d.serversets`: server sets in ZooKeeper, `/zk/path[:endpoint][#shard]`. One watch of a set and its members.

Source: linkerd ServersetNamer.scala with its test, Twitter's ServerSet format (JSON of serviceEndpoint, additionalEndpoints,
shard, status). The longest path that is a set binds; what follows is the residual.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import msgspec

from ..clients.zookeeper import NoNode, ZooKeeperClient
from ..naming import Answer, Bound, Leaf, Neg, Path
from .live import Live, Read
from .namer import LiveNamer
from .source import Source, SourceError
from .states import Address, Replicas, State, pairs

KIND = "io.l5d.serversets"
DEEPEST = 16
"""Elements of a name that are tried as the path of a set: each is a watch."""
MOST_MEMBERS = 10_000
_SUFFIX = re.compile(r"([^:#]+)(?::([^#]+))?(?:#(\d+))?")


class ServersetSource(Source):
    """The keys are paths of sets, the last element with endpoint and shard as in the name."""

    def __init__(self, client: ZooKeeperClient) -> None:
        super().__init__(f"{KIND} {client.hosts}")
        self._client = client

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        await self._client.open()
        *above, last = key.texts
        match = _SUFFIX.fullmatch(last)
        if match is None or any("/" in elem or elem in (".", "..") or "\0" in elem for elem in (*above, match[1])):
            tell(Neg())
            await asyncio.get_running_loop().create_future()
            return
        node, endpoint, shard = match[1], match[2], match[3]
        path = "/" + "/".join([*above, node])
        changed = asyncio.Event()
        members: dict[str, Address | None] = {}
        try:
            while True:
                changed.clear()
                tell(await self._read(path, endpoint, shard, members, changed))
                await changed.wait()
        finally:
            self._client.forget(changed)

    async def _read(
        self, path: str, endpoint: str | None, shard: str | None, members: dict[str, Address | None], changed: asyncio.Event
    ) -> State:
        try:
            names = await self._client.children(path, changed)
        except NoNode:
            # A node that comes into being between the two calls is noticed: then it exists, and is read again.
            if await self._client.exists(path, changed):
                changed.set()
            return Neg()
        names = [name for name in names if name.startswith("member_")]
        if len(names) > MOST_MEMBERS:
            raise SourceError(f"{self.name}: {path}: {len(names)} members; expected at most {MOST_MEMBERS}")
        for name in set(members) - set(names):
            del members[name]
        for name in names:
            if name not in members:  # a member is written once, with its node
                try:
                    node = await self._client.get(f"{path}/{name}")
                except NoNode:
                    continue
                members[name] = _member(node.data, endpoint, shard, f"{path}/{name}")
        found = [address for address in members.values() if address is not None]
        return Replicas.of(found) if found else Neg()

    async def close(self) -> None:
        await super().close()
        await self._client.close()


def _member(data: bytes, endpoint: str | None, shard: str | None, where: str) -> Address | None:
    """The address of a member; None when it is not alive, of another shard, or has no such endpoint."""
    try:
        member: Any = msgspec.json.decode(data)
        if member.get("status", "ALIVE") != "ALIVE":
            return None
        if shard is not None and member.get("shard") != int(shard):
            return None
        place = member["serviceEndpoint"] if endpoint is None else (member.get("additionalEndpoints") or {}).get(endpoint)
        if place is None:
            return None
        metadata = {"shard": member["shard"]} if "shard" in member else {}
        return Address(str(place["host"]), int(place["port"]), 1.0, pairs(metadata))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"ZooKeeper: {where} is no member of a server set: {error!r}") from None


class ServersetNamer(LiveNamer):
    """The longest beginning of a name that is a set with members is its id."""

    kind = KIND

    def __init__(self, prefix: Path, client: ZooKeeperClient) -> None:
        self.prefix = prefix
        self._source = ServersetSource(client)

    @property
    def source(self) -> Source:
        return self._source

    def answer(self, rest: Path, read: Read) -> Answer:
        for count in range(min(len(rest), DEEPEST), 0, -1):
            key = rest.take(count)
            state: State = read(self._source.cell(key))
            if isinstance(state, Replicas):
                return Leaf(Bound(self.prefix + key, rest.drop(count)))
            if not isinstance(state, Neg):
                return state
        return Neg()

    def replicas(self, rest: Path) -> Live[State]:
        return self._source.cell(rest)
