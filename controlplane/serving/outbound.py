"""linkerd's OutboundPolicy of a name: routes with their backends, timeouts, retries, failure accrual. Pure; owns no stream.

What it cannot say is left out: other balancers than peak EWMA, limits on connections, a retry budget, mTLS modes; our own
proxies learn these from Discovery. A port that may speak anything is `Detect`, with all three of its parts, for a proxy
of linkerd fails every request when one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from meshcore.api import http_route_pb2, http_types_pb2, meta_pb2, outbound_pb2

DETECT_MS, DEFAULT_RTT_MS, DECAY_MS = 10_000, 30, 10_000  # what linkerd's own controller says
JITTER = 0.5
MAX_REPLAY_BYTES = 65_536
# Our words, as the statuses linkerd knows; `unsent` is what its proxies do by themselves.
STATUSES = {"429": 429, "502": 502, "503": 503, "504": 504}
METHODS = dict(http_types_pb2.HttpMethod.Registered.items())


def policy_of(policy: Any) -> Any:
    """From our Policy (discovery.proto)."""
    message = outbound_pb2.OutboundPolicy()
    message.metadata.resource.MergeFrom(_resource(policy, "Service", policy.service))
    routes = [_http_route(policy, rule) for rule in policy.rules] + [_http_route(policy, None)]
    opaque = _opaque_route(policy)
    protocol = message.protocol
    if policy.protocol in ("tcp", "opaque", "tls"):
        protocol.opaque.routes.append(opaque)
    elif policy.protocol == "http1":
        _fill(protocol.http1, routes, policy)
    elif policy.protocol in ("http2", "grpc"):
        _fill(protocol.http2, routes, policy)
    else:
        protocol.detect.timeout.FromMilliseconds(DETECT_MS)
        protocol.detect.opaque.routes.append(opaque)
        _fill(protocol.detect.http1, routes, policy)
        _fill(protocol.detect.http2, routes, policy)
    return message


def _fill(part: Any, routes: list[Any], policy: Any) -> None:
    part.routes.extend(routes)
    traffic = policy.traffic
    if traffic.consecutive_failures:
        accrual = part.failure_accrual.consecutive_failures
        accrual.max_failures = traffic.consecutive_failures
        _backoff(accrual.backoff, traffic.backoff_ms, traffic.max_backoff_ms)


def _backoff(backoff: Any, least_ms: int, most_ms: int) -> None:
    backoff.min_backoff.FromMilliseconds(least_ms)
    backoff.max_backoff.FromMilliseconds(most_ms)
    backoff.jitter_ratio = JITTER


def _http_route(policy: Any, rule: Any) -> Any:
    """One rule as a route; None: the route of all that no rule takes."""
    route = outbound_pb2.HttpRoute()
    if rule is None:
        route.metadata.default = "default"
        made = route.rules.add()
        made.matches.add().path.prefix = "/"
        _distribute(made.backends, policy, [], outbound_pb2.HttpRoute.RouteBackend)
        return route
    route.metadata.resource.MergeFrom(_resource(policy, "RoutePolicy", rule.name.partition("/")[0]))
    route.hosts.extend(_host(host) for host in rule.hosts)
    made = route.rules.add()
    made.matches.extend(one for match in rule.matches for one in _matches(match))
    if not rule.matches:
        made.matches.add().path.prefix = "/"
    _distribute(made.backends, policy, rule.splits, outbound_pb2.HttpRoute.RouteBackend)
    if rule.timeout_ms:
        made.timeouts.request.FromMilliseconds(rule.timeout_ms)
    ranges = [STATUSES[word] for word in rule.retries.on if word in STATUSES]
    if rule.retries.attempts and ranges:
        made.retry.max_retries = rule.retries.attempts
        made.retry.max_request_bytes = MAX_REPLAY_BYTES
        for status in ranges:
            made.retry.conditions.status_ranges.add(start=status, end=status)
        if rule.retries.per_try_timeout_ms:
            made.retry.timeout.FromMilliseconds(rule.retries.per_try_timeout_ms)
        _backoff(made.retry.backoff, rule.retries.backoff_ms, rule.retries.max_backoff_ms)
    return route


def _opaque_route(policy: Any) -> Any:
    route = outbound_pb2.OpaqueRoute()
    route.metadata.default = "default"
    _distribute(route.rules.add().backends, policy, [], outbound_pb2.OpaqueRoute.RouteBackend)
    return route


def _distribute(backends: Any, policy: Any, splits: Any, kind: Callable[..., Any]) -> None:
    if not splits:
        own = f"{policy.fully_qualified_name}:{policy.port}"
        backends.first_available.backends.append(kind(backend=_backend(policy, own)))
        return
    domain = policy.fully_qualified_name.split(".svc.", 1)[1]
    for split in splits:
        host, _, port = split.path.partition(":")
        chosen = backends.random_available.backends.add(weight=split.weight)
        chosen.backend.MergeFrom(kind(backend=_backend(policy, f"{host}.{domain}:{port}")))


def _backend(policy: Any, path: str) -> Any:
    backend = outbound_pb2.Backend()
    service, namespace = path.split(".", 2)[:2]
    backend.metadata.resource.MergeFrom(
        meta_pb2.Resource(
            group="core", kind="Service", name=service, namespace=namespace, port=int(path.rpartition(":")[2])
        )
    )
    backend.queue.capacity = policy.traffic.max_pending
    backend.queue.failfast_timeout.FromMilliseconds(policy.traffic.queue_timeout_ms)
    backend.balancer.discovery.dst.path = path
    backend.balancer.peak_ewma.default_rtt.FromMilliseconds(DEFAULT_RTT_MS)
    backend.balancer.peak_ewma.decay.FromMilliseconds(DECAY_MS)
    return backend


def _resource(policy: Any, kind: str, name: str) -> Any:
    group = "core" if kind == "Service" else "meshcore"
    return meta_pb2.Resource(group=group, kind=kind, name=name, namespace=policy.namespace, port=policy.port)


def _host(host: str) -> Any:
    if host.startswith("*."):
        labels = reversed(host[2:].split("."))
        return http_route_pb2.HostMatch(suffix=http_route_pb2.HostMatch.Suffix(reverse_labels=list(labels)))
    return http_route_pb2.HostMatch(exact=host)


def _matches(match: Any) -> Iterator[Any]:
    """A match of linkerd's names one method: several are as many matches."""
    for word in match.methods or [""]:
        made = http_route_pb2.HttpRouteMatch()
        if match.path:
            made.path.exact = match.path
        else:
            made.path.prefix = match.prefix or "/"
        for name, value in sorted(match.headers.items()):
            made.headers.add(name=name, exact=value.encode())
        if word in METHODS:
            made.method.registered = METHODS[word]
        elif word:
            made.method.unregistered = word
        yield made
