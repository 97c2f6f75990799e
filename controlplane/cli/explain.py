"""`meshctl explain`: what a name means in the mesh, and why its calls go where they go."""

from __future__ import annotations

import json
from typing import Any

import click

from meshcore.api import admin_pb2

from .connection import admin
from .output import escaped, is_json, output_option, show_json

EPILOG = """
\b
Examples:
  meshctl explain web.shop
  meshctl explain web.shop.svc.cluster.local:80 -o json
  meshctl explain 192.0.2.7:8080
"""


@click.command(epilog=EPILOG)
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where the caller stands.")
@output_option
@click.pass_context
def explain(ctx: click.Context, name: str, namespace: str, output: str) -> None:
    """Tell how a destination is resolved."""
    with admin(ctx) as stub:
        found = json.loads(stub.Explain(admin_pb2.Name(path=name, namespace=namespace), timeout=15).json)
    if is_json(output):
        show_json(found)
        return
    for line in lines(found):
        click.echo(escaped(line))


def lines(found: dict[str, Any]) -> list[str]:
    """The explanation as text."""
    out = [f"{found['asked']} is {found['means']}"]
    if "exists" in found:
        out.append("  it exists" if found["exists"] else "  it does not exist: proxies go where the client went")
    if found.get("protocol"):
        out.append(f"  protocol: {found['protocol']}")
    if found.get("why_empty"):
        out.append(f"  no endpoint: {found['why_empty']}")
    if found.get("keeps_last_endpoints"):
        out.append("  its last endpoints are gone, and kept until others come (when_empty: keep)")
    for endpoint in found.get("endpoints", []):
        state = "" if endpoint["takes_requests"] else ", draining"
        out.append(
            f"  endpoint {endpoint['name']}: {endpoint['address']}:{endpoint['port']}, {endpoint['tls']}"
            f" {endpoint.get('identity', '')}{state}; {endpoint['from']}".rstrip()
        )
    for rule in found.get("rules", []):
        out.append(f"  rule {rule['policy']} #{rule['number']}: {_rule(rule)}")
    traffic = found.get("traffic")
    if traffic:
        whose = "by default" if traffic["is_default"] else f"by {traffic['namespace']}/{traffic['name']}"
        out.append(f"  traffic {whose}: balancer {traffic.get('balancer', 'peak_ewma')}, mTLS {traffic.get('mtls', 'permissive')}")
    if "watchers" in found:
        out.append(f"  watched by {found['watchers']} proxies here, as of {found['position']}")
    return out


def _rule(rule: dict[str, Any]) -> str:
    matches = [
        " ".join(
            [
                *match.get("methods", []),
                match.get("path") or (f"{match['prefix']}*" if match.get("prefix") else "any path"),
                *(f"{name}: {value}" for name, value in match.get("headers", {}).items()),
            ]
        )
        for match in rule.get("matches", [])
    ]
    goes = ", ".join(f"{split['service']} ({split.get('weight', 1)})" for split in rule.get("splits", []))
    timeout = f", within {rule['timeout_ms']} ms" if rule.get("timeout_ms") else ""
    return f"{' or '.join(matches) or 'every request'} -> {goes or 'the service itself'}{timeout}"
