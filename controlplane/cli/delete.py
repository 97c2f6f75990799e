"""`meshctl delete`: removes values of the model, by name or as a file lists them."""

from __future__ import annotations

import click

from controlplane.model.files import read_values
from meshcore.api import admin_pb2

from .apply import text_of
from .connection import admin
from .get import KindType
from .output import is_json, output_option, show_json


@click.command()
@click.argument("kind", type=KindType(), required=False)
@click.argument("names", nargs=-1)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of names without one.")
@click.option("-f", "--filename", "path", metavar="FILE", help="The values of a file; - is stdin.")
@output_option
@click.pass_context
def delete(
    ctx: click.Context, kind: str | None, names: tuple[str, ...], namespace: str, path: str | None, output: str
) -> None:
    """Remove values: KIND NAME..., or -f FILE."""
    if (path is None) == (kind is None) or (kind is not None and not names) or kind == "all":
        raise click.UsageError("name what to delete: KIND NAME..., or -f FILE")
    if path is not None:
        entries = [admin_pb2.Entry(kind=value.kind, key=value.key) for value in reversed(read_values(*text_of(path)))]
    else:
        keys = [name if "/" in name else f"{namespace}/{name}" for name in names]
        entries = [admin_pb2.Entry(kind=kind, key=key) for key in keys]
    done: list[str] = []
    with admin(ctx) as stub:
        for first in range(0, len(entries), 100):
            done += stub.Delete(admin_pb2.Places(entries=entries[first : first + 100]), timeout=30).done
    if is_json(output):
        show_json({"done": done})
    else:
        for line in done:
            click.echo(line)
    if any(line.endswith(" not there") for line in done) and path is None:
        raise click.exceptions.Exit(1)
