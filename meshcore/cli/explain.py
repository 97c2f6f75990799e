"""`meshproxy explain`: what a configuration would do with one request, and why with that route. Sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from meshcore._fastpath import RouteTableDoor, name_of
from meshcore.cli.check import addresses_of
from meshcore.config import Cluster, Config, Listener, Match, Retries, Route, RouteLookup, load
from meshcore.config.http_parts import TOKEN
from meshcore.config.plan import lookup_plan
from meshcore.config.references import route_names_of
from meshcore.tap_sessions import method_number

EPILOG = """
\b
Examples:
  meshproxy explain -c mesh.yaml GET http://a.test/users/7
  meshproxy explain -c mesh.yaml --listener internal POST /orders
  meshproxy explain -c mesh.yaml -H "x-canary: 1" GET http://a.test/

Exit: 0 when a route matches, 1 when the proxy would answer 404.
"""

MOST_NEAR_MISSES = 5

Field = tuple[str, str]  # a header field: its name in lower case, its value


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
@click.option("--listener", "listener_name", metavar="NAME", help="Where the request comes in.  [default: the first]")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A field of the request. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.argument("method")
@click.argument("url")
def explain(path: Path, listener_name: str | None, headers: tuple[str, ...], as_json: bool, method: str, url: str) -> None:
    """Tell which route METHOD URL would take, and what would happen to it there."""
    config = load(path)
    listener = _listener(config, listener_name)
    facts = explained(config, listener, method.upper(), url, [_field(text) for text in headers])
    click.echo(
        json.dumps(facts, indent=2) if as_json else "\n".join(f"{name:<11}{text}" for name, text in _lines(facts))
    )
    if facts["route"] is None:
        raise SystemExit(1)


def _field(text: str) -> Field:
    name, colon, value = text.partition(":")
    if not colon or re.fullmatch(TOKEN, name) is None or not value.isprintable():
        raise click.BadParameter(f"{text!r} is no header field", param_hint="'-H'; it is written 'name: value'")
    return name.lower(), value.strip()


def explained(config: Config, listener: Listener, method: str, url: str, fields: Sequence[Field] = ()) -> dict[str, Any]:
    """The decision as plain values; `route` is None when there is none."""
    parts = urlsplit(url if "//" in url else f"//{url}" if not url.startswith("/") else url)
    host, path = (parts.hostname or "").lower(), parts.path or "/"
    by_name = {route.name: route for route in config.routes}
    served = [by_name[name] for name in route_names_of(config, listener)]
    found = find(served, host, path, method, fields)
    facts: dict[str, Any] = {
        "request": f"{method} {url}",
        "listener": f"{listener.name} ({listener.address})",
        "route": None if found is None else found.name,
        "because": "no route matches: 404, reason route_not_found" if found is None else _because(found.match),
        "not": {
            route.name: mismatch(route.match, host, path, method, fields) or "matches too, but less exactly or listed later"
            for route in served
            if route is not found
        },
    }
    if listener.tls_routes:
        facts["over_tls"] = _over_tls([by_name[name] for name in listener.tls_routes], listener, host)
    if found is not None:
        facts |= _fate(config, found, path, parts.query)
        if found.lookup is not None:
            facts["name"] = _name(listener, found.lookup, method, parts, fields)
    return facts


def _over_tls(routes: list[Route], listener: Listener, host: str) -> str:
    """What becomes of a client that asks for the host in a TLS handshake, asked of the engine's own table."""
    rows = []
    for route in routes:
        sni = route.match.sni
        rows.append((0 if not sni else 2 if sni.startswith("*.") else 1, (sni or "").encode(), 0, b"", 0))
    index = RouteTableDoor(rows).find(host.encode(), b"", 1)
    if index is not None:
        sni = routes[index].match.sni
        return f"{routes[index].name}: relayed as it is, {f'by sni {sni}' if sni else 'it takes every name'}"
    if listener.tls is not None:
        return "ended here: no route of tls_routes has the name"
    if listener.tcp_route is not None:
        return f"{listener.tcp_route}: relayed as it is, for no route of tls_routes has the name"
    return "reset: no route of tls_routes has the name, and there is no tcp_route"


