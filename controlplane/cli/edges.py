"""`meshctl edges`: who calls whom, and whether that is secured."""

from __future__ import annotations

import json

import click

from .traffic_asking import Rows, common_options, resource, table
from .traffic_output import figures, latencies, lines, rate, secured, success

HEADERS = ["SRC", "DST", "SRC_NS", "DST_NS", "SECURED", "SUCCESS", "RPS"]
WIDE = ["LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]

EPILOG = """
\b
Examples:
  meshctl edges deploy -n shop
  meshctl edges po -A --json
"""


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="TYPE [NAME] | TYPE/NAME")
@common_options
@click.pass_context
def edges(
    ctx: click.Context, words: tuple[str, ...], namespace: str, all_namespaces: bool, window_s: float, output: str, as_json: bool
) -> None:
    """Show who calls whom. Both sides are shown by the type; an edge is shown when one of them is asked for."""
    told = table(ctx, resource(words, namespace, everywhere=all_namespaces), window_s, Rows.EDGES)
    if as_json or output == "json":
        click.echo(json.dumps([
            {
                "source": {"namespace": row.namespace, "name": row.name},
                "destination": {"namespace": row.other_namespace, "name": row.other},
                "window_s": told.span_s, **figures(row, told.span_s),
            }
            for row in told.rows
        ], indent=2))  # fmt: skip
        return
    if not told.rows:
        click.echo("No traffic found.", err=True)
        return
    wide = output == "wide"
    rows = [
        [
            row.name, row.other or "-", row.namespace or "-", row.other_namespace or "-", secured(row), success(row),
            rate(row, told.span_s), *(latencies(row, wide=True) if wide else []),
        ]
        for row in told.rows
    ]  # fmt: skip
    click.echo("\n".join(lines(HEADERS + (WIDE if wide else []), rows, left=4)))
