"""The agent of one proxy: its thread, its loop, and how its parts hang together. Each part's own file says what it does.

Order of a life: a certificate, then a connection with all parts on it, until stopped. The proxy is handed in when it is
configured; nothing of it waits for the control plane but names that were never heard of.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshcore import Proxy
from meshcore.errors import MeshError

from .answers import Answer
from .binding import CONTEXT
from .certificate import Certificate
from .discovery import Discovery
from .identity import Identity
from .link import Link, LinkState, Part
from .outside import Outside
from .readiness import Readiness
from .registration import Claim, Registration
from .relay import Relay
from .saved_answers import SavedAnswers
from .sidecar import direction_of, is_application
from .state_directory import StateDirectory, StateError
from .statistics import Statistics
from .trust import Trust
from .watching import Told, Watching

SAVE_EVERY_S = 1.0  # what was learned in the last second before a crash is learned again
LEAVE_S = 2.0
_log = logging.getLogger("meshcore.agent")


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control plane is, and who we are."""

    control_plane: tuple[str, ...]
    """`host:port`, tried in turn."""
    namespace: str
    workload: str
    account: str
    trust_bundle: Path
    state_directory: Path
    trust_domain: str = ""
    """Empty: the one that the trust bundle names."""
    join_token: Path | None = None
    claim: Claim | None = None
    """Register this workload; None: somebody else does."""
    app_port: int = 0
    """With a claim: callers are told of us while the application listens there. 0: always."""
    version: str = ""
    labels: dict[str, str] = {}
    """Of this workload, for metrics and taps."""


class AgentState(msgspec.Struct, frozen=True):
    """What can be seen of an agent."""

    identity: str
    certificate_until_s: float
    link: LinkState
    watched: int
    position: str
    is_registered: bool
    takes_requests: bool
    """Callers are told of us: registered, the application listens, and nobody drains us."""
    renewals: int
    trusted_roots: int
    last_error: str


