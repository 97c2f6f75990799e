"""From a Config to the plan: the plain dict the engine door takes, with names resolved and units made explicit.

Checks nothing again that a Config guarantees by existing; only name resolution can fail here.
"""

from __future__ import annotations

import math
import os
import resource
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import ConfigError, Problem
from .addresses import join_address, split_address
from .clusters import Breaker, SuccessRate
from .listeners import OPAQUE_PORTS, Listener
from .loader import origin_of
from .lookup import NAME_KINDS as NAME_KIND_WORDS
from .lookup import RouteLookup
from .references import route_names_of
from .routes import HeaderEdits, Retries, Route
from .types import Config
from .units import MAX_DURATION_NS

BALANCERS = {"round_robin": 0, "random": 1, "least_request": 2, "peak_ewma": 3}  # snapshot.BalancerKind
RETRY_ON = {
    "connect_failure": 1, "reset": 2, "502": 4, "503": 8, "504": 16,
    "cancelled": 32, "deadline_exceeded": 64, "resource_exhausted": 128, "unavailable": 256,
}  # snapshot.RetryOn  # fmt: skip
X_FORWARDED = {"off": 0, "append": 1, "replace": 2}  # snapshot.Forwarding.x_forwarded
PROXY_VERSIONS = {"off": 0, "v1": 1, "v2": 2, "any": 3}  # proxy_protocol: bits of the versions
UPSTREAM_PROTOCOLS = {"http1": 0, "http2": 1, "same": 2, "mesh_hop": 3}  # snapshot.UpstreamProtocol
NAME_KINDS = {word: number for number, word in enumerate(NAME_KIND_WORDS)}  # snapshot.NameKind
BACKOFF_KINDS = {"added": 0, "decorrelated": 1}  # snapshot.BackoffKind
INTERCEPTION = {"off": 0, "redirect": 1, "tproxy": 2}  # snapshot.Interception
HEADER_SET, HEADER_ADD, HEADER_REMOVE = 0, 1, 2  # snapshot.HeaderOpKind
MATCH_ANY, MATCH_EXACT, MATCH_PATTERN = 0, 1, 2  # routes.RouteMatch: any, exact, wildcard or prefix

# Descriptors for client connections: each may need one more towards an endpoint, and 10 % stay for the rest
# (listeners, files, admin).
DESCRIPTOR_SHARE = 0.45
MOST_DESCRIPTORS = 1 << 20  # "unlimited" is no number to size tables by
RESOLVER_THREADS = 16

Resolver = Callable[[str], list[str]]


