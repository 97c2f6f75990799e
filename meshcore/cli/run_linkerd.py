"""`meshproxy run --linkerd`: a proxy from a file of Linkerd 1.x, with the binder of its names beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from meshcore.binder import metrics
from meshcore.binder.binder import Binder
from meshcore.binder.rules import Rules
from meshcore.cli.run import banner
from meshcore.cli.serving import Serving
from meshcore.config import Config
from meshcore.errors import Problem
from meshcore.linkerd import Read, read_file
from meshcore.linkerd.serving import configuration, rules, tls_contexts
from meshcore.proxy import Proxy


def run_linkerd(path: Path, *, workers: str | None, admin: str | None, is_watched: bool) -> None:
    served = _Served(path, workers, admin)
    config = served.read()
    proxy = Proxy(config)
    served.give_tls(proxy)
    binder = Binder(proxy)
    binder.start(served.rules)

    def on_reloaded() -> None:
        served.give_tls(proxy)
        binder.use(served.rules)

    watch = path if is_watched else None
    try:
        serving = Serving(
            proxy, config, load=served.read, watch=watch, on_reloaded=on_reloaded, more_metrics=lambda: metrics.render(binder)
        )
        serving.run(lambda address: click.echo("\n".join(banner(path, config, proxy, address, is_watched))))
    finally:
        binder.stop()


def checked_linkerd(path: Path) -> Config:
    """The configuration a file makes, when its TLS files can be read and its namers exist. Asks no catalogue."""
    served = _Served(path, None, None)
    config = served.read()
    tls_contexts(served.now.file)
    asyncio.run(served.try_rules())
    return config


class _Served:
    """The file as it was read last."""

    now: Read

    def __init__(self, path: Path, workers: str | None, admin: str | None) -> None:
        self._path = path
        self._workers = int(workers) if workers is not None and workers.isdigit() else workers
        self._admin = admin

    def read(self) -> Config:
        """What has no meaning is told every time: who edits the file wants to know."""
        found = read_file(self._path)
        config = configuration(found.file, workers=self._workers, admin=self._admin)
        for warning in found.warnings:
            self._warn(warning)
        self.now = found
        return config

    def give_tls(self, proxy: Proxy) -> None:
        for one in tls_contexts(self.now.file):
            proxy.set_tls_context(one.name, ca=one.ca, cert=one.cert, key=one.key)

    async def rules(self) -> Sequence[Rules]:
        return await rules(self.now, str(self._path), self._warn)

    async def try_rules(self) -> None:
        for one in await self.rules():
            await one.interpreter.close()

    @staticmethod
    def _warn(problem: Problem) -> None:
        click.echo(f"warning: {problem}", err=True)
