"""From the values of a Linkerd file to a proxy: its configuration, its TLS contexts, the rules of its names. Starts nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path as File
from typing import Any

import msgspec

from ..binder.dtab_file import DtabFile
from ..binder.namerd_http import HttpInterpreter
from ..binder.namerd_mesh import MeshInterpreter
from ..binder.nodes import OnNodes
from ..binder.policies import EVERYTHING, ClientTls, Policies
from ..binder.rules import Rules, context_name
from ..config import Admin, Certificate, Config, Limits, Listener, ListenerTls, Route, RouteLookup, Timeouts
from ..errors import ConfigError, Problem
from ..namers.configured import namers_from
from ..namers.interpreter import Interpreter, LocalInterpreter
from ..namers.namer import LiveNamers
from ..naming import NamingError, Path
from ..naming.statics import PREFIX
from .clients import DEFAULTS
from .reader import Read
from .settings import Daemonset, LinkerdFile, Router, Server

ENDPOINT_PROTOCOLS = {"http": "http1", "h2": "http2"}


def configuration(file: LinkerdFile, *, workers: int | str | None = None, admin: str | None = None) -> Config:
    """Listeners and lookup routes; everything else is bound by name. `workers` and `admin` win over the file."""
    listeners = [
        Listener(
            name=router.label if index == 0 else f"{router.label}-{index}",
            address=_address(server),
            routes=[router.label],
            trust_mesh_headers=server.trusts_callers,
            tls=_tls(server),
        )
        for router in file.routers
        for index, server in enumerate(router.servers)
    ]
    chosen: dict[str, Any] = {} if workers is None else {"workers": workers}
    return Config(
        listeners=listeners,
        routes=[_route(router) for router in file.routers],
        limits=_limits(file.routers),
        timeouts=_timeouts(file.routers),
        admin=Admin(address=admin or file.admin),
        **chosen,
    )


def _address(server: Server) -> str:
    host = "127.0.0.1" if server.host == "localhost" else server.host
    try:
        host = socket.inet_ntoa(socket.inet_aton(host))  # 127.1, as Java reads it too
    except OSError:
        host = f"[{host}]" if ":" in host else host
    return f"{host}:{server.port}"


def _tls(server: Server) -> ListenerTls | None:
    if server.tls is None:
        return None
    return ListenerTls(
        certificates=[Certificate(cert=server.tls.cert, key=server.tls.key)],
        client_ca=server.tls.client_ca if server.tls.requires_client else None,
    )


def _route(router: Router) -> Route:
    found = router.identifier
    return Route(
        name=router.label,
        lookup=RouteLookup(
            by=found.by,
            prefix=str(router.prefix) if router.prefix else "",
            segments=found.segments,
            header=found.header,
            name=found.name,
            overrides=True,
            timeout=router.binding_timeout,
        ),
        max_body=router.body_bytes or 0,
    )


def _limits(routers: Sequence[Router]) -> Limits:
    """Those of the proxy are the most generous of its routers'."""
    heads = [router.head_bytes for router in routers if router.head_bytes]
    targets = [router.target_bytes for router in routers if router.target_bytes]
    requests = [server.max_requests for router in routers for server in router.servers]
    chosen: dict[str, Any] = {}
    if heads:
        chosen["head_size"] = max(heads)
    if targets:
        chosen["target_size"] = max(targets)
    if requests and None not in requests:
        chosen["max_in_flight"] = sum(one for one in requests if one)
    return Limits(**chosen)


def _timeouts(routers: Sequence[Router]) -> Timeouts:
    idle = [router.idle for router in routers if router.idle]
    return Timeouts(bound_name_idle=max(idle, key=lambda text: int(text[:-1]))) if idle else Timeouts()


# --- names ---


async def rules(read: Read, source: str, warn: Callable[[Problem], None] = lambda problem: None) -> list[Rules]:
    """How the names of each router are bound. On the event loop that will follow them."""
    file = read.file
    try:
        namers = namers_from(file.namers, source, warn=lambda problem: warn(read.placed(problem)))
    except ConfigError as error:
        raise ConfigError([read.placed(problem) for problem in error.problems]) from None
    return [
        Rules(
            route=router.label,
            interpreter=_on_nodes(_interpreter(router, namers, source), router.interpreter.daemonset),
            prefix=router.prefix,
            services=router.services,
            clients=Policies(({PREFIX: EVERYTHING, **DEFAULTS}, *router.clients.configs)),
            transformers=router.interpreter.transformers,
            protocol=ENDPOINT_PROTOCOLS[router.protocol],
            consumes=router.identifier.consume,
        )
        for router in file.routers
    ]


def _interpreter(router: Router, namers: LiveNamers, source: str) -> Interpreter:
    found = router.interpreter
    if found.kind == "http":
        return HttpInterpreter(found.host, found.port, found.namespace, router.dtab)
    if found.kind == "mesh":
        return MeshInterpreter(found.host, found.port, found.namespace, router.dtab, tls=found.tls)
    if found.kind == "fs":
        try:
            return LocalInterpreter(namers, DtabFile(File(found.dtab_file)), keeps_alternatives=True)
        except OSError as error:
            message = f"cannot read {found.dtab_file}: {error.strerror or error}"
            raise ConfigError(Problem(message=message, source=source)) from None
        except NamingError as error:
            raise ConfigError(Problem(message=str(error), source=source)) from None
    return LocalInterpreter(namers, router.dtab, keeps_alternatives=True)


def _on_nodes(interpreter: Interpreter, daemonset: Daemonset | None) -> Interpreter:
    if daemonset is None:
        return interpreter
    kubernetes = {"kind": "io.l5d.k8s", "host": daemonset.host, "port": daemonset.api_port}
    proxies = Path.of("#", "io.l5d.k8s", daemonset.namespace, daemonset.port, daemonset.service)
    return OnNodes(interpreter, namers_from([kubernetes]).replicas(proxies))


# --- TLS towards endpoints ---


class TlsContext(msgspec.Struct, frozen=True):
    """Arguments of `Proxy.set_tls_context`."""

    name: str
    ca: bytes
    cert: bytes | None
    key: bytes | None


def tls_contexts(file: LinkerdFile) -> list[TlsContext]:
    """One for each combination of files. They are read now."""
    ways = {tls for router in file.routers for tls in router.clients.all_tls()}
    return list({context_name(tls): _context(tls) for tls in ways}.values())


def _context(tls: ClientTls) -> TlsContext:
    system = ssl.get_default_verify_paths()
    trust = tls.trust or (system.cafile or system.openssl_cafile,)
    return TlsContext(
        name=context_name(tls),
        ca=b"\n".join(_read(path) for path in trust),
        cert=_read(tls.cert) if tls.cert else None,
        key=_read(tls.key) if tls.key else None,
    )


def _read(path: str) -> bytes:
    try:
        return File(path).read_bytes()
    except OSError as error:
        raise ConfigError(Problem(message=f"cannot read {path}: {error.strerror or error}")) from None
