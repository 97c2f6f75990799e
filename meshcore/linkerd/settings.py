"""What a Linkerd file says once it is read: frozen values in our words. Reads nothing.

Settings of clients and services are plain mappings in words of our clusters and routes; which of them hold for a name is
asked by path, as `io.l5d.static` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..binder.policies import ClientTls, Policies
from ..binder.transform import Transformer
from ..naming import EMPTY_DTAB, Dtab, Path


class ServerTls(msgspec.Struct, frozen=True):
    """What a server shows, and whom it lets in. Paths of PEM files."""

    cert: str
    key: str
    client_ca: str | None = None
    requires_client: bool = False


class Server(msgspec.Struct, frozen=True):
    """One address where clients connect."""

    host: str
    port: int
    tls: ServerTls | None = None
    trusts_callers: bool = False
    """Hears the tables and contexts that callers send (`l5d-dtab`, `l5d-ctx-*`)."""
    max_requests: int | None = None


class Identifier(msgspec.Struct, frozen=True):
    """How a request gets its name, in words of a route's `lookup`."""

    by: str = "header_token"
    segments: int = 1
    header: str | None = None
    name: str | None = None
    consume: bool = False


class Daemonset(msgspec.Struct, frozen=True):
    """The proxies of all nodes, as Kubernetes knows them."""

    namespace: str
    service: str
    port: str
    host: str = ""
    api_port: int = 8001


class Interpreter(msgspec.Struct, frozen=True):
    """Who binds names. kind: default (own table), fs (own table, in a file), http or mesh (a namerd)."""

    kind: str = "default"
    host: str = ""
    port: int = 0
    namespace: str = "default"
    dtab_file: str = ""
    transformers: tuple[Transformer, ...] = ()
    daemonset: Daemonset | None = None
    tls: ClientTls | None = None


class Router(msgspec.Struct, frozen=True):
    """One router: its servers share a name space and how names are bound."""

    label: str
    protocol: str = "http"
    prefix: Path = Path.of("svc")
    dtab: Dtab = EMPTY_DTAB
    servers: Sequence[Server] = ()
    identifier: Identifier = Identifier()
    interpreter: Interpreter = Interpreter()
    clients: Policies = Policies()
    services: Policies = Policies()
    binding_timeout: str = "10s"
    idle: str | None = None
    head_bytes: int | None = None
    target_bytes: int | None = None
    body_bytes: int | None = None


class LinkerdFile(msgspec.Struct, frozen=True):
    """A whole file. Namers are as they stand: who makes them reads them."""

    routers: Sequence[Router]
    namers: Sequence[Mapping[str, Any]] = ()
    admin: str | None = None