def _name(listener: Listener, lookup: RouteLookup, method: str, parts: SplitResult, fields: Sequence[Field]) -> dict[str, Any]:
    """What the engine makes of the request, asked of the engine itself: headers that are not given are not there."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", *(f"{name}: {value}" for name, value in fields)]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    found = name_of(lookup_plan(lookup), head, is_secure=listener.tls is not None)
    return {
        "text": None if found is None else found[0].decode("latin-1"),
        "by": lookup.by + (f" {lookup.field}" if lookup.by.startswith("header") else ""),
        "waits": str(lookup.timeout),
    }


def find(routes: list[Route], host: str, path: str, method: str, fields: Sequence[Field] = ()) -> Route | None:
    """The route the engine takes, asked of the engine's own table: of the routes whose fields the request has."""
    routes = [route for route in routes if not _missing(route.match, fields)]
    rows = []
    for route in routes:
        match = route.match
        host_kind = 0 if match.host is None else 2 if match.host.startswith("*.") else 1
        wanted, path_kind = (match.path, 1) if match.path is not None else (match.prefix, 2 if match.prefix else 0)
        mask = sum({1 << method_number(one) for one in match.methods})
        rows.append((host_kind, (match.host or "").encode(), path_kind, (wanted or "").encode(), mask))
    index = RouteTableDoor(rows).find(host.encode(), path.encode(), 1 << method_number(method))
    return None if index is None else routes[index]


def _missing(match: Match, fields: Sequence[Field]) -> str:
    """A field that it wants and the request does not have, as text; "" when it has all."""
    return next((f"{name}: {value}" for name, value in match.headers.items() if (name, value) not in fields), "")


def mismatch(match: Match, host: str, path: str, method: str, fields: Sequence[Field] = ()) -> str:
    """The first condition that fails, in words; "" when all hold."""
    if match.host is not None and not (
        host.endswith(match.host[1:]) and host != match.host[2:] if match.host.startswith("*.") else host == match.host
    ):
        return f"host is not {match.host}"
    if match.path is not None and path != match.path:
        return f"path is not {match.path}"
    prefix = (match.prefix or "").rstrip("/")
    if match.prefix is not None and not (path == prefix or path.startswith(f"{prefix}/")):
        return f"path is not below {match.prefix}"
    if match.methods and method not in match.methods:
        return f"method is not {' or '.join(match.methods)}"
    missing = _missing(match, fields)
    return f"no header {missing}" if missing else ""


def _because(match: Match) -> str:
    conditions = [
        f"host {match.host}" if match.host else "",
        f"path {match.path}" if match.path else "",
        f"prefix {match.prefix}" if match.prefix else "",
        f"method {' or '.join(match.methods)}" if match.methods else "",
        *(f"header {name}: {value}" for name, value in match.headers.items()),
    ]
    return ", ".join(filter(None, conditions)) or "it takes everything"


def _fate(config: Config, route: Route, path: str, query: str) -> dict[str, Any]:
    if route.respond is not None:
        return {"answers": f"{route.respond.status}, {len(route.respond.body)} characters, without a cluster"}
    clusters = {cluster.name: cluster for cluster in config.clusters}
    shares = [(route.to, 1)] if route.to is not None else [(share.cluster, share.weight) for share in route.split]
    total = sum(weight for _, weight in shares)
    forwarded = _rewritten(route, path) + (f"?{query}" if query else "")
    edits = route.request_headers
    return {
        "forwards": forwarded + (f", host {route.rewrite.host}" if route.rewrite.host else ""),
        "headers": [
            *(f"- {name}" for name in edits.remove),
            *(f"= {name}: {value}" for name, value in edits.set.items()),
            *(f"+ {name}: {value}" for name, value in edits.add.items()),
        ],
        "clusters": [
            {
                "name": name,
                "share_percent": round(100 * weight / total, 2),
                "balancer": clusters[name].balancer,
                "endpoints": addresses_of(clusters[name]) or _at_run_time(clusters[name]),
                "connect_timeout": str(clusters[name].connect_timeout),
            }
            for name, weight in shares
        ],
        "timeouts": {
            name: str(value) if value else "off"
            for name, value in (
                ("response", route.timeout),
                ("total", route.total_timeout),
                ("idle", route.idle_timeout),
            )
        },
        "retries": _retries(route.retries),
        "grpc_web": route.grpc_web,
        "max_body": route.max_body or "no limit",
    }


