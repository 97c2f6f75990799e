"""Trust: whom members are to trust, streamed to them, and who has confirmed it. Plans no rotation."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshcore.api import trust_pb2, trust_pb2_grpc

from ..identity import Trust
from ..settings import Bounds
from .answers import refuse
from .peers import Peers
from .streams import Streams


class Bundles(trust_pb2_grpc.TrustServicer):  # type: ignore[misc]
    """The first bundle at once, then each new one. A member confirms what it trusts by its position."""

    def __init__(self, trust: Trust, peers: Peers, streams: Streams, bounds: Bounds) -> None:
        self._trust = trust
        self._peers = peers
        self._streams = streams
        self._bounds = bounds
        self._watching: dict[object, str] = {}
        self._changed = asyncio.Event()
        self._draining = False
        trust.on_change.append(self._wake)

    @property
    def unconfirmed(self) -> int:
        """Members on streams here that have not said that they trust the present bundle."""
        position = self._position()
        return sum(confirmed != position for confirmed in self._watching.values())

    @property
    def watching(self) -> int:
        return len(self._watching)

    async def Watch(self, request_iterator: Any, context: Any) -> None:
        stream = object()
        try:
            with self._streams.one(self._peers.member(context)):
                self._watching[stream] = ""
                listening = asyncio.create_task(self._listen(stream, request_iterator))
                try:
                    await self._tell(context, listening)
                finally:
                    listening.cancel()
                    del self._watching[stream]
        except Exception as error:
            await refuse(context, error)

    async def _tell(self, context: Any, listening: asyncio.Task[None]) -> None:
        told = ""
        age_s = self._bounds.stream_age_s * random.uniform(0.9, 1.1)
        try:
            async with asyncio.timeout(age_s):
                while not self._draining:
                    changed = self._changed
                    if (position := self._position()) != told:
                        told = position
                        await context.write(self._bundle())
                    await _either(changed, listening)
        except TimeoutError:
            return

    async def _listen(self, stream: object, confirmations: Any) -> None:
        async for one in confirmations:
            self._watching[stream] = one.position[:64]

    def drain(self) -> None:
        """Ends every stream."""
        self._draining = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _position(self) -> str:
        """Not the store's: a bundle is named by what is in it, so that a step that changes no root asks for nothing."""
        return "+".join(root.fingerprint[:16] for root in self._trust.state.roots)

    def _bundle(self) -> Any:
        roots: tuple[x509.Certificate, ...] = self._trust.roots
        return trust_pb2.Bundle(
            position=self._position(),
            trust_domain=self._trust.trust_domain,
            roots=[one.public_bytes(serialization.Encoding.DER) for one in roots],
        )


async def _either(changed: asyncio.Event, listening: asyncio.Task[None]) -> None:
    """Until something changed. What went wrong in listening is raised; a member that has no more to say goes on reading."""
    waiting = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait({waiting, listening}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
            await waiting
    finally:
        waiting.cancel()
