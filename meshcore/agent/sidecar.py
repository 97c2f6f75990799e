"""The configuration of a sidecar: its listeners, routes and clusters, from a handful of choices. Starts nothing.

Inbound: anything, with or without TLS, goes to the application; who proved to be a member is named to it. Outbound: each
request and each connection is looked up by the name, or the address, it was meant for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshcore.config import Config, from_dict

from .certificate import CHAIN_FILE, KEY_FILE
from .trust import ROOTS_FILE

OUTBOUND_HTTP, OUTBOUND_TCP = "outbound-http", "outbound-tcp"
INBOUND_HTTP, INBOUND_TCP = "inbound-http", "inbound-tcp"
APPLICATION, PASSTHROUGH = "application", "passthrough"
LOOKUP_TIMEOUT = "3s"  # a name nobody has heard of, while the control plane is away; all others are answered from what is known
# What the application and its clients wait for is theirs to say.
UNHURRIED = {"timeout": "0", "total_timeout": "0", "idle_timeout": "1h", "tunnel_idle_timeout": "1d"}


class SidecarSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between sidecars."""

    inbound: str = ":4143"
    outbound: str = "127.0.0.1:4140"
    admin: str = "127.0.0.1:4191"
    interception: str = "off"
    """off, redirect or tproxy: how connections come here that were going elsewhere."""
    has_ipv6: bool = True
    """Whether this network has IPv6: without it none comes here, and nobody can listen for it."""
    app_port: int = 0
    """Where the application listens on loopback; without interception inbound connections go there."""
    opaque_ports: tuple[int, ...] | None = None
    """Intercepted connections to these are not looked at; None: to the usual ones where servers speak first."""
    require_mtls: bool = False
    """Refuse inbound connections of who is no member."""
    forwards: Mapping[str, str] = {}
    """Addresses to listen on, each for one name `host:port`, for applications that know neither proxies nor interception."""
    workers: int = 1
    drain: str = "30s"


def http_routes(settings: SidecarSettings) -> tuple[str, ...]:
    """The routes that look names up and read requests."""
    return (OUTBOUND_HTTP, *(f"forward-{number}-http" for number, _ in enumerate(settings.forwards)))


def tls_listeners(settings: SidecarSettings) -> tuple[str, ...]:
    """The listeners that show the workload's certificate."""
    return tuple(row["name"] for row in _inbound(settings, Path()))


def sidecar_config(settings: SidecarSettings, state: Path) -> Config:
    """state: the directory with key, chain and roots in files."""
    intercepts = settings.interception != "off"
    passthrough = {"to": PASSTHROUGH} if intercepts else {}
    lookup = {"timeout": LOOKUP_TIMEOUT}
    routes = [
        {"name": INBOUND_HTTP, "to": APPLICATION, **UNHURRIED},
        {"name": INBOUND_TCP, "to": APPLICATION, "tunnel_idle_timeout": "1d"},
        {"name": OUTBOUND_HTTP, "lookup": {"by": "authority", **lookup}, **UNHURRIED, **passthrough},
    ]
    if intercepts:
        routes.append({"name": OUTBOUND_TCP, "lookup": {"by": "destination", **lookup}, "tunnel_idle_timeout": "1d", **passthrough})
    listeners = [*_inbound(settings, state), *_outbound(settings)]
    for number, (address, name) in enumerate(settings.forwards.items()):
        constant = {"lookup": {"by": "constant", "name": f"/{name}", "prefix": "", **lookup}}
        routes += [
            {"name": f"forward-{number}-http", **constant, **UNHURRIED},
            {"name": f"forward-{number}-tcp", **constant, "tunnel_idle_timeout": "1d"},
        ]
        listeners.append(
            {"name": f"forward-{number}", "address": address, "protocol": "detect",
             "routes": [f"forward-{number}-http"], "tcp_route": f"forward-{number}-tcp"}
        )  # fmt: skip
    clusters: list[dict[str, Any]] = [_application(settings)]
    if intercepts:
        clusters.append({"name": PASSTHROUGH, "type": "original_destination"})
    return from_dict(
        {
            "workers": settings.workers,
            "admin": {"address": settings.admin},
            "timeouts": {"drain": settings.drain},
            "listeners": listeners,
            "routes": routes,
            "clusters": clusters,
        }
    )


def _application(settings: SidecarSettings) -> dict[str, Any]:
    if settings.interception != "off":
        return {"name": APPLICATION, "type": "original_destination"}
    return {"name": APPLICATION, "protocol": "same", "endpoints": [f"127.0.0.1:{settings.app_port}"] if settings.app_port else []}


def _inbound(settings: SidecarSettings, state: Path) -> list[dict[str, Any]]:
    rows = []
    for suffix, address in _addresses(settings.inbound, settings.has_ipv6 and settings.interception != "off"):
        rows.append(
            {
                "name": f"inbound{suffix}",
                "address": address,
                "protocol": "detect",
                "mesh_hop": "on",
                "original_destination": settings.interception,
                **_opaque(settings),
                "routes": [INBOUND_HTTP],
                "tcp_route": INBOUND_TCP,
                "tls": {
                    "certificates": [{"cert": str(state / CHAIN_FILE), "key": str(state / KEY_FILE)}],
                    "client_ca": str(state / ROOTS_FILE),
                    "client_auth": "required",
                    "mode": "strict" if settings.require_mtls else "permissive",
                    "min_version": "1.3",
                },
            }
        )
    return rows


def _outbound(settings: SidecarSettings) -> list[dict[str, Any]]:
    if settings.interception == "off":
        # Whatever is no request has nothing that says where it goes.
        return [{"name": "outbound", "address": settings.outbound, "routes": [OUTBOUND_HTTP]}]
    return [
        {"name": f"outbound{suffix}", "address": address, "protocol": "detect", "original_destination": "redirect",
         "routes": [OUTBOUND_HTTP], "tcp_route": OUTBOUND_TCP, **_opaque(settings)}
        for suffix, address in _addresses(settings.outbound, settings.has_ipv6)
    ]  # fmt: skip


def _opaque(settings: SidecarSettings) -> dict[str, Any]:
    return {} if settings.opaque_ports is None else {"opaque_ports": list(settings.opaque_ports)}


def _addresses(address: str, with_ipv6: bool) -> list[tuple[str, str]]:
    """The address, and where connections of both families come its twin of the other one."""
    host, _, port = address.rpartition(":")
    twin = {"": "[::]", "0.0.0.0": "[::]", "127.0.0.1": "[::1]"}.get(host)
    return [("", address), ("6", f"{twin}:{port}")] if with_ipv6 and twin is not None else [("", address)]


def direction_of(route: str) -> str:
    """"in" for what callers ask of the application, "out" for what it asks of others, rules of names among them."""
    return "in" if route in (INBOUND_HTTP, INBOUND_TCP) else "out"


def is_application(cluster: str) -> bool:
    """Whether a cluster is the application itself."""
    return cluster == APPLICATION
