"""`meshproxy run`: a proxy from a configuration file, which it watches."""

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
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file (YAML).",
)
@click.option("--workers", metavar="N|auto", help="Wins over the file.")
@click.option("--admin", metavar="ADDR", help="Admin address; wins over the file.")
@click.option("--no-watch", is_flag=True, help="Reload on SIGHUP and POST /reload only.")
def run(path: Path, workers: str | None, admin: str | None, no_watch: bool) -> None:
    """Run the proxy a file describes."""
    overrides: dict[str, object] = {}
    if workers is not None:
        overrides["workers"] = int(workers) if workers.isdigit() else workers
    if admin is not None:
        overrides["admin"] = {"address": admin}

    def read() -> Config:
        return load(path, overrides=overrides)

    config = read()
    from meshcore.proxy import Proxy  # not above: help and wrong flags need no engine

    started = Proxy(config)
    serving = Serving(started, config, load=read, watch=None if no_watch else path)
    serving.run(lambda address: click.echo("\n".join(banner(path, config, started, address, not no_watch))))


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
