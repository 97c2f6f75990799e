"""One proxy process from its first listening socket to its last drained exchange: signals, reloads, admin, systemd.

The main thread waits here for what happens next; the engine's workers carry the traffic and never wait for it.
A reload is all or nothing: what can not be used is told and the running configuration stays.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meshcore import open_files, sdnotify
from meshcore.admin import AdminError, AdminServer, AdminSources
from meshcore.certificates import paths_of
from meshcore.cli.addresses import default_admin_address
from meshcore.cli.version import package_version
from meshcore.config import Config, Duration, effective
from meshcore.errors import ConfigError, MeshError

if TYPE_CHECKING:
    from meshcore.proxy import Proxy

POLL_SECONDS = 1.0
# An editor that writes in place is seen between two of its writes: the file must keep still for so long.
SETTLE_SECONDS = 0.2
# A file that never keeps still is applied as it is: the reload tells whether it can be read.
MOST_SETTLES = 10
# Of names that are bound anew hardly anything is a cycle; each stream that is watched is a few hundred objects that stay.
COLLECT_AFTER = (50_000, 20, 20)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FIXED_AT_START: dict[str, Callable[[Config], object]] = {
    "admin.address": lambda config: config.admin.address,
    "io_uring": lambda config: config.io_uring,
    "workers": lambda config: config.workers,
}


class Serving:
    """Runs `proxy`, made from `config`, until told to stop; drained, or cut short by a second signal.

    load: reads the configuration again (None: there is nothing to read). watch: the file whose change is a reload, and so is
    that of a certificate it names. on_reloaded: what has to follow a reload that was applied. more_metrics: lines for /metrics.
    admin: one that answers already, and is closed with the proxy; None: one is made.
    """

    def __init__(
        self, proxy: Proxy, config: Config, *, load: Callable[[], Config] | None = None, watch: Path | None = None,
        on_reloaded: Callable[[], None] | None = None, more_metrics: Callable[[], str] | None = None,
        admin: AdminServer | None = None,
    ) -> None:  # fmt: skip
        self._proxy = proxy
        self._answering = admin
        self._config = config
        self._load = load
        self._on_reloaded = on_reloaded
        self._more_metrics = more_metrics
        self._watch = FileWatch(watch, paths_of(config)) if watch is not None else None
        self._happened: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._reloads = {"ok": 0, "failed": 0}

    def run(self, on_started: Callable[[str], None]) -> None:
        """Serve. on_started gets the admin address ("" when there is none) once both the proxy and it answer."""
        open_files.take_all()
        with self._signals():
            self._proxy.start()
            try:
                admin = self._admin()
                with contextlib.closing(admin) if admin else contextlib.nullcontext():
                    self._say_state("", admin)
                    on_started(admin.address if admin else "")
                    collect_rarely()
                    sdnotify.ready(f"admin {admin.address}" if admin else "")
                    self._serve()
                    self._say_state("draining", admin)
                    self._drain()
            finally:
                self._proxy.stop()

    # --- what happens ---

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, _frame: Any) -> None:
            # SimpleQueue.put may be called from a signal handler that interrupts its own get.
            self._happened.put("reload" if number == signal.SIGHUP else "stop")

        before = {number: signal.signal(number, on_signal) for number in (*_STOP_SIGNALS, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _serve(self) -> None:
        while True:
            try:
                event = self._happened.get(timeout=POLL_SECONDS)
            except queue.Empty:
                event = "reload" if self._watch is not None and self._watch.has_changed() else ""
            if event == "stop":
                return
            if event == "reload":
                self._reload_and_tell()

    def _drain(self) -> None:
        """Wait for running exchanges; a second signal ends the wait."""
        self._drain_until(self._happened)

    def _drain_until(self, happened: queue.SimpleQueue[str], *, to_stderr: bool = False) -> None:
        """Wait for running exchanges, or until `happened` says "stop"."""
        seconds = Duration(self._config.timeouts.drain).seconds
        sdnotify.stopping("draining")
        click.echo(f"draining for up to {seconds:g}s; a second signal stops at once", err=to_stderr)

        def drain_then_tell() -> None:
            try:
                self._proxy.drain(seconds)
            finally:
                happened.put("drained")

        threading.Thread(target=drain_then_tell, daemon=True).start()
        while next_event(happened) not in ("stop", "drained"):
            pass  # reloads that were asked for meanwhile have no proxy to act on

    # --- reload ---

    def _reload_and_tell(self) -> None:
        sdnotify.reloading()
        try:
            click.echo(f"reload: {self.reload()}")
        except (MeshError, OSError) as error:
            click.echo(f"reload refused, the running configuration stays:\n{error}", err=True)
        finally:
            sdnotify.ready()

    def reload(self) -> str:
        """Read again and apply. Returns the text of the diff; raises MeshError or OSError with nothing changed."""
        if self._load is None:
            raise ConfigError("this proxy was started from flags: there is no file to read again")
        # Three ways lead here, two of them on other threads.
        with self._changing:
            if self._watch is not None:
                self._watch.has_changed()  # what is read now needs no second reload
            try:
                config = self._load()
                diff = self._proxy.reload(config)
                if self._on_reloaded is not None:
                    self._on_reloaded()
            except BaseException:
                self._reloads["failed"] += 1
                raise
            fixed = [name for name, of in _FIXED_AT_START.items() if of(config) != of(self._config)]
            self._config = config
            if self._watch is not None:
                self._watch.watch(paths_of(config))
            self._reloads["ok"] += 1
            return "\n".join([str(diff), *(f"{name} takes effect at the next start" for name in fixed)])

    # --- admin ---

    def _admin(self) -> AdminServer | None:
        """The admin server. One that was asked for must come up; without the default one the proxy can do."""
        asked = self._config.admin.address
        sources = AdminSources(
            stats=self._proxy.stats,
            tap=self._proxy.tap,
            describe_config=lambda: describe(self._config),
            reload=self.reload if self._load is not None else None,
            reloads=lambda: dict(self._reloads),
        )
        if self._answering is not None:
            self._answering.sources = sources
            return self._answering
        try:
            return AdminServer(
                asked or default_admin_address(self._first_port()),
                sources=sources,
                more_metrics=self._more_metrics,
                version=package_version(),
            ).start()
        except (AdminError, OSError) as error:
            if asked:
                raise
            # A read-only root with no place for a socket, for one.
            click.echo(f"no admin server: {error}; name a place for one with --admin", err=True)
            return None

    @staticmethod
    def _say_state(state: str, admin: AdminServer | None) -> None:
        if admin is not None:
            admin.state = state

    def _first_port(self) -> int | str:
        for bound in self._proxy.addresses.values():
            if isinstance(bound, tuple):
                return int(bound[1])
        return os.getpid()


def next_event(happened: queue.SimpleQueue[str]) -> str:
    """Wait for it, in slices: a signal that another thread takes, or that comes just before the wait, ends none; its handler runs after one."""
    while True:
        with contextlib.suppress(queue.Empty):
            return happened.get(timeout=POLL_SECONDS)


def collect_rarely() -> None:
    """Collections are rare and leave out modules and what was read at the start: a full one takes 10 ms and more, in which no name is bound."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class FileWatch:
    """Whether the content of a file may be another than at the last look: written in place, renamed over, or back again."""

    def __init__(self, path: Path, others: Iterable[str | Path] = ()) -> None:
        self._path = path
        self._others = [Path(other) for other in others]
        self._seen = self._signature()

    def watch(self, others: Iterable[str | Path]) -> None:
        """Look at these too, besides the first: certificates and keys that a configuration names."""
        paths = [Path(other) for other in others]
        if paths != self._others:       # else what changed since the last look is still to be told
            self._others = paths
            self._seen = self._signature()

    def has_changed(self) -> bool:
        """True once per change, when the file has kept still since. A file that is gone has not changed yet."""
        now = self._signature()
        if now is None or now == self._seen:
            return False
        for _ in range(MOST_SETTLES):
            first = self._signature()
            time.sleep(SETTLE_SECONDS)
            if self._signature() == first:
                break
        self._seen = first
        return first is not None

    def _signature(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            states = [path.stat() for path in (self._path, *self._others)]
        except OSError:
            return None
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)


def describe(config: Config) -> Any:
    """The effective configuration as plain values, each `{value, origin}`."""
    return msgspec.to_builtins(effective(config))


def url_of(bound: tuple[str, int]) -> str:
    """Where a browser on this machine finds a listener: a wildcard address is no place to go to."""
    host, port = bound
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"