def _retries(retries: Retries) -> str:
    if retries.max_attempts == 1:
        return "none"
    waits = f", {retries.backoff} apart at first and {retries.max_backoff} at most" if retries.backoff else ""
    return f"{retries.max_attempts} attempts on {', '.join(retries.on)}{waits}"


def _at_run_time(cluster: Cluster) -> list[str]:
    if cluster.type == "static":
        return []
    host = "loopback" if cluster.to == "loopback" else "where the client was going"
    return [f"{host}, port {cluster.port}" if cluster.port else host]


def _rewritten(route: Route, path: str) -> str:
    if route.rewrite.prefix is None:
        return path
    old = (route.match.path or route.match.prefix or "").rstrip("/")
    return route.rewrite.prefix.rstrip("/") + path[len(old) :] or "/"


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "request", facts["request"]
    yield "listener", facts["listener"]
    if "over_tls" in facts:
        yield "over TLS", facts["over_tls"]
    yield "route", f"{facts['route'] or 'none'}: {facts['because']}"
    for name, why in list(facts["not"].items())[:MOST_NEAR_MISSES]:
        yield "", f"not {name}: {why}"
    if len(facts["not"]) > MOST_NEAR_MISSES:
        yield "", f"and {len(facts['not']) - MOST_NEAR_MISSES} others"
    if "answers" in facts:
        yield "answers", facts["answers"]
    if "clusters" not in facts:
        return
    yield "forwards", facts["forwards"]
    for edit in facts["headers"]:
        yield "", edit
    if "name" in facts:
        name = facts["name"]
        missing = "its own clusters" if facts["clusters"] else "400, reason lookup_no_name"
        yield "name", f"{name['text']}, by {name['by']}" if name["text"] else f"none, by {name['by']}: {missing}"
        if name["text"]:
            yield "", f"goes where the name is bound to while the proxy runs; waits {name['waits']} for it to be"
    for cluster in facts["clusters"]:
        endpoints = ", ".join(cluster["endpoints"][:4]) or "no endpoint: 503"
        more = f" and {len(cluster['endpoints']) - 4} more" if len(cluster["endpoints"]) > 4 else ""
        share = f" {cluster['share_percent']:g}%" if len(facts["clusters"]) > 1 else ""
        yield "cluster", f"{cluster['name']}{share}, {cluster['balancer']}: {endpoints}{more}"
    if not facts["clusters"]:
        return
    times = ", ".join(f"{name} {value}" for name, value in facts["timeouts"].items())
    yield "timeouts", f"connect {facts['clusters'][0]['connect_timeout']}, {times}"
    yield "retries", facts["retries"]
    yield "max body", str(facts["max_body"])
    if facts["grpc_web"]:
        yield "grpc-web", "calls of gRPC-Web go on as gRPC, and answers come back as they were asked for"


def _listener(config: Config, name: str | None) -> Listener:
    for listener in config.listeners:
        if name == listener.name and listener.protocol == "tcp":
            raise click.ClickException(
                f"listener '{name}' relays TCP: no request is read there, every connection takes route "
                f"{' or '.join(repr(route) for route in (*listener.tls_routes, listener.tcp_route) if route)}"
            )
        if name == listener.name or (name is None and listener.protocol != "tcp"):
            return listener
    if name is None:
        raise click.ClickException("no listener speaks HTTP: TCP listeners relay connections without reading requests")
    known = ", ".join(listener.name for listener in config.listeners)
    raise click.BadParameter(f"no listener '{name}'; listeners are: {known}", param_hint="--listener")
