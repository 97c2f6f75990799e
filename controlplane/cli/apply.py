"""`meshctl apply`: writes the values of a file, all of them or none."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from controlplane.model import encode
from controlplane.model.files import read_values
from meshcore.api import admin_pb2

from .connection import admin
from .output import is_json, output_option, show_json

MOST_AT_ONCE = 100

EPILOG = """
\b
A file is a list of values, each with its kind:
  - {kind: service, namespace: shop, name: web, ports: [{port: 80}]}
  - {kind: endpoint, namespace: shop, service: web, name: web-1, address: 192.0.2.7, port: 8080}
"""


def text_of(path: str) -> tuple[str, str]:
    """The text of a file, or of stdin for `-`, and how messages name it."""
    if path == "-":
        return sys.stdin.read(), "<stdin>"
    return Path(path).read_text(), path


@click.command(epilog=EPILOG)
@click.option("-f", "--filename", "path", required=True, metavar="FILE", help="YAML or JSON; - is stdin.")
@click.option("--dry-run", is_flag=True, help="Judge it, and tell what would change.")
@output_option
@click.pass_context
def apply(ctx: click.Context, path: str, dry_run: bool, output: str) -> None:
    """Create and change values of the model."""
    values = read_values(*text_of(path))
    done: list[str] = []
    position = ""
    with admin(ctx) as stub:
        # A transaction holds a hundred: longer files are written in parts, in their order.
        for first in range(0, len(values), MOST_AT_ONCE):
            entries = [
                admin_pb2.Entry(kind=value.kind, key=value.key, json=encode(value))
                for value in values[first : first + MOST_AT_ONCE]
            ]
            answer = stub.Apply(admin_pb2.Values(entries=entries, is_dry_run=dry_run), timeout=30)
            done += answer.done
            position = answer.position
    if is_json(output):
        show_json({"position": position, "done": done, "is_dry_run": dry_run})
    else:
        for line in done:
            click.echo(f"{line} (dry run)" if dry_run else line)