def system_resolver(name: str) -> list[str]:
    """All IPv4 and IPv6 addresses of a name, in the system's order of preference. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def compile_plan(config: Config, version: int = 1, resolve: Resolver = system_resolver) -> dict[str, Any]:
    """The plan of a configuration. Blocks while names are resolved. Raises ConfigError when one cannot be."""
    workers = worker_count(config)
    addresses = _resolve_all(config, resolve)
    limits, timeouts = config.limits, config.timeouts
    max_connections = limits.max_connections
    if max_connections == "auto":
        max_connections = max(64, int(descriptor_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) * DESCRIPTOR_SHARE) // workers)
    return {
        "version": version,
        "workers": workers,
        "io_uring": config.io_uring == "auto",
        "drain_timeout_ns": int(timeouts.drain),  # type: ignore[arg-type]
        "limits": {
            "head_size_bytes": limits.head_size,
            "field_size_bytes": limits.field_size,
            "target_size_bytes": limits.target_size,
            "max_fields": limits.max_fields,
            "trailer_size_bytes": limits.trailer_size,
            "chunk_line_bytes": limits.chunk_line,
            "chunk_extension_total_bytes": limits.chunk_extension_total,
            "max_interim_responses": limits.max_interim_responses,
            "max_requests_per_connection": limits.max_requests_per_connection,
            "max_connections": max_connections,
            "max_in_flight": limits.max_in_flight,
            "buffer_memory_bytes": limits.buffer_memory,
            "body_min_rate_bytes_per_s": limits.body_min_rate,
            "body_min_rate_grace_ns": int(limits.body_min_rate_grace),  # type: ignore[arg-type]
            "head_timeout_ns": int(timeouts.head),  # type: ignore[arg-type]
            "keep_alive_timeout_ns": _or_never(timeouts.keep_alive),
            "linger_timeout_ns": int(timeouts.linger),  # type: ignore[arg-type]
            "linger_bytes": limits.linger_size,
            "filter_timeout_ns": int(timeouts.filter),  # type: ignore[arg-type]
            "max_filters_waiting": limits.max_filters_waiting,
            "http2_max_streams": limits.http2_max_streams,
            "http2_stream_window_bytes": limits.http2_stream_window,
            "http2_max_resets": limits.http2_max_resets,
            "max_latency_histograms": limits.max_latency_histograms,
            "max_original_destinations": limits.max_original_destinations,
            "tls_handshake_timeout_ns": int(timeouts.tls_handshake),  # type: ignore[arg-type]
            "max_tls_handshakes": limits.max_tls_handshakes,
            "max_bound_names": limits.max_bound_names,
            "max_lookups_waiting": limits.max_lookups_waiting,
            "name_size_bytes": limits.name_size,
            "bound_name_idle_ns": int(timeouts.bound_name_idle),  # type: ignore[arg-type]
        },
        "forwarding": {
            "via": config.forwarding.via or None,
            "x_forwarded": X_FORWARDED[config.forwarding.x_forwarded],
            "request_id": config.forwarding.request_id,
            "traceparent": config.forwarding.traceparent,
        },
        "clusters": [
            {**cluster_plan(cluster), "endpoints": _endpoints(cluster, addresses)} for cluster in config.clusters
        ],
        "routes": [route_plan(route) for route in config.routes],
        "listeners": [_listener(config, listener, addresses) for listener in config.listeners],
    }


def worker_count(config: Config) -> int:
    """Engine threads: as configured, or one per CPU this process may use."""
    if isinstance(config.workers, int):
        return config.workers
    return max(1, min(256, len(os.sched_getaffinity(0))))


def descriptor_limit(limit: int) -> int:
    """Open files a process with this limit may have, with a bound for "unlimited"."""
    return MOST_DESCRIPTORS if limit == resource.RLIM_INFINITY else min(limit, MOST_DESCRIPTORS)


def _or_never(idle: Any) -> int:
    """Nanoseconds of an idle timeout. The engine always arms these, so "off" is ten years."""
    return int(idle) or MAX_DURATION_NS


def _endpoints(cluster: Any, addresses: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    endpoints: list[dict[str, Any]] = []
    seen: set[str] = set()
    for endpoint in cluster.endpoints:
        for one in _socket_addresses(endpoint.address, addresses):
            # Two names of a cluster may share an address: it is one endpoint, the first one's weight counts.
            if one["address"] not in seen:
                seen.add(one["address"])
                endpoints.append({**one, "weight": endpoint.weight})
    return endpoints


def cluster_plan(cluster: Any) -> dict[str, Any]:
    """The settings of a cluster, without its endpoints."""
    breaker, budget, pool = cluster.breaker, cluster.retry_budget, cluster.pool
    return {
        "name": cluster.name,
        "balancer": BALANCERS[cluster.balancer],
        "ewma_decay_ns": int(cluster.ewma_decay),
        "connect_timeout_ns": int(cluster.connect_timeout),
        "max_connections": cluster.max_connections,
        "max_requests": cluster.max_requests,
        "max_queue": cluster.max_queue,
        "queue_timeout_ns": int(cluster.queue_timeout),
        "max_idle": pool.max_idle,
        "idle_timeout_ns": _or_never(pool.idle_timeout),
        "max_requests_per_connection": pool.max_requests_per_connection,
        "proxy_version": PROXY_VERSIONS[cluster.proxy_protocol],
        "speaks": UPSTREAM_PROTOCOLS[upstream_protocol(cluster)],
        "is_original_destination": cluster.type == "original_destination",
        "is_to_loopback": cluster.to == "loopback",
        "to_port": cluster.port,
        "tls": None,
        "breaker": {
            "consecutive_failures": breaker.consecutive_failures,
            "success_rate": _success_rate(breaker.success_rate),
            "backoff": _backoff(breaker),
            "panic_percent": breaker.panic_percent,
        },
        "budget": {
            "ratio_ppm": budget.ratio_percent * 10_000,
            "min_per_second": budget.min_per_second,
            "ttl_ms": int(budget.ttl) // 1_000_000,
        },
    }


def upstream_protocol(cluster: Any) -> str:
    """What a cluster's endpoints are spoken to in: http1, http2, same: as each client speaks, or mesh_hop: HTTP/2 for both."""
    if cluster.mesh_hop == "on":
        return "mesh_hop"
    if cluster.protocol != "auto":
        return str(cluster.protocol)
    return "same" if cluster.type == "original_destination" else "http1"


