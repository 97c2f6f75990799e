"""ZooKeeper for asyncio, over kazoo: calls, and waiting for the next change of a node. Knows what no node means.

Why kazoo: sessions, their expiry and what happens to watches then are what a client of our own would get wrong first. It
runs threads of its own; here they end at `call_soon_threadsafe`. Watches do not outlive a connection: whoever waits for a change
is woken when it breaks, and when it is back (linkerd/linkerd#1829, #847, #2460).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec
from kazoo.client import KazooClient, KazooState  # type: ignore[import-untyped]
from kazoo.exceptions import (  # type: ignore[import-untyped]
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError  # type: ignore[import-untyped]

from ..errors import MeshError
from .errors import StoreUnavailable

__all__ = ["BadVersion", "Denied", "Node", "NodeExists", "NoNode", "Write", "ZooKeeperClient"]

SESSION_S = 10.0
TIMEOUT_S = 10.0

logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # what fails here is told by who asked


class NoNode(MeshError):
    """There is no such node."""


class NodeExists(MeshError):
    """There is one already."""


class BadVersion(MeshError):
    """Somebody else was faster."""


class Denied(MeshError):
    """The access control list of the node says no."""


_MEANT: dict[type[Exception], type[MeshError]] = {
    NoNodeError: NoNode,
    NodeExistsError: NodeExists,
    BadVersionError: BadVersion,
    NoAuthError: Denied,
}


class Node(msgspec.Struct, frozen=True):
    """What a node holds."""

    data: bytes
    version: int
    created: int
    """The number of the transaction that made it (czxid); it grows with every transaction of the ensemble."""
    modified: int
    """Of the one that wrote it last (mzxid)."""


class Write(msgspec.Struct, frozen=True):
    """One operation of a transaction: `create`, `set` or `delete`; `version` -1 is any."""

    verb: str
    path: str
    data: bytes = b""
    version: int = -1


class ZooKeeperClient:
    """One session with one ensemble; after an expiry, the next one."""

    def __init__(
        self, hosts: str, *, session_s: float = SESSION_S, auth: Sequence[tuple[str, str]] = (), acl: Any = None
    ) -> None:
        self.hosts = hosts
        self._client = KazooClient(
            hosts=hosts,
            timeout=session_s,
            connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": 2.0},
            auth_data=list(auth),
            default_acl=acl,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._connected = asyncio.Event()

    async def open(self) -> None:
        """Begins to connect, and goes on for as long as it is open."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._client.add_listener(self._on_state)
            self._client.start_async()

    async def close(self) -> None:
        if self._loop is not None:
            await asyncio.to_thread(self._stop)
            self._loop = None

    def _stop(self) -> None:
        self._client.stop()
        self._client.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, path: str, changed: asyncio.Event | None = None) -> Node:
        """A node; `changed` is set when it may have changed, or when the connection was lost and is back."""
        data, stat = await self._call(self._client.get_async, path, watch=self._watch(changed))
        return Node(data, stat.version, stat.czxid, stat.mzxid)

    async def children(self, path: str, changed: asyncio.Event | None = None) -> list[str]:
        found = await self._call(self._client.get_children_async, path, watch=self._watch(changed))
        return sorted(found)

    async def exists(self, path: str, changed: asyncio.Event | None = None) -> bool:
        return await self._call(self._client.exists_async, path, watch=self._watch(changed)) is not None

    async def create(self, path: str, data: bytes = b"", *, makes_parents: bool = False, is_ephemeral: bool = False) -> None:
        await self._call(self._client.create_async, path, data, makepath=makes_parents, ephemeral=is_ephemeral)

    async def delete(self, path: str, version: int = -1) -> None:
        await self._call(self._client.delete_async, path, version=version)

    async def transact(self, *writes: Write) -> list[Any]:
        """All or none. Raises what the first one that failed would have."""
        transaction = self._client.transaction()
        for one in writes:
            if one.verb == "create":
                transaction.create(one.path, one.data)
            elif one.verb == "set":
                transaction.set_data(one.path, one.data, version=one.version)
            else:
                transaction.delete(one.path, version=one.version)
        results: list[Any] = await self._call(transaction.commit_async)
        for result, one in zip(results, writes, strict=True):
            if isinstance(result, Exception) and not isinstance(result, (RolledBackError, RuntimeInconsistency)):
                raise _meant(result, one.path)
        return results

    def forget(self, changed: asyncio.Event) -> None:
        """Nobody waits for it any more."""
        self._waiting.discard(changed)

    def _watch(self, changed: asyncio.Event | None) -> Callable[[Any], None] | None:
        if changed is None:
            return None
        self._waiting.add(changed)
        loop = self._loop
        assert loop is not None, "the client is open"
        return lambda _: _on_loop(loop, changed.set)

    async def _call(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        loop = self._loop
        if loop is None:
            raise StoreUnavailable(f"ZooKeeper {self.hosts}: the client is not open", is_unsent=True)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._connected.wait()
                done: asyncio.Future[Any] = loop.create_future()
                verb(*arguments, **options).rawlink(lambda result: _on_loop(loop, _hand_over, done, result))
                return await done
        except (TimeoutError, KazooTimeoutError):
            raise StoreUnavailable(f"ZooKeeper {self.hosts}: no answer for {TIMEOUT_S:g} s") from None
        except KazooException as error:
            raise _meant(error, str(arguments[0]) if arguments else "") from None

    def _on_state(self, state: Any) -> None:
        assert self._loop is not None
        _on_loop(self._loop, self._change, state)

    def _change(self, state: Any) -> None:
        if state == KazooState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        for changed in self._waiting:  # whoever reads again now either gets news, or learns that there is no connection
            changed.set()


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *arguments: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _hand_over(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if result.exception is not None:
        done.set_exception(result.exception)
    else:
        done.set_result(result.value)


def _meant(error: Exception, path: str) -> MeshError:
    for kind, ours in _MEANT.items():
        if isinstance(error, kind):
            return ours(f"ZooKeeper: {path}: {kind.__name__.removesuffix('Error')}")
    return StoreUnavailable(f"ZooKeeper: {path}: {type(error).__name__} {error}".rstrip())


def access_list(entries: Sequence[tuple[str, str, str]]) -> Any:
    """An access control list of (scheme, id, rights as `crwda`), as ZooKeeper takes it."""
    from kazoo.security import ACL, Id, Permissions  # type: ignore[import-untyped]

    bits = {
        "c": Permissions.CREATE,
        "r": Permissions.READ,
        "w": Permissions.WRITE,
        "d": Permissions.DELETE,
        "a": Permissions.ADMIN,
    }
    return [ACL(sum(bits[right] for right in set(rights)), Id(scheme, id)) for scheme, id, rights in entries]
