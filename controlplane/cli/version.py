"""`meshctl version`: what runs here, and what answers there."""

from __future__ import annotations

import importlib.metadata
import json

import click

from .output import output_option, show_json


def package_version() -> str:
    """Of this program."""
    try:
        return importlib.metadata.version("meshcore")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a tree that was never installed


@click.command()
@click.option("--client", is_flag=True, help="Of this program alone.")
@click.option("--short", is_flag=True, help="The numbers alone.")
@output_option
@click.pass_context
def version(ctx: click.Context, client: bool, short: bool, output: str) -> None:
    """Print the versions of meshctl and of the control plane."""
    found = {"client": package_version()}
    if not client:
        found["server"] = _of_server(ctx)
    if output == "json":
        show_json(found)
    elif short:
        click.echo("\n".join(found.values()))
    else:
        click.echo("\n".join(f"{name.capitalize()} version: {number}" for name, number in found.items()))


def _of_server(ctx: click.Context) -> str:
    from meshcore.api import admin_pb2

    from .connection import admin

    try:
        with admin(ctx) as stub:
            return str(json.loads(stub.Status(admin_pb2.StatusQuery(), timeout=5).json)["version"])
    except click.ClickException:
        return "unavailable"