def _socket_addresses(address: str, resolved: Mapping[str, list[str]]) -> Iterable[dict[str, Any]]:
    if address.startswith("unix:"):
        return ({"address": address, "family": int(socket.AF_UNIX), "sockaddr": address[5:]},)
    host, port = split_address(address)
    return [
        {
            "address": join_address(ip, port),
            "family": int(socket.AF_INET6 if ":" in ip else socket.AF_INET),
            "sockaddr": (ip, port),
        }
        for ip in resolved.get(host, (host,))
    ]


def _success_rate(rate: SuccessRate | None) -> dict[str, Any]:
    if rate is None:
        return {"least_ppm": 0, "requests": 0, "window_ns": 0, "kept": 0.0}
    return {
        "least_ppm": round(rate.least_percent * 10_000),
        "requests": rate.requests,
        "window_ns": int(rate.window),  # type: ignore[arg-type]
        "kept": math.exp(-1 / rate.requests),
    }


def _backoff(section: Breaker | Retries) -> dict[str, Any]:
    """How its waits grow: the keys are the same wherever something is waited for."""
    return {
        "first_ns": int(section.backoff),  # type: ignore[arg-type]
        "longest_ns": int(section.max_backoff),  # type: ignore[arg-type]
        "jitter_ppm": section.jitter_percent * 10_000,
        "kind": BACKOFF_KINDS[section.jitter],
    }


def route_plan(route: Route) -> dict[str, Any]:
    """One route; its targets by the names of clusters."""
    match = route.match
    if match.path is not None:
        path, path_kind = match.path, MATCH_EXACT
    elif match.prefix is not None and match.prefix != "/":
        path, path_kind = match.prefix, MATCH_PATTERN
    else:
        path, path_kind = "/", MATCH_ANY
        if match.prefix is not None:
            path_kind = MATCH_PATTERN
    host = match.host or ""
    retries = route.retries
    direct = None
    if route.respond is not None:
        body = route.respond.body.encode()
        headers = list(route.respond.headers.items())
        if body and "content-type" not in route.respond.headers:
            headers.append(("content-type", "text/plain; charset=utf-8"))
        direct = {"status": route.respond.status, "headers": headers, "body": body}
    targets: list[tuple[str, int]] = [(route.to, 1)] if route.to is not None else [(share.cluster, share.weight) for share in route.split]
    return {
        "name": route.name,
        "match": {
            "host": host,  # a wildcard with its star: "*.a.test"
            "host_kind": MATCH_PATTERN if host.startswith("*.") else MATCH_EXACT if host else MATCH_ANY,
            "path": path if path_kind else "",
            "path_kind": path_kind,
            "methods": list(match.methods),
            "headers": list(match.headers.items()),
        },
        "sni": match.sni,
        "targets": targets,
        "lookup": None if route.lookup is None else lookup_plan(route.lookup),
        "direct": direct,
        "prefix_rewrite": route.rewrite.prefix,
        "host_rewrite": route.rewrite.host,
        "request_headers": _edits(route.request_headers),
        "response_headers": _edits(route.response_headers),
        "response_timeout_ns": int(route.timeout),  # type: ignore[arg-type]
        "total_timeout_ns": int(route.total_timeout),  # type: ignore[arg-type]
        "idle_timeout_ns": _or_never(route.idle_timeout),
        "tunnel_idle_timeout_ns": _or_never(route.tunnel_idle_timeout),
        "max_body_bytes": route.max_body,
        "retry_on": sum(RETRY_ON[word] for word in retries.on) if retries.max_attempts > 1 else 0,
        "max_attempts": retries.max_attempts,
        "backoff": _backoff(retries),
        "filters": 0,
        "allow_upgrade": route.upgrade,
        "allow_connect": route.connect,
        "grpc_web": route.grpc_web,
    }


def lookup_plan(lookup: RouteLookup) -> dict[str, Any]:
    """How a route makes names of requests."""
    return {
        "by": NAME_KINDS[lookup.by],
        "prefix": lookup.put_in_front,
        "segments": lookup.segments,
        "field": lookup.field,
        "name": lookup.name or "",
        "overrides": lookup.overrides,
        "timeout_ns": int(lookup.timeout),  # type: ignore[arg-type]
    }


