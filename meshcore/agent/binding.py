"""What a proxy is to do with a name, made of what the control plane said about it. Pure: values in, a Binding out.

An endpoint with an identity is spoken to by mutual TLS and must prove that identity; one without is spoken to in the clear,
unless the policy says `strict`: then it is not spoken to at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from meshcore import Binding, BoundCluster, BoundEndpoint
from meshcore.config import Breaker, Cluster, Pool, RetryBudget

from .answers import Answer, Endpoint, Policy, Traffic
from .authority import authority_of
from .routing import routes_of

CONTEXT = "mesh"  # the TLS context of this workload's certificate
IDLE_CONNECTIONS = 64


def binding_of(path: str, answer: Answer, others: Mapping[str, Answer], *, carries_http: bool = True) -> Binding:
    """The binding of one name. `others`: what is known of the names that its rules split to, by path.

    carries_http: false for connections that are relayed as they are, which no rule looks at.
    """
    own = cluster_of(path, answer)
    clusters = {own.name: own}
    if not carries_http:
        return Binding(clusters=(own,))

    def target_of(other: str) -> str:
        cluster = cluster_of(other, others.get(other, Answer()))
        clusters.setdefault(cluster.name, cluster)
        return cluster.name

    authority = authority_of(path)
    routes = routes_of(answer.policy, authority.host if authority is not None else "", own.name, target_of)
    return Binding(clusters=tuple(clusters.values()), routes=routes)


def split_paths(policy: Policy) -> Iterator[str]:
    """The names that its rules lead to, besides itself."""
    for rule in policy.rules:
        for split in rule.splits:
            if split.weight:
                yield split.path


def cluster_of(path: str, answer: Answer) -> BoundCluster:
    """The endpoints of a name, under the same cluster name by whatever short form it was called."""
    policy = answer.policy
    name = f"{policy.name}:{policy.port}" if policy.name and policy.port and ":" not in policy.name else policy.name or path
    return BoundCluster(
        name=name,
        endpoints=tuple(bound_endpoint(one, policy) for one in usable(answer.endpoints.endpoints, policy)),
        settings=settings_of(policy.traffic),
    )


def usable(endpoints: Iterable[Endpoint], policy: Policy) -> Iterator[Endpoint]:
    """Those that the policy lets us speak to."""
    for endpoint in endpoints:
        if policy.identities and endpoint.identity and endpoint.identity not in policy.identities:
            continue
        if policy.traffic.mtls == "strict" and not endpoint.identity:
            continue
        yield endpoint


def bound_endpoint(endpoint: Endpoint, policy: Policy) -> BoundEndpoint:
    is_meshed = bool(endpoint.identity) and policy.traffic.mtls != "off"
    return BoundEndpoint(
        address=endpoint.address,
        weight=endpoint.weight,
        protocol=_protocol(endpoint, is_meshed),
        tls=CONTEXT if is_meshed else None,
        identity=endpoint.identity if is_meshed else None,
        labels=endpoint.labels,
    )


def _protocol(endpoint: Endpoint, is_meshed: bool) -> str:
    """Between two sidecars all requests share connections, and are what they were at the far side."""
    if endpoint.is_opaque or not endpoint.speaks_http2:
        return "same"
    return "mesh_hop" if is_meshed else "http2"


def settings_of(traffic: Traffic) -> Cluster:
    return Cluster(
        name="bound",
        balancer=traffic.balancer,
        connect_timeout=f"{traffic.connect_timeout_ms}ms",
        max_connections=traffic.max_connections,
        max_queue=traffic.max_pending,
        queue_timeout=f"{traffic.queue_timeout_ms}ms",
        pool=Pool(max_idle=IDLE_CONNECTIONS, idle_timeout=f"{max(traffic.idle_timeout_ms, 10)}ms"),
        breaker=Breaker(
            consecutive_failures=traffic.consecutive_failures,
            backoff=f"{traffic.backoff_ms}ms",
            max_backoff=f"{traffic.max_backoff_ms}ms",
            panic_percent=traffic.panic_percent,
        ),
        retry_budget=RetryBudget(ratio_percent=round(traffic.retry_budget * 100), min_per_second=traffic.min_retries_per_s),
    )


def binding_outside(path: str, addresses: Iterable[str], *, carries_http: bool = True) -> Binding:
    """A name that is not of the mesh: its addresses, spoken to as the client speaks."""
    endpoints = tuple(BoundEndpoint(address=address, protocol="same") for address in addresses)
    cluster = BoundCluster(name=path, endpoints=endpoints, settings=settings_of(Traffic()))
    routes = routes_of(Policy(), "", cluster.name, str) if carries_http else ()
    return Binding(clusters=(cluster,), routes=routes)
