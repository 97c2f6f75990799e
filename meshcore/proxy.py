"""A proxy inside this process: `Proxy` starts worker threads, applies configurations, answers about traffic.

    with Proxy("mesh.yaml") as proxy:
        print(proxy.addresses, proxy.stats().requests)

Traffic never passes through here: it flows below the GIL, in the engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshcore._fastpath import Engine, FilterLoop, Names, TapHub, TlsContext
from meshcore.bindings import Binding, BoundName, Key, Lookup, Negative, binding_plan, bound_names, key_of, lifetime_ns
from meshcore.certificates import Certificates, Owner, shared_context
from meshcore.config import Config, Diff, Duration, compile_plan, diff, read
from meshcore.config.plan import INTERCEPTION
from meshcore.counts import Counts
from meshcore.errors import ConfigError, EngineError
from meshcore.filters import Registry, RequestFilter, ResponseFilter
from meshcore.health import HealthChecks, require_grpc, targets_of
from meshcore.sockets import open_listener
from meshcore.stats import Stats, snapshot
from meshcore.tap_sessions import open_session
from meshcore.taps import TapFilter, TapSession, tap_filter

_DRAIN_POLL_S = 0.01
_SIGNAL_POLL_S = 1.0

OnLookup = Callable[[list[Lookup]], None]
OnIdle = Callable[[list[Key]], None]
ConfigLike = Config | Mapping[str, Any] | str | os.PathLike[str]


class Proxy:
    """One running data plane. Use it as a context manager, sync or async; `start` and `stop` do the same by hand.

    config: a `Config`, a mapping of the same shape, YAML text, or the path of a YAML file.
    install_signals: SIGTERM and SIGINT drain and stop this proxy (main thread only). Off: signals are the caller's.
    Raises ConfigError for a configuration that cannot be used, OSError when a listener cannot be opened.
    """

    def __init__(self, config: ConfigLike, *, install_signals: bool = False) -> None:
        self._config = read(config)
        self._filters = Registry()
        self._certificates = Certificates()
        self._filter_functions: dict[str, tuple[tuple[RequestFilter, ...], tuple[ResponseFilter, ...]]] = {}
        self._engine: Engine | None = None
        self._filter_loop: FilterLoop | None = None
        self._hub: TapHub | None = None
        self._names: Names | None = None
        self._on_lookup: OnLookup | None = None
        self._on_idle: OnIdle | None = None
        self._shared_contexts: dict[str, TlsContext] = {}
        self._health: HealthChecks | None = None
        self._bound: dict[tuple[str, str], tuple[str, int]] = {}
        self._lock = threading.RLock()
        self._started_ns = 0
        self._install_signals = install_signals
        self._stopped = threading.Event()

    # --- life ---

    def start(self) -> Proxy:
        """Bind every listener and start the workers; returns when connections are accepted."""
        with self._lock:
            if self._engine is not None:
                raise EngineError("this Proxy was started before; make a new one")
            plan = compile_plan(self._config)
            engine = Engine(plan["workers"], io_uring=plan["io_uring"])
            self._engine = engine
            self._filter_loop = FilterLoop(engine)
            self._hub = TapHub(engine)
            self._names = Names(engine, Lookup, binding_plan(Negative(reason="lookup_failed")))
            self._health = HealthChecks(engine.set_unhealthy)
            self._started_ns = time.monotonic_ns()
            try:
                self._apply(self._config, plan)
                for name, context in self._shared_contexts.items():
                    self._names.set_context(name, context)
            except BaseException:
                self._engine = None
                raise
        if self._install_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=self._drain_and_stop, daemon=True).start())
        return self

    def drain(self, timeout_s: float | None = None) -> bool:
        """Stop accepting, close idle connections, let exchanges finish. True when none was left at the end.

        timeout_s: None takes `timeouts.drain` of the configuration.
        """
        if self._engine is None:
            return True
        if timeout_s is None:
            timeout_s = Duration(self._config.timeouts.drain).seconds
        deadline = time.monotonic() + timeout_s
        self._engine.drain()
        while self._engine.busy():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_DRAIN_POLL_S)
        return True

    def stop(self) -> None:
        """End now: connections are closed as they are. Safe to repeat."""
        with self._lock:
            if self._engine is not None and self._engine.running:
                assert self._filter_loop is not None
                if self._health is not None:
                    self._health.stop()
                # Before the workers: it reads heads that lie in their buffers.
                self._filter_loop.stop()
                if self._names is not None:
                    self._names.stop()
                self._engine.stop()
            self._certificates.forget()
            self._stopped.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the proxy is stopped (by a signal or another thread). True when it is."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # In slices: a signal that another thread takes, or that comes just before the wait, ends none; its handler runs after one.
        while not self._stopped.wait(_SIGNAL_POLL_S if deadline is None else min(_SIGNAL_POLL_S, deadline - time.monotonic())):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _drain_and_stop(self) -> None:
        self.drain()
        self.stop()

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Proxy:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)

    async def serve_forever(self) -> None:
        """Wait, inside a running loop, until the proxy is stopped."""
        while not self._stopped.is_set():
            await asyncio.sleep(0.1)

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else "running" if self._engine else "new"
        bound = ", ".join(f"{name}={host}:{port}" for name, (host, port) in self.addresses.items())
        return f"<Proxy {state} [{bound}]>"

    # --- configuration ---

    @property
    def config(self) -> Config:
        return self._config

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Listener name -> (host, port) as bound."""
        return {name: bound for (name, _), bound in self._bound.items()}

    def reload(self, config: ConfigLike | None = None) -> Diff:
        """Apply another configuration, all or nothing, and say what changed. None: the same, with its files read again.

        Exchanges under way end under the old one; listeners, pools and breakers that did not change are not touched.
        Raises ConfigError or OSError with nothing changed.
        """
        with self._lock:
            new = self._config if config is None else read(config)
            changes = diff(self._config, new)
            if self._engine is None:
                self._config = new
                return changes
            _check_transparency(self._config, new)
            plan = compile_plan(new)
            if plan["workers"] != self._engine.n_workers:
                # Threads are fixed for a process's life: the rest of the change is still worth having.
                plan["workers"] = self._engine.n_workers
            certificates = self._apply(new, plan)
            self._config = new
            return msgspec.structs.replace(changes, certificates_changed=certificates)

    def _apply(self, config: Config, plan: dict[str, Any]) -> tuple[str, ...]:
        assert self._engine is not None and self._filter_loop is not None and self._health is not None
        require_grpc(config)
        contexts = self._certificates.prepare(config)
        for kind in ("listener", "cluster"):
            for row in plan[f"{kind}s"]:
                row["tls"] = contexts.get((kind, row["name"]))
        self._check_filter_routes(plan)
        self._filters.mark(plan)
        self._configure_filters(plan)
        sockets: dict[tuple[str, str], list[int]] = {}
        bound: dict[tuple[str, str], tuple[str, int]] = {}
        try:
            for listener in plan["listeners"]:
                key = (listener["name"], listener["address"])
                if key in self._bound:
                    bound[key] = self._bound[key]
                    continue
                sockets[key], bound[key] = open_listener(
                    listener["address"],
                    self._engine.n_workers,
                    deferred_accept=listener["deferred_accept"],
                    transparent=listener["interception"] == INTERCEPTION["tproxy"],
                )
            self._engine.apply(plan, sockets)
        except BaseException:
            for fds in sockets.values():
                for fd in fds:
                    os.close(fd)
            raise
        self._bound = bound
        self._configure_names(plan)
        changed = self._certificates.commit(contexts)
        self._health.apply(targets_of(config, plan, self._certificates.checks))
        return changed

    def set_certificate(
        self, name: str, cert: bytes | None, key: bytes | bytearray | None, *, cluster: bool = False
    ) -> None:
        """Show this certificate chain and use this key from the next handshake on: of a listener, in place of its first
        certificate, or of a cluster. PEM. None, None: those of the files again. Open connections are not touched.

        A key in a bytearray is copied; wipe yours. Raises ConfigError with nothing changed.
        """
        if (cert is None) != (key is None):
            raise ConfigError("cert and key go together: give both, or None for both")
        self._give(("cluster" if cluster else "listener", name), {"cert": cert, "key": None if key is None else bytearray(key)})

    def set_trust_bundle(self, name: str, ca: bytes | None, *, crl: bytes | None = None, cluster: bool = False) -> None:
        """Check peers against these roots (PEM, several may stand in it) from the next handshake on: clients of a
        listener, or endpoints of a cluster. None: those of the file again. Raises ConfigError with nothing changed."""
        self._give(("cluster" if cluster else "listener", name), {"ca": ca, "crl": crl})

    def _give(self, owner: Owner, given: dict[str, bytes | bytearray | None]) -> None:
        with self._lock:
            sections = self._config.clusters if owner[0] == "cluster" else self._config.listeners
            if not any(one.name == owner[1] and one.tls is not None for one in sections):
                raise ConfigError(f"no {owner[0]} '{owner[1]}' with a tls section")
            before = self._certificates.give(owner, given)
            try:
                self._reapply()
            except BaseException:
                self._certificates.restore(owner, before)
                raise

    # --- filters ---

    def on_request(self, route: str = "*") -> Callable[[RequestFilter], RequestFilter]:
        """Decorator: run a function on every request of a route before it is forwarded. "*": every route."""

        def register(function: RequestFilter) -> RequestFilter:
            self._filters.add_request(route, function)
            self._reapply()
            return function

        return register

    def on_response(self, route: str = "*") -> Callable[[ResponseFilter], ResponseFilter]:
        """Decorator: run a function on every response head of a route before it is forwarded."""

        def register(function: ResponseFilter) -> ResponseFilter:
            self._filters.add_response(route, function)
            self._reapply()
            return function

        return register

    def _reapply(self) -> None:
        with self._lock:
            if self._engine is not None and self._engine.running:
                plan = compile_plan(self._config)
                plan["workers"] = self._engine.n_workers
                self._apply(self._config, plan)

    def _check_filter_routes(self, plan: dict[str, Any]) -> None:
        names = {route["name"] for route in plan["routes"]}
        for missing in sorted(self._filters.routes() - names):
            raise ConfigError(f"a filter asks for unknown route '{missing}'; routes are: {', '.join(sorted(names))}")
        tcp = {name for listener in plan["listeners"] for name in (listener["tcp_route"], *listener["tls_routes"])}
        http = {name for listener in plan["listeners"] for name in listener["routes"]}
        for deaf in sorted(self._filters.routes() & (tcp - http)):
            raise ConfigError(f"a filter asks for route '{deaf}', which only carries TCP: nothing would call it")

    def _configure_filters(self, plan: dict[str, Any]) -> None:
        """Tell the filter thread before the workers: no request of a filtered route may find it without its filter."""
        assert self._filter_loop is not None
        for route in plan["routes"]:
            if route["filters"]:
                # Added to, never taken from: exchanges of routes that left may still be on their way.
                self._filter_functions[route["name"]] = self._filters.of(route["name"])
        self._filter_loop.configure(self._filter_functions)

    # --- names ---

    def on_lookup(self, function: OnLookup) -> OnLookup:
        """Decorator: call a function with the names that requests need and nobody bound (see `lookup` of a route).

        It is called on a thread of the proxy's own with all names at hand, once per name while it is unknown. It must not
        block and answers by `bind`, there or later. When it raises, its names answer `lookup_failed` for a second.
        """
        with self._lock:
            self._on_lookup = function
            self._reconfigure_names()
        return function

    def on_idle(self, function: OnIdle) -> OnIdle:
        """Decorator: call a function with the keys of names that are bound no longer: unused, expired, or for want of room."""
        with self._lock:
            self._on_idle = function
            self._reconfigure_names()
        return function

    def bind(
        self, route: str, name: str, bound: Binding | Negative, *, overrides: str = "", ttl_s: float | None = None
    ) -> None:
        """Say what a name means, from now on, whether somebody asked or not. Requests that wait for it go on.

        ttl_s: after so long it is unknown again; None: until it is replaced, of a Negative 5 seconds. Exchanges under way
        keep what they began with. Raises ConfigError with nothing changed.
        """
        self.bind_many([(route, name, overrides, bound, ttl_s)])

    def bind_many(self, answers: Iterable[tuple[str, str, str, Binding | Negative, float | None]]) -> None:
        """(route, name, overrides, bound, ttl_s) for many names, in one hand-over."""
        names = self._running_names()
        try:
            names.bind(
                [
                    (key_of(route, name, overrides), binding_plan(bound), bound, lifetime_ns(bound, ttl_s))
                    for route, name, overrides, bound, ttl_s in answers
                ]
            )
        except LookupError as error:
            raise ConfigError(str(error.args[0])) from None

    def unbind(self, route: str, name: str, *, overrides: str = "") -> None:
        """The name means nothing any more: the next request asks again."""
        self._running_names().unbind([key_of(route, name, overrides)])

    def bindings(self) -> list[BoundName]:
        """Every name that is bound now."""
        return [] if self._names is None else bound_names(self._names.rows())

    def set_tls_context(
        self, name: str, *, ca: bytes, cert: bytes | None = None, key: bytes | bytearray | None = None, crl: bytes | None = None
    ) -> None:
        """A certificate of ours (PEM) and the roots that endpoints of bindings must lead to, under a name that they say as `tls`.

        Once more: from the next handshake on. With other roots, idle connections under the old ones are closed. Every
        endpoint still has to prove the identity that its binding names. Raises ConfigError with nothing changed.
        """
        if (cert is None) != (key is None):
            raise ConfigError("cert and key go together: give both, or none")
        context = shared_context(name, ca=ca, cert=cert, key=key, crl=crl)
        with self._lock:
            if self._names is not None and self._engine is not None and self._engine.running:
                self._names.set_context(name, context)
            self._shared_contexts[name] = context

    def _running_names(self) -> Names:
        if self._names is None or self._engine is None or not self._engine.running:
            raise EngineError("the proxy is not running: nothing can be bound")
        return self._names

    def _reconfigure_names(self) -> None:
        if self._engine is not None and self._engine.running:
            self._configure_names(compile_plan(self._config))

    def _configure_names(self, plan: dict[str, Any]) -> None:
        assert self._names is not None
        limits = plan["limits"]
        self._names.configure(
            on_lookup=self._on_lookup,
            on_idle=self._on_idle,
            most=limits["max_bound_names"],
            idle_ns=limits["bound_name_idle_ns"],
        )

    # --- looking at traffic ---

    def stats(self) -> Stats:
        """Everything counted so far, as frozen values."""
        if self._engine is None:
            return Stats()
        raw = self._engine.stats()
        if self._names is not None:
            for kind, rows in self._names.stats().items():
                raw[kind] += rows
        if self._health is not None:
            for cluster in raw["clusters"]:
                for endpoint in cluster["endpoints"]:
                    endpoint.update(self._health.row(cluster["name"], endpoint["address"]))
        return snapshot(raw, started_ns=self._started_ns)

    def counts(self) -> Counts:
        """A reader of differences: see meshcore.counts. For whoever tells statistics on, again and again."""
        if self._engine is None:
            raise EngineError("the proxy is not running: it has counted nothing")
        return Counts(self._engine, self._names)

    def tap(self, filter: TapFilter | None = None, /, **conditions: Any) -> TapSession:
        """Watch single exchanges from now on: an iterator of TapEvent, to be closed. Conditions: see `tap_filter`."""
        if self._engine is None or self._hub is None:
            raise EngineError("the proxy is not running: nothing to tap")
        return open_session(self._engine, self._hub, filter if filter is not None else tap_filter(**conditions))


def _check_transparency(old: Config, new: Config) -> None:
    """A listening socket is made for TPROXY or it is not: one that stays cannot change."""
    before = {(one.name, one.address): one.original_destination for one in old.listeners}
    for one in new.listeners:
        was = before.get((one.name, one.address), one.original_destination)
        if was != one.original_destination and "tproxy" in (was, one.original_destination):
            raise ConfigError(
                f"listener '{one.name}': original_destination cannot change from {was} to {one.original_destination} "
                "while it listens; give the listener another name, or restart"
            )
