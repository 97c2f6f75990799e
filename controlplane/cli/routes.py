"""`meshctl routes`: the same figures by route."""

from __future__ import annotations

import json

import click

from .traffic_asking import Rows, common_options, resource, side, table
from .traffic_output import figures, latencies, lines, rate, success

HEADERS = ["ROUTE", "SERVICE", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]

EPILOG = """
\b
Examples:
  meshctl routes deploy/web -n shop             by the routes of its own proxies
  meshctl routes deploy/web -n shop --to svc/users
  meshctl routes svc/users -n shop              as its callers saw them
"""


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="TYPE [NAME] | TYPE/NAME")
@click.option("--to", default="", metavar="TYPE[/NAME]", help="Only requests that go there.")
@click.option("--to-namespace", default="", help="Of --to.  [default: --namespace]")
@common_options
@click.pass_context
def routes(
    ctx: click.Context, words: tuple[str, ...], to: str, to_namespace: str, namespace: str, all_namespaces: bool,
    window_s: float, output: str, as_json: bool,
) -> None:  # fmt: skip
    """Show success, rate and latencies by route."""
    target = resource(words, namespace, everywhere=all_namespaces)
    told = table(ctx, target, window_s, Rows.ROUTES, side(to, to_namespace, namespace, "destination"))
    if as_json or output == "json":
        click.echo(json.dumps([
            {"route": row.name, "service": row.other, "window_s": told.span_s, **figures(row, told.span_s)} for row in told.rows
        ], indent=2))  # fmt: skip
        return
    if not told.rows:
        click.echo("No traffic found.", err=True)
        return
    rows = [
        [row.name or "[DEFAULT]", row.other or "-", success(row), rate(row, told.span_s), *latencies(row, wide=output == "wide")]
        for row in told.rows
    ]
    click.echo("\n".join(lines(HEADERS, rows, left=2)))