class Agent:
    """`start`, `wait_for_certificate`, `attach` a configured proxy, `serve` when it runs, `stop`. From any thread but its own."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.state_directory = StateDirectory(settings.state_directory)
        self._trust = Trust(_read_bundle(settings.trust_bundle), settings.trust_domain, self.state_directory)
        identity = f"spiffe://{self._trust.bundle.trust_domain}/ns/{settings.namespace}/sa/{settings.account}"
        self._identity = Identity(identity, settings.join_token, self._trust, self.state_directory)
        self._saved = SavedAnswers(self.state_directory, identity)
        self._outside = Outside()
        self._proxy: Proxy | None = None
        self._listeners: tuple[str, ...] = ()
        self._watching: Watching | None = None
        self._discovery: Discovery | None = None
        self._registration: Registration | None = None
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._serving: asyncio.Event | None = None
        self._stopping: asyncio.Event | None = None
        self._has_certificate = threading.Event()
        self._error: BaseException | None = None

    @property
    def identity(self) -> str:
        return self._identity.identity

    @property
    def certificate(self) -> Certificate | None:
        return self._identity.certificate

    # --- life ---

    def start(self) -> None:
        """Begin to get a certificate; returns at once."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="meshcore-agent", daemon=True)
        self._thread.start()
        ready.wait()

    def wait_for_certificate(self, timeout_s: float | None = None) -> bool:
        """True when there is one. Raises what made it impossible: a refused token, for one."""
        self._has_certificate.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return self._identity.is_usable

    def attach(self, proxy: Proxy, *, http_routes: Iterable[str], listeners: Iterable[str], falls_back: bool) -> None:
        """Answer this proxy's lookups from now on. Before it starts, and after there is a certificate.

        http_routes: its routes with a lookup that read requests. listeners: those that show our certificate.
        falls_back: names that are not of the mesh go where their client was going; else to where the system resolves them.
        """
        self._proxy = proxy
        self._listeners = tuple(listeners)
        self._set_certificate()
        watching = Watching(
            self._tell,
            saved=self._load_saved(),
            http_routes=http_routes,
            falls_back=falls_back,
            outside=self._outside,
            is_connected=lambda: self._discovery is not None and self._link is not None and self._link.state.is_connected,
        )
        self._watching = watching
        proxy.on_lookup(lambda lookups: self._soon(watching.look_up, list(lookups)))
        proxy.on_idle(lambda keys: self._soon(watching.forget, list(keys)))

    def serve(self) -> None:
        """The proxy runs: connect, watch, register."""
        assert self._loop is not None and self._serving is not None
        self._loop.call_soon_threadsafe(self._serving.set)

    def renew(self) -> None:
        """Ask for the next certificate now."""
        self._soon(self._identity.renew)

    def drain(self, timeout_s: float = LEAVE_S) -> bool:
        """Tell callers' proxies to send nothing new. True when that was heard; True as well where nothing is registered."""
        registration = self._registration
        if self.settings.claim is None or registration is None:
            return self.settings.claim is None
        return bool(self._call(registration.drain(timeout_s), timeout_s + 1, False))

    def stop(self) -> None:
        """Leave, save, end the thread. Safe to repeat."""
        if self._thread is None or self._loop is None or not self._thread.is_alive():
            return
        if self._registration is not None:
            self._call(self._registration.leave(LEAVE_S), LEAVE_S + 1, False)
        assert self._stopping is not None
        self._soon(self._stopping.set)
        self._thread.join(10.0)

    def state(self) -> AgentState:
        """Read racily."""
        certificate, registration = self._identity.certificate, self._registration
        link = self._link.state if self._link is not None else LinkState()
        return AgentState(
            identity=self.identity,
            certificate_until_s=certificate.not_after_s if certificate is not None else 0.0,
            link=link,
            watched=len(self._watching.all()) if self._watching is not None else 0,
            position=self._discovery.position if self._discovery is not None else "",
            is_registered=registration is not None and registration.is_registered,
            takes_requests=registration is not None and registration.is_registered and registration.takes_requests,
            renewals=self._identity.renewals,
            trusted_roots=len(self._trust.roots),
            last_error=self._identity.last_error or link.last_error,
        )

    # --- the loop ---

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._live(ready))
        except MeshError as error:
            self._error = error
        except Exception as error:
            _log.exception("the agent ended")
            self._error = error
        finally:
            self._has_certificate.set()
            ready.set()

    async def _live(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._serving, self._stopping = asyncio.Event(), asyncio.Event()
        ready.set()
        living = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (living, stopping):
            task.cancel()
        results = await asyncio.gather(living, stopping, return_exceptions=True)
        self._outside.close()
        self._save()
        if isinstance(results[0], Exception):
            raise results[0]

    async def _serve(self) -> None:
        self._identity.on_change = lambda _: self._certificate_changed()
        self._trust.on_change = lambda _: self._certificate_changed()
        addresses = list(self.settings.control_plane)
        await self._identity.join(addresses)
        self._has_certificate.set()
        assert self._serving is not None
        await self._serving.wait()
        self._link = Link(addresses, self._identity.shown, self._make_parts())
        beside = [asyncio.create_task(self._keep_saving())]
        if self._registration is not None and self.settings.app_port:
            self._registration.is_ready = False
            beside.append(asyncio.create_task(Readiness(self.settings.app_port, self._registration.ready).run()))
        try:
            await self._link_with_certificate(addresses)
        finally:
            for task in beside:
                task.cancel()

    def _make_parts(self) -> dict[str, Part]:
        assert self._watching is not None
        settings = self.settings
        # Under the name it registers, the control plane knows its labels.
        name = settings.claim.name if settings.claim is not None else settings.workload
        workload = f"{settings.namespace}/{name}"
        self._discovery = Discovery(
            self._watching, version=settings.version, workload=workload, on_leaving=self._go_elsewhere
        )
        assert self._proxy is not None
        parts: dict[str, Part] = {
            "identity": self._identity.run,
            "trust": self._trust.run,
            "discovery": self._discovery.run,
            "relay": Relay(self._proxy, workload, settings.version, direction_of),
            "statistics": Statistics(self._proxy, workload, direction_of, is_application),
        }
        if settings.claim is not None:
            self._registration = Registration(settings.claim)
            parts["registration"] = self._registration.run
        return parts

    async def _link_with_certificate(self, addresses: list[str]) -> None:
        """Hold the link; when the certificate ran out in an outage, begin again with the token."""
        assert self._link is not None
        while True:
            linked = asyncio.create_task(self._link.run())
            try:
                while self._identity.is_usable:
                    done, _ = await asyncio.wait({linked}, timeout=1.0)
                    if done:
                        linked.result()
            finally:
                linked.cancel()
                await asyncio.gather(linked, return_exceptions=True)
            _log.error("the certificate of %s has expired; asking for another by token", self.identity)
            await self._identity.join(addresses)

    def _go_elsewhere(self) -> None:
        if self._link is not None:
            self._link.go_elsewhere()

    def _certificate_changed(self) -> None:
        self._set_certificate()
        if self._link is not None:
            self._link.renew()

    def _set_certificate(self) -> None:
        """Show it from the next handshake on. Both directions, and whom they trust."""
        certificate, bundle = self._identity.certificate, self._trust.bundle
        if self._proxy is None or certificate is None:
            return
        self._proxy.set_tls_context(CONTEXT, cert=certificate.chain_pem, key=bytearray(certificate.key_pem), ca=bundle.roots_pem)
        for listener in self._listeners:
            self._proxy.set_certificate(listener, certificate.chain_pem, bytearray(certificate.key_pem))
            self._proxy.set_trust_bundle(listener, bundle.roots_pem)

    # --- what is known ---

    def _tell(self, told: list[Told]) -> None:
        assert self._proxy is not None
        self._proxy.bind_many([(route, name, overrides, bound, ttl_s) for route, name, overrides, bound, ttl_s in told])

    def _load_saved(self) -> Mapping[str, Answer]:
        try:
            return self._saved.load()
        except StateError as error:
            _log.warning("%s", error)
            return {}

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            if self._watching is not None and self._watching.is_dirty:
                self._watching.is_dirty = False
                answers = self._watching.answers()
                await asyncio.to_thread(self._save_answers, answers)

    def _save(self) -> None:
        if self._watching is not None:
            self._save_answers(self._watching.answers())

    def _save_answers(self, answers: Mapping[str, Answer]) -> None:
        try:
            self._saved.save(answers)
        except OSError as error:
            _log.error("what is known could not be saved: %s", error)

    # --- between threads ---

    def _soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop has ended: the proxy is about to

    def _call(self, work: Awaitable[Any], timeout_s: float, otherwise: Any) -> Any:
        async def awaited() -> Any:
            return await work

        assert self._loop is not None
        try:
            return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(timeout_s)
        except (TimeoutError, RuntimeError, asyncio.CancelledError):
            return otherwise


def _read_bundle(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise StateError(f"--trust-bundle {path}: {error.strerror}") from None
