"""`meshctl stat`: success, rate and latencies of deployments, pods, namespaces, services, as a table."""

from __future__ import annotations

import json
from typing import Any

import click

from meshcore.api import observation_pb2

from ..observation.resources import SHORT, Resource
from .traffic_asking import Rows, common_options, resource, side, table
from .traffic_output import figures, latencies, lines, rate, secured, success, tcp

HEADERS = ["NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "SECURED"]
TCP_HEADERS = ["TCP_CONN", "READ_BYTES/SEC", "WRITE_BYTES/SEC"]
ALL = ("deploy", "sts", "ds", "job", "svc")

EPILOG = """
\b
Examples:
  meshctl stat deploy -n shop                    what came in to each deployment in the last minute
  meshctl stat deploy/web -n shop --to svc/users what web called there, and how that went
  meshctl stat svc/users -n shop --from deploy/web
  meshctl stat ns
  meshctl stat deploy/db -n shop -o wide         with TCP connections open now, and their bytes a second
  meshctl stat all -n shop -t 10m --json

Latencies and success are those of the resource's own proxies; with --to and --from, of the calling side.
"""


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="TYPE [NAME] | TYPE/NAME")
@click.option("--to", default="", metavar="TYPE[/NAME]", help="Only requests that go there.")
@click.option("--to-namespace", default="", help="Of --to.  [default: --namespace]")
@click.option("--from", "from_", default="", metavar="TYPE[/NAME]", help="Only requests that come from there.")
@click.option("--from-namespace", default="", help="Of --from.  [default: --namespace]")
@common_options
@click.pass_context
def stat(
    ctx: click.Context, words: tuple[str, ...], to: str, to_namespace: str, from_: str, from_namespace: str, namespace: str,
    all_namespaces: bool, window_s: float, output: str, as_json: bool,
) -> None:  # fmt: skip
    """Show success, rate and latencies of resources."""
    kinds = [(kind,) for kind in ALL] if words == ("all",) else [words]
    there = side(to, to_namespace, namespace, "destination")
    origin = side(from_, from_namespace, namespace, "source")
    if there is not None and origin is not None:
        raise click.UsageError("--to and --from exclude each other: one side of a call is the resource itself")
    found: list[tuple[Resource, observation_pb2.StatTable]] = []
    for kind in kinds:
        target = resource(kind, namespace, everywhere=all_namespaces)
        found.append((target, table(ctx, target, window_s, Rows.RESOURCES, there, origin)))
    if as_json or output == "json":
        click.echo(json.dumps([line for target, told in found for line in plain(target, told)], indent=2))
        return
    rows = [
        cells(target, row, told.span_s, prefixed=len(kinds) > 1, everywhere=all_namespaces, wide=output == "wide")
        for target, told in found
        for row in told.rows
    ]
    if not rows:
        click.echo("No traffic found.", err=True)
        return
    headers = [*(["NAMESPACE"] if all_namespaces else []), *HEADERS, *(TCP_HEADERS if output == "wide" else [])]
    click.echo("\n".join(lines(headers, rows, left=2 if all_namespaces else 1)))


def cells(target: Resource, row: Any, span_s: float, *, prefixed: bool, everywhere: bool, wide: bool) -> list[str]:
    """One line."""
    name = f"{SHORT[target.label]}/{row.name}" if prefixed else row.name
    meshed = f"{row.meshed}/{row.running}" if row.running else "-"
    figure = [success(row), rate(row, span_s), *latencies(row, wide=wide), secured(row), *(tcp(row, span_s) if wide else [])]
    return [*([row.namespace or "-"] if everywhere else []), name, meshed, *figure]


def plain(target: Resource, told: observation_pb2.StatTable) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [
        {
            "kind": target.label, "namespace": row.namespace, "name": row.name, "meshed": row.meshed, "running": row.running,
            "window_s": told.span_s, **figures(row, told.span_s),
        }
        for row in told.rows
    ]  # fmt: skip
