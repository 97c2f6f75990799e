"""A sidecar from its first certificate to its application's last word: what comes when, and which signal means what.

Order at the start: admin, certificate, proxy, control plane, application. Order at the end: callers are told, the application is told
and awaited while both directions still work, then the proxy drains. So nothing is sent to who has gone, and the application
can still call others while it ends.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from meshcore.admin import AdminServer
from meshcore.cli.application import FORWARDED, Application
from meshcore.cli.serving import Serving, next_event, url_of
from meshcore.cli.version import package_version
from meshcore.config import Config
from meshcore.proxy import Proxy

if TYPE_CHECKING:
    from meshcore.agent.agent import Agent
    from meshcore.agent.sidecar import SidecarSettings

TOLD_S = 0.5  # from the control plane's word until callers' proxies have it: they get it within a tenth
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class SidecarLife:
    """`run` returns the exit status."""

    def __init__(self, agent: Agent, settings: SidecarSettings, command: Sequence[str]) -> None:
        self._agent = agent
        self._settings = settings
        self._application = Application(command, lambda: self.happened.put("ended")) if command else None
        self.happened: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._is_ending = False
        self._ending_signal: int = signal.SIGTERM

    def run(self) -> int:
        from meshcore.agent.sidecar import http_routes, sidecar_config, tls_listeners

        agent, settings = self._agent, self._settings
        with self._signals():
            agent.start()
            try:
                with self._admin() as admin:
                    if not self._certified():
                        return 0
                    config = sidecar_config(settings, agent.state_directory.path)
                    proxy = Proxy(config)
                    agent.attach(
                        proxy,
                        http_routes=http_routes(settings),
                        listeners=tls_listeners(settings),
                        falls_back=settings.interception != "off",
                    )
                    _SidecarServing(proxy, config, self, admin).run(self._started(proxy))
            finally:
                agent.stop()
        return self._application.status if self._application is not None else 0

    def _admin(self) -> AdminServer:
        """Answers from the start, so that who waits for the certificate can see why."""
        from meshcore.agent import metrics

        agent = self._agent
        admin = AdminServer(
            self._settings.admin,
            more_metrics=lambda: metrics.render(agent.state(), agent.settings.labels),
            agent=agent.state,
            version=package_version(),
        )
        admin.state = "waiting for a certificate"
        return admin

    def _certified(self) -> bool:
        """Wait for the first certificate; False when told to stop instead."""
        while not self._agent.wait_for_certificate(0.1):
            with contextlib.suppress(queue.Empty):
                if self.happened.get_nowait() == "stop":
                    return False
        return True

    def _started(self, proxy: Proxy) -> Any:
        def started(admin: str) -> None:
            self._agent.serve()
            click.echo("\n".join(self._banner(proxy, admin)), err=True)
            if self._application is not None:
                try:
                    self._application.start()
                except OSError as error:
                    click.echo(f"meshproxy: {error.filename}: {error.strerror}", err=True)
                    self.happened.put("ended")

        return started

    def _banner(self, proxy: Proxy, admin: str) -> list[str]:
        lines = [f"meshproxy {package_version()}: sidecar of {self._agent.identity}"]
        lines += [f"  {name}: {url_of(bound)}" for name, bound in proxy.addresses.items()]
        return [*lines, f"admin: {admin}"] if admin else lines

    # --- what happens ---

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, _frame: Any) -> None:
            if self._application is not None and not self._application.has_ended:
                self._application_signal(number)
            if number in _ENDING:
                self.happened.put("stop")
            elif number == signal.SIGHUP and self._application is None:
                self.happened.put("renew")

        numbers = FORWARDED if self._application is not None else (*_ENDING, signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _application_signal(self, number: int) -> None:
        """The end is passed on when callers have been told of it; everything else at once."""
        assert self._application is not None
        if number in _ENDING and not self._is_ending:
            self._ending_signal = number
            return
        self._application.signal(number)

    def wait_for_end(self) -> None:
        """Until told to stop, or until the application has ended."""
        while (event := next_event(self.happened)) not in ("stop", "ended"):
            if event == "renew":
                self._agent.renew()

    def leave(self) -> None:
        """Callers are told, then the application, which is awaited."""
        was_heard = self._agent.drain()
        if self._agent.settings.claim is not None and was_heard and (self._application is None or not self._application.has_ended):
            time.sleep(TOLD_S)
        if self._application is None:
            return
        self._is_ending = True
        if not self._application.has_ended:
            self._application.signal(self._ending_signal)
        while not self._application.has_ended:
            # Its supervisor decides how long that may take; a second signal was passed on already.
            next_event(self.happened)


class _SidecarServing(Serving):
    """The life of the proxy within that of the sidecar."""

    def __init__(self, proxy: Proxy, config: Config, life: SidecarLife, admin: AdminServer) -> None:
        super().__init__(proxy, config, admin=admin)
        self._life = life

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        yield  # the sidecar's own are in place, for longer than the proxy lives

    def _serve(self) -> None:
        self._life.wait_for_end()

    def _drain(self) -> None:
        self._life.leave()
        self._drain_until(self._life.happened, to_stderr=True)  # stdout is the application's
