"""`meshctl top`: the busiest, slowest or most failing resources, again and again."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import click

from .stat import HEADERS, cells, plain
from .traffic_asking import Rows, common_options, resource, table
from .traffic_output import lines

EPILOG = """
\b
Examples:
  meshctl top -n shop                  deployments, the busiest first
  meshctl top po -A --sort p99         the slowest pods of the mesh
  meshctl top --once --json -t 10s     one look, for a script
"""


def _rank(row: Any, sort: str) -> tuple[float, str]:
    answered = row.successes + row.failures
    values = {
        "rps": -float(row.requests),
        "failures": -float(row.failures),
        "success": row.successes / answered if answered else 2.0,
        "p99": -row.p99_ms,
        "name": 0.0,
    }
    return values[sort], f"{row.namespace}/{row.name}"


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, metavar="[TYPE [NAME] | TYPE/NAME]")
@click.option("--sort", type=click.Choice(["rps", "failures", "success", "p99", "name"]), default="rps", show_default=True)
@click.option("--every", type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="One look.")
@common_options
@click.pass_context
def top(
    ctx: click.Context, words: tuple[str, ...], sort: str, every: float, once: bool, namespace: str, all_namespaces: bool,
    window_s: float, output: str, as_json: bool,
) -> None:  # fmt: skip
    """Watch what is busiest. Ctrl-C ends it."""
    target = resource(words or ("deploy",), namespace, everywhere=all_namespaces)
    is_screen = sys.stdout.isatty() and not once and not as_json and output != "json"
    while True:
        told = table(ctx, target, window_s, Rows.RESOURCES)
        found = sorted(told.rows, key=lambda row: _rank(row, sort))
        if as_json or output == "json":
            del told.rows[:]
            told.rows.extend(found)
            click.echo(json.dumps(plain(target, told)))
        else:
            headers = ["NAMESPACE", *HEADERS] if all_namespaces else HEADERS
            rows = [cells(target, row, told.span_s, prefixed=False, everywhere=all_namespaces, wide=output == "wide") for row in found]
            text = lines(headers, rows, left=2 if all_namespaces else 1)
            if is_screen:
                text = ["\x1b[H\x1b[J" + text[0], *text[1 : shutil.get_terminal_size().lines - 1]]
            click.echo("\n".join(text))
        if once:
            return
        time.sleep(every)
