"""`meshctl workload`: members that do not register themselves, and draining any."""

from __future__ import annotations

import json
from typing import Any

import click

from controlplane.model import Drain, Endpoint, Named, Workload, encode
from controlplane.spiffe import SpiffeId
from meshcore.api import admin_pb2

from .connection import admin
from .get import summary
from .output import is_json, output_option, show_json, show_table


@click.group()
def workload() -> None:
    """Register, drain and list workloads."""


@workload.command("list")
@click.option("-n", "--namespace", default="", help="Of one namespace.")
@output_option
@click.pass_context
def list_(ctx: click.Context, namespace: str, output: str) -> None:
    """Show workloads with their endpoints."""
    with admin(ctx) as stub:
        entries = stub.Get(admin_pb2.Query(kinds=["workload", "endpoint", "drain"], namespace=namespace), timeout=15).entries
    values = [(entry, json.loads(entry.json)) for entry in entries]
    endpoints: dict[str, list[dict[str, Any]]] = {}
    for entry, value in values:
        if entry.kind == "endpoint" and value.get("workload"):
            endpoints.setdefault(f"{value['namespace']}/{value['workload']}", []).append(value)
    found = [(entry, value) for entry, value in values if entry.kind == "workload"]
    drained = {entry.key for entry, _ in values if entry.kind == "drain"}
    if is_json(output):
        show_json([{**value, "endpoints": endpoints.get(entry.key, []), "drained": entry.key in drained} for entry, value in found])
        return
    if not found:
        click.echo("No workloads found.", err=True)
        return
    rows = []
    for entry, value in found:
        own = endpoints.get(entry.key, [])
        where = ", ".join(f"{one['service']}={summary('endpoint', one)}" for one in own) or "-"
        alive = "with its lease" if entry.lease else "until deleted"
        takes = "drained" if entry.key in drained else "yes" if not own or any(one.get("weight", 1) for one in own) else "not now"
        rows.append([entry.key, value.get("account", "default"), value.get("zone", "-") or "-", alive, takes, where])
    show_table(["WORKLOAD", "ACCOUNT", "ZONE", "STAYS", "TAKES REQUESTS", "ENDPOINTS"], rows)


@workload.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@click.option("--account", help="Its account.  [default: NAME]")
@click.option("--address", required=True, help="Where it is reached.")
@click.option("--endpoint", "endpoints", multiple=True, metavar="SERVICE:PORT", help="A port it answers; repeat it.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Repeat it.")
@click.option("--zone", default="", help="Where it stands.")
@click.option("--protocol", default="detect", show_default=True, help="What its ports speak.")
@click.option("--plain", is_flag=True, help="It has no proxy: it is called without mTLS.")
@output_option
@click.pass_context
def register(
    ctx: click.Context,
    name: str,
    account: str | None,
    address: str,
    endpoints: tuple[str, ...],
    labels: tuple[str, ...],
    zone: str,
    protocol: str,
    plain: bool,
    output: str,
) -> None:
    """Write a workload that cannot register itself; it stays until it is deleted."""
    namespace, slash, own = name.partition("/")
    if not slash:
        raise click.UsageError(f"{name!r}: expected NAMESPACE/NAME, like shop/web-1")
    known = dict(label.partition("=")[::2] for label in labels)
    member = Workload(
        namespace=namespace, name=own, account=account or own, labels=known, zone=zone, addresses=(address,)
    )
    with admin(ctx) as stub:
        status = json.loads(stub.Status(admin_pb2.StatusQuery(), timeout=15).json)
        values: list[Named] = [member]
        for endpoint in endpoints:
            service, _, port = endpoint.rpartition(":")
            if not service or not port.isdigit():
                raise click.UsageError(f"{endpoint!r}: expected SERVICE:PORT, like web:8080")
            values.append(
                Endpoint(
                    namespace=namespace,
                    service=service,
                    name=f"{own}.{port}",
                    address=address,
                    port=int(port),
                    labels=known,
                    zone=zone,
                    protocol=protocol,
                    workload=own,
                    identity="" if plain else str(SpiffeId.of(status["trust_domain"], namespace, account or own)),
                )
            )
        _apply(stub, values, output)


@workload.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@click.option("--undo", is_flag=True, help="Let it take requests again.")
@output_option
@click.pass_context
def drain(ctx: click.Context, name: str, undo: bool, output: str) -> None:
    """Give a workload no new requests; those it has are finished.

    It stays so while it is away and when it comes back, until --undo.
    """
    namespace, slash, own = name.partition("/")
    if not slash:
        raise click.UsageError(f"{name!r}: expected NAMESPACE/NAME, like shop/web-1")
    with admin(ctx) as stub:
        entries = stub.Get(admin_pb2.Query(kinds=["workload", "endpoint", "drain"], namespace=namespace), timeout=15).entries
        values = [(entry, json.loads(entry.json)) for entry in entries]
        is_drained = any(entry.kind == "drain" and value["name"] == own for entry, value in values)
        is_known = any(
            value["name"] == own if entry.kind == "workload" else entry.kind == "endpoint" and value.get("workload") == own
            for entry, value in values
        )
        if not is_known and not is_drained:
            raise click.ClickException(f"there is no workload {name!r}, and no endpoint of it; see `meshctl workload list`")
        mark = Drain(namespace=namespace, name=own)
        if undo:
            _show(stub.Delete(admin_pb2.Values(entries=[admin_pb2.Entry(kind=mark.kind, key=mark.key)]), timeout=15), output)
        else:
            _apply(stub, [mark], output)


def _apply(stub: Any, values: list[Named], output: str) -> None:
    entries = [admin_pb2.Entry(kind=value.kind, key=value.key, json=encode(value)) for value in values]
    _show(stub.Apply(admin_pb2.Values(entries=entries), timeout=15), output)


def _show(answer: Any, output: str) -> None:
    if is_json(output):
        show_json({"position": answer.position, "done": list(answer.done)})
    else:
        click.echo("\n".join(answer.done))
