"""A control plane: the parts put together, started and ended in order. Owns their lives, and nothing that they do.

Up:   store, trust, view (the first snapshot), services, door. Nothing is served that was not read first.
Down: streams are told to go elsewhere, the door drains, the services end, the store closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Self

import grpc

from . import home, metrics, parts
from .audit import AuditFile
from .catalogue import Catalogue
from .discovery import configured, feeding
from .discovery.feeding import Feed
from .discovery.source import Source
from .door import Door
from .errors import Denied, StoreUnavailable
from .identity import (
    AuthorityError,
    HandshakeIdentities,
    HandshakeIdentity,
    Issuer,
    IssuingPolicy,
    JoinToken,
    JoinTokens,
    KeyFileError,
    Leaf,
    PrivateKey,
    ServiceAccountToken,
    Trust,
    Verifier,
    rotation,
)
from .observation.parts import Observing
from .resolve import View
from .serving.departures import Departures
from .serving.destination import Destination
from .serving.discovery import Discovery
from .serving.peers import Peers
from .serving.permissions import Permissions
from .serving.reading import Reading
from .serving.roots import Roots
from .serving.streams import Streams
from .serving.trust import Bundles
from .settings import Settings
from .spiffe import SpiffeId

NAMESPACE, ACCOUNT = "meshcore", "control-plane"
FIRST_SNAPSHOT_S = 30.0
_log = logging.getLogger("controlplane.server")


def package_version() -> str:
    """The version of the distribution this runs from."""
    try:
        return importlib.metadata.version("meshcore")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a tree that was never installed


class ControlPlane:
    """One replica. `async with` starts and ends it."""

    def __init__(self, settings: Settings) -> None:
        settings.check()
        self.settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = contextlib.AsyncExitStack()
        self.draining = asyncio.Event()
        self.reading = Reading()
        self.started_at_s = time.time()

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
        self.trust = Trust(self.store, self.audit, settings.trust_domain, home.authorities_of(settings).values())
        await self.trust.open(time.time(), leaf_s=settings.leaf_s)
        self._phase = self.trust.state.phase
        try:
            self.trust.authority()
        except Denied as denied:
            raise StoreUnavailable(
                f"{denied.why}; put one into {folder}/authority (meshctl authority new-intermediate), as the first replica has it"
            ) from None
        self.join_tokens = JoinTokens(self.store, self.audit)
        self.permissions = Permissions(settings.roles, self.audit)
        sources = self._sources()
        self.view = View(
            self.catalogue, settings.trust_domain, settings.cluster_domain, [source.name for source in sources]
        )
        self.feeds = [Feed(source, self.view, self._source_folder(folder)) for source in sources]
        self._closing.push_async_callback(self._cancel)
        self._run(self.view.follow())
        for feed in self.feeds:
            self._run(feed.run())
        self._run(self._follow_trust())
        # Sources may come later: until each has been heard, names are not answered, and certificates are.
        if not await self.view.read(FIRST_SNAPSHOT_S):
            raise StoreUnavailable("the store has told nothing yet")
        await self._serve()
        home.publish(folder / "root.pem", self.bundle_pem)
        if settings.metrics:
            from .http import Pages

            self.pages = Pages(settings.metrics, lambda: metrics.text(self), self._why_not_ready)
            await self.pages.open()
            self._closing.push_async_callback(self.pages.close)

    def _sources(self) -> list[Source]:
        if not self.settings.sources:
            return []
        path = Path(self.settings.sources)
        return configured.made(configured.read(path.read_text(), str(path)), self.settings.trust_domain)

    @staticmethod
    def _source_folder(folder: Path) -> Path:
        """Where sources keep what they told last."""
        kept = folder / "sources"
        kept.mkdir(mode=0o700, exist_ok=True)
        return kept

    async def _serve(self) -> None:
        # A socket's path must be short, and its folder is what keeps others out.
        self._private = Path(tempfile.mkdtemp(prefix="meshcore-"))
        self._closing.callback(shutil.rmtree, self._private, ignore_errors=True)
        backend = self._private / "services.sock"
        bounds = self.settings.bounds
        peers = Peers(self.settings.trust_domain, is_local=False)
        self.streams = Streams(bounds)
        self.departures = Departures(self.store, self.draining.is_set)
        verifiers: dict[type, Verifier] = {
            JoinToken: self.join_tokens,
            HandshakeIdentity: HandshakeIdentities(self.trust),
        }
        kubernetes = home.kubernetes_tokens_of(self.settings)
        if kubernetes is not None:
            verifiers[ServiceAccountToken] = kubernetes
        self.issuer = Issuer(
            self.trust,
            verifiers,
            self.audit,
            policy=IssuingPolicy(lifetime_s=self.settings.leaf_s),
        )
        self.bundles = Bundles(self.trust, peers, self.streams, bounds)
        make = None if self.settings.etcd else lambda: home.new_root(self.settings)
        self.roots = Roots(self.trust, self.bundles, lambda: home.authorities_of(self.settings), make)
        self.discovery = Discovery(self.view, peers, self.streams, bounds, self.settings.cluster_domain)
        self._run(self.discovery.keep_time())
        self.destination = Destination(self.view, peers, self.streams, bounds, self.settings.cluster_domain)
        self.observing = Observing(self.view.index, self.audit, self.permissions, self.streams, bounds)
        self._closing.push_async_callback(self.departures.close)
        server = self._server()
        parts.add_for_members(self, server, peers)
        parts.add_for_operators(self, server, peers)
        await self._start(server, backend)
        local = self._server()
        parts.add_for_operators(self, local, Peers(self.settings.trust_domain, is_local=True))
        await self._start(local, self.settings.admin_path)
        self.door = Door(self.settings, self._private, backend)
        self._key, self._leaf = self._own_leaf()
        await self.door.open(self._leaf, self._key, self.bundle_pem)
        self._closing.push_async_callback(self.door.close)
        self._shown = asyncio.Event()
        self.trust.on_change.append(self._take_authorities)
        self.trust.on_change.append(self._shown.set)
        self._run(self._keep_door())

    def _server(self) -> grpc.aio.Server:
        bounds = self.settings.bounds
        return grpc.aio.server(
            interceptors=(self.reading,),
            options=[
                ("grpc.max_receive_message_length", bounds.message_bytes),
                ("grpc.max_concurrent_streams", bounds.streams),
                # Calls that wait to be looked at. Beyond a thousand gRPC refuses more and more of them, and every proxy of
                # a mesh comes back within the same second when a replica has ended.
                ("grpc.server.max_pending_requests", bounds.streams),
                ("grpc.server.max_pending_requests_hard_limit", bounds.streams),
                # Two replicas on one socket would share its callers.
                ("grpc.so_reuseport", 0),
            ]
        )

    async def _start(self, server: grpc.aio.Server, path: Path) -> None:
        """Listens on a socket that nobody else may open."""
        before = os.umask(0o077)
        try:
            server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)
        await server.start()
        self._closing.push_async_callback(server.stop, 1.0)

    def _own_leaf(self) -> tuple[PrivateKey, Leaf]:
        key = PrivateKey.generate()
        identity = SpiffeId.of(self.settings.trust_domain, NAMESPACE, ACCOUNT)
        leaf = self.trust.authority().issue(
            key.public, identity, time.time(), self.settings.leaf_s, common_name=ACCOUNT
        )
        return key, leaf

    async def _keep_door(self) -> None:
        """A new certificate of our own at 70 %, and the present roots: without a restart."""
        lacks_authority = False
        while True:
            wait_s = 5.0 if lacks_authority else max(1.0, self._leaf.renew_at_s - time.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._shown.wait()
            self._shown.clear()
            try:
                self._key, self._leaf = self._own_leaf()
                lacks_authority = False
            except Denied as denied:
                # What we have is good for hours, and an authority may be put into the folder meanwhile.
                if not lacks_authority:
                    _log.error("no new certificate of our own: %s", denied.why)
                lacks_authority = True
                self._take_authorities()
            await self.door.show(self._leaf, self._key, self.bundle_pem)
            home.publish(Path(self.settings.data) / "root.pem", self.bundle_pem)

    def _take_authorities(self) -> None:
        """Signs with what lies in the folder by now; what nobody trusts any more is put away."""
        state, before = self.trust.state, self._phase
        self._phase = state.phase
        try:
            for authority in home.authorities_of(self.settings).values():
                self.trust.add(authority)
            if (before, state.phase) == (rotation.RETIRING, rotation.STEADY):
                home.retire_authorities(self.settings, {root.fingerprint for root in state.roots})
        except (AuthorityError, KeyFileError, Denied, OSError) as error:
            _log.error("authorities of the folder: %s", error)

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

    @property
    def holding(self) -> int:
        """Names whose last endpoints are kept although they are gone."""
        return sum(subject.is_holding for subject in self.view.subjects.values())

    @property
    def leaf_left_s(self) -> float:
        """Time until our own certificate ends."""
        return self._leaf.not_after_s - time.time()

    @property
    def authority_left_s(self) -> float:
        """Time until what signs now ends; 0 when this replica cannot sign."""
        with contextlib.suppress(Denied):
            return self.trust.authority().not_after_s - time.time()
        return 0.0

    def status(self) -> dict[str, object]:
        """How this replica is doing."""
        return metrics.status(self, package_version())

    def source_states(self) -> list[dict[str, object]]:
        """Each source of discovery."""
        return [feed.state() for feed in self.feeds]

    def more_metrics(self) -> list[metrics.Row]:
        """Figures of parts that come and go."""
        return list(feeding.rows(self.feeds))

    def _why_not_ready(self) -> str:
        # A store that is away is no reason: what is known is served, and nobody else could serve more.
        if self.draining.is_set():
            return "draining"
        return f"waiting for {', '.join(sorted(self.view.unheard))}" if self.view.unheard else ""

    # -- down -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Lets streams go elsewhere, then ends everything."""
        if not self.draining.is_set():
            self.draining.set()
            self.discovery.drain()
            self.destination.drain()
            self.observing.drain()
            self.bundles.drain()
            await self.door.drain(self.settings.drain_s)
        await self._closing.aclose()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
