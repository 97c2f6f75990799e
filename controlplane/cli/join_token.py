"""`meshctl join-token`: tokens with which machines join, each good for one certificate."""

from __future__ import annotations

import json
import time

import click

from meshcore.api import admin_pb2
from meshcore.config import Duration

from .connection import admin
from .output import is_json, output_option, show_json, show_table


@click.group("join-token")
def join_token() -> None:
    """Make, list and revoke join tokens."""


@join_token.command()
@click.argument("workload", metavar="NAMESPACE/ACCOUNT")
@click.option("--ttl", default="1h", show_default=True, help="How long it may wait to be used; at most 23h.")
@output_option
@click.pass_context
def create(ctx: click.Context, workload: str, ttl: str, output: str) -> None:
    """Make a token for one identity, and print it: now, and never again."""
    namespace, slash, account = workload.partition("/")
    if not slash or not account:
        raise click.UsageError(f"{workload!r}: expected NAMESPACE/ACCOUNT, like shop/web")
    try:
        seconds = int(Duration(ttl).seconds)
    except ValueError as error:
        raise click.UsageError(f"--ttl: {error}") from None
    with admin(ctx) as stub:
        made = stub.MakeJoinToken(
            admin_pb2.TokenWish(namespace=namespace, account=account, ttl_s=seconds), timeout=15
        )
    if is_json(output):
        show_json({"token": made.token, "identity": made.identity, "ttl_s": made.ttl_s})
    else:
        # The token alone, so that it can be piped into a file.
        click.echo(made.token)


@join_token.command("list")
@click.option("-n", "--namespace", default="", help="Of one namespace.")
@output_option
@click.pass_context
def list_(ctx: click.Context, namespace: str, output: str) -> None:
    """Show tokens that are remembered, without their secrets."""
    with admin(ctx) as stub:
        entries = stub.ListJoinTokens(admin_pb2.Query(namespace=namespace), timeout=15).entries
    found = [{"id": entry.key, **json.loads(entry.json)} for entry in entries]
    if is_json(output):
        show_json(found)
        return
    if not found:
        click.echo("No join tokens.", err=True)
        return
    show_table(
        ["ID", "IDENTITY", "STATE", "MADE BY"],
        [[one["id"], one["identity"], state_of(one, time.time()), one["made_by"]] for one in found],
    )


def state_of(record: dict[str, float], now_s: float) -> str:
    """`used`, `expired`, or how long it is still good."""
    if record["used_at_s"]:
        return "used"
    left_s = record["expires_at_s"] - now_s
    return "expired" if left_s <= 0 else f"good for {int(left_s // 60)}m{int(left_s % 60)}s"


@join_token.command()
@click.argument("token_id", metavar="ID")
@output_option
@click.pass_context
def revoke(ctx: click.Context, token_id: str, output: str) -> None:
    """Make a token useless, by its id (or the token itself)."""
    parts = token_id.split(".")
    number = parts[1] if len(parts) == 3 else token_id
    with admin(ctx) as stub:
        done = list(stub.RevokeJoinToken(admin_pb2.TokenId(id=number), timeout=15).done)
    if is_json(output):
        show_json({"done": done})
    else:
        click.echo("\n".join(done))
    if done[0].endswith(" not there"):
        raise click.exceptions.Exit(1)
