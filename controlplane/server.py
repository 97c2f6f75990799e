"""A control plane: the parts put together, started and ended in order. Owns their lives, and nothing that they do.

Up:   store, trust, view (the first snapshot), services, door. Nothing is served that was not read first.
Down: streams are told to go elsewhere, the door drains, the services end, the store closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Self

import grpc

from meshcore.api import identity_pb2_grpc, trust_pb2_grpc

from . import home
from .audit import AuditFile
from .catalogue import Catalogue
from .door import Door
from .errors import StoreUnavailable
from .identity import (
    HandshakeIdentities,
    HandshakeIdentity,
    Issuer,
    IssuingPolicy,
    JoinToken,
    JoinTokens,
    Leaf,
    PrivateKey,
    Trust,
)
from .resolve import View
from .serving.certify import Certify
from .serving.destination import Destination
from .serving.discovery import Discovery
from .serving.handlers import destination_handlers, discovery_handlers
from .serving.peers import Peers
from .serving.streams import Streams
from .serving.trust import Bundles
from .settings import Settings
from .spiffe import SpiffeId

NAMESPACE, ACCOUNT = "meshcore", "control-plane"
FIRST_SNAPSHOT_S = 30.0


class ControlPlane:
    """One replica. `async with` starts and ends it."""

    def __init__(self, settings: Settings) -> None:
        settings.check()
        self.settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = contextlib.AsyncExitStack()
        self.draining = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- up ---------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        settings = self.settings
        folder = home.make(settings)
        self.audit = AuditFile(folder / "audit.log")
        self._closing.callback(self.audit.close)
        self.store = await self._closing.enter_async_context(home.store_of(settings))
        self.catalogue = Catalogue(self.store, self.audit)
        self.trust = Trust(self.store, self.audit, settings.trust_domain, [home.authority_of(settings)])
        await self.trust.open(time.time(), leaf_s=settings.leaf_s)
        self.join_tokens = JoinTokens(self.store, self.audit)
        self.view = View(self.catalogue, settings.trust_domain, settings.cluster_domain)
        self._closing.push_async_callback(self._cancel)
        self._run(self.view.follow())
        self._run(self._follow_trust())
        if not await self.view.reached(None, FIRST_SNAPSHOT_S):
            raise StoreUnavailable("the store has told nothing yet")
        await self._serve()
        home.publish(folder / "root.pem", self.bundle_pem)

    async def _serve(self) -> None:
        # A socket's path must be short, and its folder is what keeps others out.
        self._private = Path(tempfile.mkdtemp(prefix="meshcore-"))
        self._closing.callback(shutil.rmtree, self._private, ignore_errors=True)
        backend = self._private / "services.sock"
        bounds = self.settings.bounds
        peers = Peers(self.settings.trust_domain, is_local=False)
        self.streams = Streams(bounds)
        self.issuer = Issuer(
            self.trust,
            {JoinToken: self.join_tokens, HandshakeIdentity: HandshakeIdentities(self.trust)},
            self.audit,
            policy=IssuingPolicy(lifetime_s=self.settings.leaf_s),
        )
        self.bundles = Bundles(self.trust, peers, self.streams, bounds)
        self.discovery = Discovery(self.view, peers, self.streams, bounds, self.settings.cluster_domain)
        self.destination = Destination(self.view, peers, self.streams, bounds, self.settings.cluster_domain)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", bounds.message_bytes),
                ("grpc.max_concurrent_streams", bounds.streams),
                # Its one client is our door, which answers for those behind it.
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ]
        )
        identity_pb2_grpc.add_IdentityServicer_to_server(Certify(self.issuer, peers), server)
        trust_pb2_grpc.add_TrustServicer_to_server(self.bundles, server)
        server.add_generic_rpc_handlers(
            (discovery_handlers(self.discovery), destination_handlers(self.destination))
        )
        server.add_insecure_port(f"unix:{backend}")
        await server.start()
        self._closing.push_async_callback(server.stop, 1.0)
        os.chmod(backend, 0o600)
        self.door = Door(self.settings, self._private, backend)
        self._key, self._leaf = self._own_leaf()
        await self.door.open(self._leaf, self._key, self.bundle_pem)
        self._closing.push_async_callback(self.door.close)
        self._shown = asyncio.Event()
        self.trust.on_change.append(self._shown.set)
        self._run(self._keep_door())

    def _own_leaf(self) -> tuple[PrivateKey, Leaf]:
        key = PrivateKey.generate()
        identity = SpiffeId.of(self.settings.trust_domain, NAMESPACE, ACCOUNT)
        leaf = self.trust.authority().issue(
            key.public, identity, time.time(), self.settings.leaf_s, common_name=ACCOUNT
        )
        return key, leaf

    async def _keep_door(self) -> None:
        """A new certificate of our own at 70 %, and the present roots: without a restart."""
        while True:
            wait_s = max(1.0, self._leaf.renew_at_s - time.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._shown.wait()
            self._shown.clear()
            self._key, self._leaf = self._own_leaf()
            await self.door.show(self._leaf, self._key, self.bundle_pem)
            home.publish(Path(self.settings.data) / "root.pem", self.bundle_pem)

    async def _follow_trust(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.trust.follow()
            await asyncio.sleep(1.0)

    def _run(self, work: object) -> None:
        self._tasks.append(asyncio.ensure_future(work))  # type: ignore[call-overload]

    # -- there ------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """`host:port` that proxies dial."""
        return self.door.address

    @property
    def bundle_pem(self) -> bytes:
        """Every root that is trusted now."""
        return self.trust.state.bundle_pem.encode()

    # -- down -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Lets streams go elsewhere, then ends everything."""
        if not self.draining.is_set():
            self.draining.set()
            self.discovery.drain()
            self.destination.drain()
            self.bundles.drain()
            await self.door.drain(self.settings.drain_s)
        await self._closing.aclose()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
