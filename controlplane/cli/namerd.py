"""`meshctl namerd`: runs a namerd, or checks its file."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.control_plane import COLLECT_AFTER
from meshcore import open_files, sdnotify

if TYPE_CHECKING:
    from controlplane.namerd.settings import Settings

EPILOG = """
\b
Examples:
  meshctl namerd run -c namerd.yaml
  meshctl namerd check namerd.yaml

The file is namerd's of Linkerd 1.x: admin, storage, namers, interfaces. Kinds of storage: io.l5d.sqlite, io.l5d.etcd,
io.l5d.zk, io.l5d.consul, io.l5d.inMemory. Interfaces: io.l5d.httpController, io.l5d.mesh.
"""

config_option = click.option(
    "-c", "--config", "file", required=True, metavar="FILE", type=click.Path(path_type=Path), help="namerd.yaml."
)


@click.group("namerd", epilog=EPILOG)
def namerd() -> None:
    """Keep tables of names, and bind names for proxies."""


@namerd.command()
@config_option
@click.option("--audit", "audit_file", default="", metavar="FILE", help="Append a record of each write to it.")
def run(file: Path, audit_file: str) -> None:
    """Run one replica, until it is told to stop."""
    settings = _loaded(file)
    open_files.take_all()  # each proxy is a connection
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    asyncio.run(_run(settings, audit_file))


@namerd.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE, and tell what of it has no meaning. Exit: 78 when it cannot be used."""
    settings = _loaded(file)
    count = len(settings.warnings)
    click.echo(f"{file}: sound" + (f", {count} warning{'s' if count > 1 else ''}" if count else ""))


def _loaded(file: Path) -> Settings:
    from controlplane.namerd.settings import load_settings

    settings = load_settings(file)
    for problem in settings.warnings:
        click.echo(f"warning: {problem}", err=True)
    return settings


async def _run(settings: Settings, audit_file: str) -> None:
    from controlplane.namerd.server import Namerd

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    with _audit(audit_file) as audit:
        async with Namerd(settings, audit=audit) as served:
            gc.collect()
            gc.set_threshold(*COLLECT_AFTER)
            gc.freeze()  # modules, and what was read at the start, are not looked through again: no edit waits for it
            click.echo("namerd: " + "   ".join(f"{name} {address}" for name, address in served.addresses.items()))
            sdnotify.ready(f"serving {len(served.book)} tables")
            await stopping.wait()
            sdnotify.stopping()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def _audit(file: str) -> Any:
    if not file:
        yield None
        return
    from controlplane.audit import AuditFile

    kept = AuditFile(file)

    def record(*, event: str, outcome: str, actor: str, **fields: Any) -> None:
        kept.record(event, outcome=outcome, actor=actor, **fields)

    try:
        yield record
    finally:
        kept.close()
