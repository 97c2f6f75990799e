"""`meshctl get`: services, workloads, endpoints and policies as they stand."""

from __future__ import annotations

import json
from typing import Any

import click

from meshcore.api import admin_pb2

from .connection import admin
from .output import is_json, output_option, show_json, show_table

KINDS = {
    "service": "service", "services": "service", "svc": "service",
    "workload": "workload", "workloads": "workload", "wl": "workload",
    "endpoint": "endpoint", "endpoints": "endpoint", "ep": "endpoint",
    "drain": "drain", "drains": "drain",
    "route_policy": "route_policy", "route-policies": "route_policy", "routes": "route_policy",
    "traffic_policy": "traffic_policy", "traffic-policies": "traffic_policy", "traffic": "traffic_policy",
}  # fmt: skip

EPILOG = """
\b
Examples:
  meshctl get services -n shop
  meshctl get endpoints -A -o wide
  meshctl get all -o json
"""


class KindType(click.ParamType[str]):
    """A kind in any of its spellings."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "all" or value in KINDS.values():
            return str(value)
        found = KINDS.get(str(value).lower())
        if found is None:
            self.fail(f"{value!r}; kinds are all, {', '.join(dict.fromkeys(KINDS.values()))}", param, ctx)
        return found

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        words = ["all", *dict.fromkeys(KINDS.values())]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("kind", type=KindType())
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="", help="Of one namespace.  [default: all that you may see]")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace; the default.")
@output_option
@click.pass_context
def get(ctx: click.Context, kind: str, name: str | None, namespace: str, all_namespaces: bool, output: str) -> None:
    """Show values of the model."""
    if all_namespaces and namespace:
        raise click.UsageError("--namespace and --all-namespaces exclude each other")
    with admin(ctx) as stub:
        query = admin_pb2.Query(kinds=[] if kind == "all" else [kind], namespace=namespace, name=name or "")
        listing = stub.Get(query, timeout=15)
    found = [(entry, json.loads(entry.json)) for entry in listing.entries]
    if is_json(output):
        items = [
            {"kind": entry.kind, "key": entry.key, "revision": entry.revision, "lease": entry.lease, "source": entry.source, "value": value}
            for entry, value in found
        ]
        show_json({"position": listing.position, "items": items, "unreadable": list(listing.unreadable)})
        return
    for unreadable in listing.unreadable:
        click.echo(f"meshctl: {unreadable} cannot be read", err=True)
    if not found:
        click.echo("No resources found.", err=True)
        return
    wide = output == "wide"
    headers = ["KIND", "NAME", "WHAT"] + (["REVISION", "LEASE", "FROM", "LABELS"] if wide else [])
    rows = []
    for entry, value in found:
        row = [entry.kind, entry.key, summary(entry.kind, value)]
        if wide:
            labels = ",".join(f"{key}={label}" for key, label in sorted(value.get("labels", {}).items()))
            row += [str(entry.revision), str(entry.lease or "-"), entry.source or "store", labels or "-"]
        rows.append(row)
    show_table(headers, rows)


def summary(kind: str, value: dict[str, Any]) -> str:
    """What matters of a value, in a few words."""
    if kind == "service":
        return ", ".join(f"{port['port']}/{port.get('protocol', 'detect')}" for port in value.get("ports", [])) or "any port"
    if kind == "workload":
        return f"{value.get('account', 'default')} at {', '.join(value.get('addresses', [])) or 'no address'}"
    if kind == "endpoint":
        weight = value.get("weight", 100)
        tls = "mTLS" if value.get("identity") else "plain"
        return f"{value['address']}:{value['port']} {tls}{'' if weight else ' draining'}"
    if kind == "drain":
        return "takes no new requests until `meshctl workload drain --undo`"
    if kind == "route_policy":
        return f"{len(value.get('rules', []))} rules for {value['service']}"
    return f"{value.get('balancer', 'peak_ewma')} for {value['service']}"
