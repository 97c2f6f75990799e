"""How a name is called, put together from its service and the policies that point to it. Pure; knows no watcher."""

from __future__ import annotations

from meshcore.api import discovery_pb2

from ..model import RoutePolicy, Rule, Service, ServicePort, TrafficPolicy
from .index import ServiceEntry
from .names import Name

DEFAULT_TRAFFIC = TrafficPolicy(namespace="default", name="default", service="default")


def port_of(service: Service | None, port: int) -> ServicePort | None:
    """The port that is called: as declared; any, when nothing is declared; None when others are."""
    if service is None or not service.ports:
        return ServicePort(port=port)
    return next((one for one in service.ports if one.port == port), None)


def traffic_of(entry: ServiceEntry | None) -> TrafficPolicy:
    """The traffic policy that counts: the first by name, for two cannot both."""
    if entry is None or not entry.traffic:
        return DEFAULT_TRAFFIC
    return entry.traffic[min(entry.traffic)]


def rules_of(entry: ServiceEntry | None) -> list[tuple[RoutePolicy, int, Rule]]:
    """All rules in the order in which they are tried: policies by name, rules as they stand."""
    if entry is None:
        return []
    return [
        (entry.routes[name], index, rule)
        for name in sorted(entry.routes)
        for index, rule in enumerate(entry.routes[name].rules)
    ]


def policy_of(name: Name, entry: ServiceEntry | None, trust_domain: str, cluster_domain: str) -> discovery_pb2.Policy:
    """The whole policy of a name."""
    service = entry.service if entry is not None else None
    port = port_of(service, name.port)
    message = discovery_pb2.Policy(
        fully_qualified_name=f"{name.service}.{name.namespace}.svc.{cluster_domain}",
        namespace=name.namespace,
        service=name.service,
        port=name.port,
        protocol=port.protocol if port is not None else "detect",
        traffic=_traffic(traffic_of(entry)),
    )
    if service is not None:
        message.identities.extend(
            f"spiffe://{trust_domain}/ns/{service.namespace}/sa/{account}" for account in service.accounts
        )
    for policy, index, rule in rules_of(entry):
        message.rules.append(_rule(name, policy, index, rule))
    return message


def split_path(name: Name, policy: RoutePolicy, service: str, namespace: str, port: int) -> str:
    """A share's target as a path to watch."""
    return f"{service}.{namespace or policy.namespace}.svc:{port or name.port}"


def _rule(name: Name, policy: RoutePolicy, index: int, rule: Rule) -> discovery_pb2.Rule:
    return discovery_pb2.Rule(
        name=f"{policy.name}/{index}",
        hosts=policy.hosts,
        matches=[
            discovery_pb2.Match(path=one.path, prefix=one.prefix, methods=one.methods, headers=one.headers)
            for one in rule.matches
        ],
        splits=[
            discovery_pb2.Split(
                path=split_path(name, policy, one.service, one.namespace, one.port), weight=one.weight
            )
            for one in rule.splits
        ],
        timeout_ms=rule.timeout_ms,
        retries=discovery_pb2.Retries(
            attempts=rule.retries.attempts,
            on=rule.retries.on,
            per_try_timeout_ms=rule.retries.per_try_timeout_ms,
            backoff_ms=rule.retries.backoff_ms,
            max_backoff_ms=rule.retries.max_backoff_ms,
        ),
    )


def _traffic(policy: TrafficPolicy) -> discovery_pb2.Traffic:
    return discovery_pb2.Traffic(
        balancer=policy.balancer,
        connect_timeout_ms=policy.connect_timeout_ms,
        idle_timeout_ms=policy.idle_timeout_ms,
        max_connections=policy.max_connections,
        max_pending=policy.max_pending,
        queue_timeout_ms=policy.queue_timeout_ms,
        retry_budget=policy.retry_budget,
        min_retries_per_s=policy.min_retries_per_s,
        consecutive_failures=policy.breaker.consecutive_failures,
        backoff_ms=policy.breaker.backoff_ms,
        max_backoff_ms=policy.breaker.max_backoff_ms,
        panic_percent=policy.breaker.panic_percent,
        mtls=policy.mtls,
    )
