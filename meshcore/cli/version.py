"""`meshproxy version`: what runs here, and what it was built on."""

from __future__ import annotations

import importlib.metadata
import json
import platform

import click


def package_version() -> str:
    try:
        return importlib.metadata.version("meshcore")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a tree that was never installed


@click.command()
@click.option("--short", is_flag=True, help="The number alone.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def version(short: bool, as_json: bool) -> None:
    """Print the version."""
    number = package_version()
    if short:
        click.echo(number)
        return
    facts = {
        "meshproxy": number,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
    for name in ("httptools", "msgspec"):
        facts[name] = importlib.metadata.version(name)
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{name} {value}" for name, value in facts.items()))
