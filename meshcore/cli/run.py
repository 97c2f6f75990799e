"""`meshproxy run`: a proxy from a configuration file, ours or one of Linkerd 1.x, which it watches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshcore.cli.serving import Serving, url_of
from meshcore.cli.version import package_version
from meshcore.config import Config, load

if TYPE_CHECKING:
    from meshcore.proxy import Proxy

EPILOG = """
\b
Examples:
  meshproxy run -c mesh.yaml
  meshproxy run --linkerd l5d.yaml                       a file of Linkerd 1.x, as it is; docs/linkerd.md
  kill -HUP PID                                          read the file again
  curl -X POST --unix-socket SOCKET http://mesh/reload   the same, with the diff or the error as answer

A changed file is applied by itself, all or nothing: a mistake is told and the running configuration stays. SIGTERM
and SIGINT drain; a second one stops at once.
"""


@click.command(epilog=EPILOG)
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file (YAML).",
)
@click.option(
    "--linkerd",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file of Linkerd 1.x; what has no meaning here is told.",
)
@click.option("--workers", metavar="N|auto", help="Wins over the file.")
@click.option("--admin", metavar="ADDR", help="Admin address; wins over the file.")
@click.option("--no-watch", is_flag=True, help="Reload on SIGHUP and POST /reload only.")
def run(path: Path | None, linkerd: Path | None, workers: str | None, admin: str | None, no_watch: bool) -> None:
    """Run the proxy a file describes."""
    if (path is None) == (linkerd is None):
        raise click.UsageError("name one file: -c FILE, or --linkerd FILE")
    if linkerd is not None:
        from meshcore.cli.run_linkerd import run_linkerd  # its namers and clients are for it alone

        run_linkerd(linkerd, workers=workers, admin=admin, is_watched=not no_watch)
        return
    assert path is not None
    file = path
    overrides: dict[str, object] = {}
    if workers is not None:
        overrides["workers"] = int(workers) if workers.isdigit() else workers
    if admin is not None:
        overrides["admin"] = {"address": admin}

    def read() -> Config:
        return load(file, overrides=overrides)

    config = read()
    from meshcore.proxy import Proxy  # not above: help and wrong flags need no engine

    started = Proxy(config)
    serving = Serving(started, config, load=read, watch=None if no_watch else file)
    serving.run(lambda address: click.echo("\n".join(banner(file, config, started, address, not no_watch))))


def banner(path: Path, config: Config, started: Proxy, admin: str, watched: bool) -> list[str]:
    """What the proxy bound, and how to change and watch it."""
    lines = [
        f"meshproxy {package_version()}: {path}, pid {os.getpid()},"
        f" {len(config.routes)} routes, {len(config.clusters)} clusters"
    ]
    lines += [f"  {name}: {url_of(bound)}" for name, bound in started.addresses.items()]
    if admin:
        lines += [f"admin: {admin}", f"try:   meshproxy stat --watch --admin {admin}"]
    return [*lines, f"reload: {'edit the file, or ' if watched else ''}kill -HUP {os.getpid()}"]
