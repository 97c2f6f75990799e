"""`meshctl authority roots` and `rotate`: whom the mesh trusts, and one root after another. Asks a control plane."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from meshcore.api import admin_pb2

from .connection import admin
from .output import is_json, output_option, show_json, show_table

NEXT = {
    "steady": "A new root begins with `meshctl authority rotate begin`.",
    "distributing": "Next: `meshctl authority rotate switch`, or `abort`.",
    "retiring": "Next: `meshctl authority rotate retire`.",
}


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s))


def _show(found: dict[str, Any], output: str) -> None:
    if is_json(output):
        show_json(found)
        return
    click.echo(f"Trust domain {found['trust_domain']}, phase {found['phase']} since {_time(found['since_s'])}")
    rows = [
        [
            root["fingerprint"] if output == "wide" else root["fingerprint"][:16],
            "signs" if root["signs"] else "trusted",
            "yes" if root["has_authority_here"] else "no",
            _time(root["added_at_s"]),
            _time(root["ends_at_s"]),
        ]
        for root in found["roots"]
    ]
    show_table(["ROOT", "USE", "AUTHORITY HERE", "ADDED", "ENDS"], rows)
    click.echo(f"{found['members_here']} members on this replica, {found['unconfirmed_here']} have not confirmed these roots.")
    for key, word in (("may_switch_at_s", "switch"), ("may_retire_at_s", "retire")):
        if key in found:
            click.echo(f"`{word}` may come at {_time(found[key])}.")
    click.echo(NEXT[found["phase"]])


@click.command()
@click.option("--pem", is_flag=True, help="The roots themselves: what --trust-bundle of a sidecar takes.")
@output_option
@click.pass_context
def roots(ctx: click.Context, pem: bool, output: str) -> None:
    """Show whom the mesh trusts, and who signs."""
    with admin(ctx) as stub:
        found = json.loads(stub.ShowRoots(admin_pb2.RootsQuery(), timeout=15).json)
    if pem:
        click.echo(found["bundle_pem"], nl=False)
    else:
        _show(found, output)


EPILOG = """
\b
In this order, each as often as needed, none in a hurry:
  begin     both roots are trusted, the old one signs
  switch    both are trusted, the new one signs: a day later, so that whoever was away has no leaf left
  retire    the new one alone is trusted: another day later, when the last leaf of the old one has run out
  abort     in place of switch: back to the old root
Each is refused before its time. What is done is on the audit.
"""


@click.group(epilog=EPILOG)
def rotate() -> None:
    """Replace the root of the mesh, without a restart."""


def _step(ctx: click.Context, told: str, yes: bool, output: str, step: str, **how: Any) -> None:
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{told}\nNobody is there to be asked; add --yes.")
        click.echo(told, err=True)
        if not click.confirm("Do it?", err=True):
            raise click.ClickException("nothing was done")
    with admin(ctx) as stub:
        found = json.loads(stub.RotateRoots(admin_pb2.RotationStep(step=step, **how), timeout=30).json)
    _show(found, output)


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@rotate.command()
@click.option("--authority", "name", default="", metavar="NAME",
              help="In DATA/authority of the replica, below the new root.  [default: the only one that is new]")  # fmt: skip
@click.option("--make-root", is_flag=True, help="Make a new root there; for a control plane of one replica.")
@yes_option
@output_option
@click.pass_context
def begin(ctx: click.Context, name: str, make_root: bool, yes: bool, output: str) -> None:
    """Trust a new root beside the one that signs."""
    told = "From now on members trust a new root, too, and are told so. The old one signs. `abort` undoes it."
    _step(ctx, told, yes, output, "begin", authority=name, makes_root=make_root)


@rotate.command()
@click.option("--hurry", is_flag=True, help="As soon as all members here have confirmed. Who is away now may be cut off: see `roots`.")
@yes_option
@output_option
@click.pass_context
def switch(ctx: click.Context, hurry: bool, yes: bool, output: str) -> None:
    """Sign with the new root."""
    told = "From now on the new root signs. It cannot be undone. Each replica needs an authority below the new root."
    if hurry:
        told += "\nYou vouch that no member is away: one that does not know the new root yet must join again by token and bundle."
    _step(ctx, told, yes, output, "switch", is_hurried=hurry)


@rotate.command()
@yes_option
@output_option
@click.pass_context
def retire(ctx: click.Context, yes: bool, output: str) -> None:
    """Trust the old root no longer."""
    told = "From now on the old root is trusted by nobody. It cannot be undone. Trust bundles in files should be the new one by now."
    _step(ctx, told, yes, output, "retire")


@rotate.command()
@yes_option
@output_option
@click.pass_context
def abort(ctx: click.Context, yes: bool, output: str) -> None:
    """Give the new root up, before it signs."""
    _step(ctx, "From now on the new root is trusted no longer. The old one signs, as before.", yes, output, "abort")
