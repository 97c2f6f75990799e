"""Destination: endpoints of one name on one stream, as linkerd's proxies ask for them. Owns the stream; not what is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any, Protocol

from meshcore.api import discovery_pb2

from ..errors import StoreUnavailable
from ..resolve import Address, Foreign, Malformed, Subject, Target, View, parse
from ..settings import Bounds
from .answers import refuse
from .peers import Peer, Peers
from .profiles import profile_of
from .streams import Streams

SERVICE = "io.linkerd.proxy.destination.Destination"
MAX_TOKEN_CHARS = 4_096


class Destination:
    """Get and GetProfile. Each answer is the newest state; what a slow reader missed is never sent."""

    def __init__(self, view: View, peers: Peers, streams: Streams, bounds: Bounds, cluster_domain: str) -> None:
        self.view = view
        self._peers = peers
        self._streams = streams
        self._bounds = bounds
        self._cluster_domain = cluster_domain
        self._draining = asyncio.Event()

    async def Get(self, request: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            target = self.target(request, peer)
            if isinstance(target, Address):
                raise Malformed("IP queries not supported by Get API")
            if isinstance(target, Foreign):
                raise Malformed(f"{target.host} is no name of a service of this mesh")
            with self._streams.one(peer):
                await self.follow(target, context, _Updates())
        except Exception as error:
            await refuse(context, error)

    async def GetProfile(self, request: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            target = self.target(request, peer)
            with self._streams.one(peer):
                await self.follow(target, context, _Profiles())
        except Exception as error:
            await refuse(context, error)

    def drain(self) -> None:
        """Ends every stream: its proxy comes again, to another replica."""
        self._draining.set()

    async def until_drained(self) -> None:
        """For a stream that has nothing new to say: until it is old, or drained."""
        age_s = self._bounds.stream_age_s * random.uniform(0.9, 1.1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(age_s):
                await self._draining.wait()

    def target(self, request: Any, peer: Peer) -> Target:
        """What a GetDestination means to its caller."""
        own = peer.identity.namespace if peer.identity is not None else ""
        return parse(request.path, namespace_of(request.context_token) or own, self._cluster_domain)

    async def follow(self, target: Target, context: Any, telling: Telling) -> None:
        """Says how a name is, and each change, until the stream is old, drained, or not read."""
        if not await self.view.reached(None, self._bounds.catch_up_ms / 1_000):
            raise StoreUnavailable("not all sources have been heard yet")
        watcher = _Watcher()
        subject = self.view.begin(target, watcher)
        age_s = self._bounds.stream_age_s * random.uniform(0.9, 1.1)
        drained = asyncio.create_task(self._draining.wait())
        drained.add_done_callback(lambda _: watcher.woken.set())
        try:
            async with asyncio.timeout(age_s):
                while not self._draining.is_set():
                    watcher.woken.clear()
                    for message in telling.news(subject):
                        async with asyncio.timeout(self._bounds.silence_ms / 1_000):
                            await context.write(message)
                    await watcher.woken.wait()
        except TimeoutError:
            return
        finally:
            drained.cancel()
            self.view.end(subject, watcher)


class Telling(Protocol):
    """What a stream says of its name."""

    def news(self, subject: Subject) -> tuple[bytes, ...]:
        """Messages that lead from what was said to the present state; none when nothing is new."""


class _Watcher:
    def __init__(self) -> None:
        self.woken = asyncio.Event()

    def changed(self, subject: Subject) -> None:
        self.woken.set()


class _Updates:
    """What Get says."""

    def __init__(self) -> None:
        self._told: Any = None

    def news(self, subject: Subject) -> tuple[bytes, ...]:
        messages = subject.updates(self._told)
        self._told = subject.state
        return messages


class _Profiles:
    """What GetProfile says."""

    def __init__(self) -> None:
        self._told = b"none yet"

    def news(self, subject: Subject) -> tuple[bytes, ...]:
        policy = discovery_pb2.Policy.FromString(subject.state.policy)
        message: bytes = profile_of(subject, policy).SerializeToString(deterministic=True)
        if message == self._told:
            return ()
        self._told = message
        return (message,)


def namespace_of(token: str) -> str:
    """The caller's namespace in linkerd's context token: JSON with `ns`, or the older `ns:<namespace>`. Empty for all
    else: a bad token is no error there."""
    if not token or len(token) > MAX_TOKEN_CHARS:
        return ""
    if token.startswith("ns:"):
        return token[3:66]
    try:
        found = json.loads(token)
    except (ValueError, RecursionError):
        return ""
    namespace = found.get("ns") if isinstance(found, dict) else None
    return namespace[:63] if isinstance(namespace, str) else ""
