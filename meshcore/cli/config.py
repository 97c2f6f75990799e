"""`meshproxy config`: what a file means once every default is filled in, and where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from meshcore.config import effective, load, render

EPILOG = """
\b
Examples:
  meshproxy config -c mesh.yaml                           check it, print it back
  meshproxy config --show-effective -c mesh.yaml          every value and its origin
  meshproxy config --show-effective -c mesh.yaml --json | jq .
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
@click.option("--show-effective", is_flag=True, help="Fill in the defaults and tell the origin of each value.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def config(path: Path, show_effective: bool, as_json: bool) -> None:
    """Read a configuration file and show what it means."""
    loaded = load(path)
    if not show_effective:
        click.echo(json.dumps(loaded.to_dict(), indent=2, ensure_ascii=False))
        return
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(effective(loaded)), indent=2, ensure_ascii=False))
        return
    click.echo(render(loaded), nl=False)
