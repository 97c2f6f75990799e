"""`meshctl control-plane run`: one replica of the control plane, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from typing import Any

import click

from controlplane.settings import Settings
from meshcore import open_files, sdnotify
from meshcore.config import Duration

# Telling five thousand proxies of a change makes some fifty thousand objects that all live for a moment and form no cycle. With
# Python's defaults each change looked through the whole heap, which grows with the proxies: 119 us for each one told, 71 without.
COLLECT_AFTER = (50_000, 20, 20)

EPILOG = """
\b
Examples:
  meshctl control-plane run --data /var/lib/meshcore --trust-domain mesh.example.org
  meshctl control-plane run --data /var/lib/meshcore --trust-domain mesh.example.org \\
      --etcd http://10.0.0.1:2379 --etcd http://10.0.0.2:2379

SIGTERM and SIGINT let proxies go to another replica first; a second one ends at once.
"""


@click.group("control-plane")
def control_plane() -> None:
    """Run a control plane."""


class DurationType(click.ParamType[float]):
    """`90s`, `24h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(Duration(str(value)).seconds)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@control_plane.command(epilog=EPILOG)
@click.option("--data", required=True, metavar="DIR", envvar="MESHCORE_DATA", help="Its own folder: store, authority, audit.")
@click.option("--trust-domain", required=True, envvar="MESHCORE_TRUST_DOMAIN", help="Of every identity it gives out.")
@click.option("--listen", default="0.0.0.0:8086", show_default=True, metavar="ADDR", help="What proxies dial.")
@click.option("--admin", default="", metavar="PATH", help="Socket for meshctl on this machine.  [default: DIR/admin.sock]")
@click.option("--metrics", default="127.0.0.1:9996", show_default=True, metavar="ADDR", help="Loopback; '' for none.")
@click.option("--etcd", multiple=True, metavar="URL", help="Share an etcd with other replicas; repeat it.")
@click.option("--etcd-prefix", default="meshcore", show_default=True, help="Where in it.")
@click.option("--cluster-domain", default="cluster.local", show_default=True, help="What names of services may end with.")
@click.option("--leaf-lifetime", "leaf_s", default="24h", show_default=True, type=DurationType(), help="Of certificates.")
@click.option("--kubernetes", default="", metavar="URL", help="Accept service-account tokens it knows; or `in-cluster`.")
@click.option("--kubernetes-token-file", default="", metavar="FILE", help="Our own token there.  [default: the pod's]")
@click.option("--kubernetes-ca-file", default="", metavar="FILE", help="What vouches for it.")
@click.option("--roles", default="", metavar="FILE", help="Which identities may view, edit, make tokens, tap, rotate roots.")
@click.option("--sources", default="", metavar="FILE", help="Discovery besides the store: files, DNS, Kubernetes.")
@click.option("--drain", "drain_s", default="5s", show_default=True, type=DurationType(), help="Time to go elsewhere.")
def run(leaf_s: float, etcd: tuple[str, ...], **words: Any) -> None:
    """Run one replica."""
    settings = Settings(leaf_s=int(leaf_s), etcd=etcd, **words)
    settings.check()
    open_files.take_all()  # each proxy is a connection
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    from controlplane.server import ControlPlane  # not above: help and wrong flags need no engine

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    gc.set_threshold(*COLLECT_AFTER)
    plane = ControlPlane(settings)
    async with plane:
        gc.freeze()  # modules, and what was read at the start, are not looked through again
        click.echo(f"control plane of {settings.trust_domain} at {plane.address}")
        click.echo(f"admin: unix:{settings.admin_path}   roots: {settings.data}/root.pem")
        sdnotify.ready(f"serving at {plane.address}")
        await stopping.wait()
        sdnotify.stopping()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        with contextlib.suppress(asyncio.CancelledError):
            await plane.close()
