"""`meshproxy proxy`: a proxy from flags alone, no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshcore.cli.check import addresses_of
from meshcore.cli.serving import Serving, url_of
from meshcore.cli.version import package_version
from meshcore.config import Config, for_targets

if TYPE_CHECKING:
    from meshcore.proxy import Proxy

EPILOG = """
\b
Examples:
  meshproxy proxy --to 127.0.0.1:9000
  meshproxy proxy --listen :8080 --to 10.0.0.1:9000,10.0.0.2:9000 --workers auto
  meshproxy proxy --listen 127.0.0.1:8080 --to unix:/run/app.sock --timeout 5s --max-body 10MiB

Each flag is the configuration key of the same name; 'meshproxy run -c mesh.yaml' has all the others.
"""


@click.command(epilog=EPILOG)
@click.option("--listen", default=":8080", metavar="ADDR", show_default=True, help="Where clients connect.")
@click.option(
    "--to",
    "targets",
    required=True,
    multiple=True,
    metavar="ADDR[,ADDR…]",
    help="Where requests go: host:port or unix:/path. May be repeated.",
)
@click.option("--workers", metavar="N|auto", help="Engine threads.  [default: 1]")
@click.option(
    "--balancer",
    type=click.Choice(["peak_ewma", "least_request", "round_robin", "random"]),
    help="How an endpoint is chosen.  [default: peak_ewma]",
)
@click.option("--timeout", metavar="DURATION", help="Request sent to response head.  [default: 15s]")
@click.option("--total-timeout", metavar="DURATION", help="Request head to response end.  [default: off]")
@click.option("--idle-timeout", metavar="DURATION", help="Silence while bodies are sent.  [default: 60s]")
@click.option("--connect-timeout", metavar="DURATION", help="Connecting to an endpoint.  [default: 1s]")
@click.option("--drain", metavar="DURATION", help="How long running requests may take after SIGTERM.  [default: 30s]")
@click.option("--max-body", metavar="SIZE", help="Largest request body.  [default: no limit]")
@click.option("--max-attempts", type=int, metavar="N", help="Tries per request, the first included.  [default: 2]")
@click.option("--max-connections", type=int, metavar="N", help="To one endpoint, per worker.  [default: 10000]")
@click.option("--host", metavar="HOST", help="Sent upstream in the place of Host.")
@click.option("--no-upgrade", is_flag=True, help="Refuse WebSocket and other upgrades.")
@click.option(
    "--admin", metavar="ADDR", help="Admin address, unix:/path or 127.0.0.1:PORT.  [default: a private unix socket]"
)
def proxy(**flags: Any) -> None:
    """Forward what comes to one address to one or several others."""
    config = configuration(**flags)
    from meshcore.proxy import Proxy  # not above: help and wrong flags need no engine

    started = Proxy(config)
    Serving(started, config).run(lambda address: click.echo("\n".join(banner(config, started, address))))


def configuration(*, listen: str, targets: tuple[str, ...], **flags: Any) -> Config:
    """The configuration these flags stand for. Flags not given are left to their defaults."""
    options = {name: value for name, value in flags.items() if name not in ("max_attempts", "host", "no_upgrade")}
    if (workers := flags.get("workers")) is not None and workers.isascii() and workers.isdigit():
        options["workers"] = int(workers)
    if flags.get("max_attempts") is not None:
        options["retries"] = {"max_attempts": flags["max_attempts"]}
    if flags.get("host") is not None:
        options["rewrite"] = {"host": flags["host"]}
    if flags.get("no_upgrade"):
        options["upgrade"] = False
    return for_targets(listen, targets, **options)


def banner(config: Config, started: Proxy, admin: str) -> list[str]:
    """What the proxy bound, and what to try next."""
    bound = next(iter(started.addresses.values()))
    endpoints = addresses_of(config.clusters[0])
    shown = ", ".join(endpoints[:3]) + (f" and {len(endpoints) - 3} more" if len(endpoints) > 3 else "")
    lines = [f"meshproxy {package_version()}: {url_of(bound)} -> {shown}", f"try:   curl -i {url_of(bound)}"]
    if admin:
        lines.insert(1, f"admin: {admin}")
        lines += [f"       meshproxy tap --admin {admin}", f"       meshproxy stat --watch --admin {admin}"]
    return lines