def _edits(edits: HeaderEdits) -> list[tuple[int, str, str]]:
    """In the order they are applied: remove, set, add."""
    return [
        *((HEADER_REMOVE, name, "") for name in edits.remove),
        *((HEADER_SET, name, value) for name, value in edits.set.items()),
        *((HEADER_ADD, name, value) for name, value in edits.add.items()),
    ]


def _listener(config: Config, listener: Listener, addresses: Mapping[str, list[str]]) -> dict[str, Any]:
    host, port = split_address(listener.address)
    ip = addresses.get(host, [host])[0]
    return {
        "name": listener.name,
        "address": join_address(ip, port),
        "family": int(socket.AF_INET6 if ":" in ip else socket.AF_INET),
        "sockaddr": (ip, port),
        "routes": route_names_of(config, listener),
        "trust_mesh_headers": listener.trust_mesh_headers,
        "tls": None,  # a context, once the files are read: see certificates
        "tls_is_optional": listener.tls is not None and listener.tls.mode == "permissive",
        "relays": listener.protocol != "http",
        "serves_http": listener.protocol != "tcp",
        "tcp_route": listener.tcp_route,
        "tls_routes": list(listener.tls_routes),
        "detect_timeout_ns": int(listener.detect_timeout) if _is_looked_at(listener) else 0,  # type: ignore[arg-type]
        "proxy_versions": PROXY_VERSIONS[listener.proxy_protocol],
        "http2": listener.http2,
        "mesh_hop": listener.mesh_hop == "on",
        "deferred_accept": listener.deferred_accept,
        "interception": INTERCEPTION[listener.original_destination],
        "opaque_ports": _opaque_ports(listener),
    }


def _is_looked_at(listener: Listener) -> bool:
    """Do the first octets of its connections decide where they go?"""
    return listener.protocol == "detect" or (listener.protocol == "tcp" and bool(listener.tls_routes) and listener.tls is None)


def _opaque_ports(listener: Listener) -> list[int]:
    if listener.protocol != "detect" or listener.original_destination == "off":
        return []
    return list(OPAQUE_PORTS if listener.opaque_ports is None else listener.opaque_ports)


def _is_name(host: str) -> bool:
    """Whether a checked host is a DNS name: an address has colons, or ends in a digit's label."""
    return ":" not in host and not host.rpartition(".")[2].isdigit()


def _resolve_all(config: Config, resolve: Resolver) -> dict[str, list[str]]:
    """Addresses of every name, each asked for once, several at a time."""
    users: dict[str, tuple[str, tuple[str | int, ...]]] = {}
    for index, listener in enumerate(config.listeners):
        host, _ = split_address(listener.address)
        if _is_name(host):
            users.setdefault(host, (f"listener '{listener.name}'", ("listeners", index, "address")))
    for index, cluster in enumerate(config.clusters):
        for number, endpoint in enumerate(cluster.endpoints):
            address = endpoint.address  # type: ignore[union-attr]
            if not address.startswith("unix:"):
                host, _ = split_address(address)
                if _is_name(host):
                    label = f"endpoint '{address}' of cluster '{cluster.name}'"
                    users.setdefault(host, (label, ("clusters", index, "endpoints", number)))
    if not users:
        return {}
    resolved: dict[str, list[str]] = {}
    problems: list[Problem] = []

    def ask(name: str) -> list[str] | OSError:
        try:
            return resolve(name) or OSError("no address")
        except (OSError, UnicodeError) as error:
            return error if isinstance(error, OSError) else OSError(str(error))

    with ThreadPoolExecutor(min(RESOLVER_THREADS, len(users)), thread_name_prefix="meshcore-resolve") as pool:
        for name, answer in zip(users, pool.map(ask, users), strict=True):
            if isinstance(answer, OSError):
                label, path = users[name]
                reason = answer.strerror or str(answer)
                problems.append(
                    Problem(
                        message=f"{label}: the name '{name}' does not resolve: {reason}",
                        hint="write an IP address, or make the name known to this machine",
                        path=path,
                        got=name,
                    )
                )
            else:
                resolved[name] = answer
    if problems:
        origin = origin_of(config)
        if origin is not None and origin.text is not None:
            tree = origin.tree()
            problems = [origin.place(problem, tree) for problem in problems]
        raise ConfigError(problems)
    return resolved
