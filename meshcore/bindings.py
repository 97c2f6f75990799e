"""What a name means: clusters, routes and trees that `Proxy.bind` gives it, or that it means nothing. Checks; applies nothing.

A proxy asks for a name (`Lookup`) when a request of a route with `lookup` has one that is not bound. See docs/names.md.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from meshcore._fastpath import reasons, tls_identity_kind
from meshcore.config import Cluster, Route
from meshcore.config.addresses import join_address, split_address
from meshcore.config.plan import UPSTREAM_PROTOCOLS, cluster_plan, route_plan
from meshcore.errors import ConfigError

NEGATIVE_TTL_S = 5.0
NEGATIVE_REASONS = ("name_unknown", "name_refused", "name_invalid", "name_unbound", "name_unavailable", "lookup_failed")
MAX_ENDPOINTS = 10_000
MAX_TREE_NODES = 10_000
MAX_WEIGHT = 65_535

Key: TypeAlias = tuple[str, str, str]
"""(route, name, overrides)"""


class Lookup(msgspec.Struct, frozen=True):
    """A name that a request has and nobody bound yet. (route, name, overrides) is its key."""

    route: str
    name: str
    overrides: str = ""
    """What `l5d-ctx-dtab` and `l5d-dtab` of the request said, where its route and its listener let it."""
    authority: str = ""
    """Of the request that asked first, as are method and path; "" of a connection that is not HTTP."""
    method: str = ""
    path: str = ""
    destination: str = ""
    """Where its connection was going, `ip:port`; "" where nobody intercepted it."""


class BoundEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address. tls: name of a context of `Proxy.set_tls_context`; identity: who it must prove to be there."""

    address: str
    """`ip:port`, `[v6]:port` or `unix:/path`: nothing is resolved."""
    weight: int = 1
    """0 keeps running requests and gets no new ones."""
    protocol: str = "http1"
    """http1, http2, same: as the client of each request, or mesh_hop: HTTP/2, where a proxy of the mesh restores what was HTTP/1."""
    tls: str | None = None
    identity: str | None = None
    sni: str | None = None
    labels: Mapping[str, str] = {}
    """What taps and statistics say of it."""


class BoundCluster(msgspec.Struct, frozen=True, kw_only=True):
    """A named set of endpoints. Bindings that name the same cluster share its state, endpoint by endpoint: pools, breakers, counters.

    The cluster `$` is nothing on purpose: without endpoints, it keeps its part of a Share, and ends a First.
    """

    name: str
    endpoints: tuple[BoundEndpoint, ...] = ()
    settings: Cluster | None = None
    """Balancer, breaker, pool, timeouts, retry budget; its name, endpoints, type and tls are not looked at."""


class First(msgspec.Struct, frozen=True):
    """The first of these with a live endpoint takes the request; when none has one, the first."""

    of: tuple[Any, ...]


class Share(msgspec.Struct, frozen=True):
    """(weight, tree): one by weight for each request, of those with a live endpoint."""

    of: tuple[tuple[int, Any], ...]


Tree: TypeAlias = str | First | Share
"""str: the name of a cluster, or of another tree of the binding."""


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means. Without routes, everything goes to the first tree, else to the first cluster."""

    clusters: tuple[BoundCluster, ...]
    routes: tuple[Route, ...] = ()
    """`to` and `split` name clusters or trees; unnamed ones count for the route that looks up."""
    trees: Mapping[str, Tree] = {}


class Negative(msgspec.Struct, frozen=True, kw_only=True):
    """A name that means nothing, answered at once. fall_back: by the route's own `to` or `split` instead, where it has one."""

    reason: str = "name_unknown"
    status: int | None = None
    headers: Mapping[str, str] = {}
    body: str = ""
    fall_back: bool = False


class BoundName(msgspec.Struct, frozen=True, kw_only=True):
    """One name of `Proxy.bindings()`."""

    route: str
    name: str
    overrides: str
    bound: Binding | Negative
    age_s: float
    idle_s: float
    ttl_s: float | None


# --- as the engine takes it -------------------------------------------------------------------------------------------


def binding_plan(bound: Binding | Negative) -> dict[str, Any]:
    """The plan of a binding. Raises ConfigError that says what of it cannot be used."""
    return _negative(bound) if isinstance(bound, Negative) else _positive(bound)


def lifetime_ns(bound: Binding | Negative, ttl_s: float | None) -> int:
    """How long it counts; 0: until it is replaced."""
    if ttl_s is None:
        ttl_s = NEGATIVE_TTL_S if isinstance(bound, Negative) else 0.0
    if ttl_s < 0:
        raise ConfigError(f"ttl_s is {ttl_s}: a time is not negative; leave it out for one without end")
    return max(1, int(ttl_s * 1e9)) if ttl_s else 0


def key_of(route: str, name: str, overrides: str = "") -> Key:
    """The key of a name. Raises ConfigError for one that no request can have."""
    if not name or not name.isprintable() or "\0" in overrides:
        raise ConfigError(f"{name!r} is no name: it is text, and not empty")
    try:
        (name + overrides).encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigError(f"{name!r} is no name: a request has octets; write them as latin-1 or escaped") from None
    return route, name, overrides


def _positive(bound: Binding) -> dict[str, Any]:
    clusters = {cluster.name: cluster for cluster in bound.clusters}
    if len(clusters) < len(bound.clusters):
        raise ConfigError("a binding names a cluster twice; add up its endpoints")
    for name in bound.trees:
        if name in clusters:
            raise ConfigError(f"'{name}' is both a cluster and a tree of the binding; give one another name")
    if not bound.clusters and not bound.routes:
        raise ConfigError("a binding without clusters and routes leads nowhere; bind a Negative to say so")
    rows = []
    for cluster in bound.clusters:
        settings = _settings(cluster.settings) if cluster.settings is not None else _settings(_DEFAULT_CLUSTER)
        if len(cluster.endpoints) > MAX_ENDPOINTS:
            raise ConfigError(f"cluster '{cluster.name}': {len(cluster.endpoints)} endpoints are too many; the most is {MAX_ENDPOINTS}")
        endpoints = [_endpoint(cluster.name, one) for one in cluster.endpoints]
        rows.append({**settings, "name": cluster.name, "key": ("bound", cluster.name), "endpoints": endpoints})
    routes = bound.routes or (_everything(next(iter(bound.trees), bound.clusters[0].name if bound.clusters else "")),)
    plans = [_route(route, bound, clusters) for route in routes]
    match = routes[0].match
    return {
        "falls_back": False,
        "clusters": rows,
        "routes": plans,
        "takes_all": match.host is None and match.path is None and match.prefix in (None, "/") and not match.methods and not match.headers,
    }


def _route(route: Route, bound: Binding, clusters: Mapping[str, BoundCluster]) -> dict[str, Any]:
    if route.lookup is not None:
        raise ConfigError(f"route '{route.name}' of a binding looks up again; bind the clusters it would find")
    plan = _route_settings(route)
    names = [name for name, _ in plan["targets"]]
    for name in names:
        if name not in clusters and name not in bound.trees:
            known = ", ".join([*clusters, *bound.trees]) or "none"
            raise ConfigError(f"route '{route.name}' of a binding goes to '{name}'; its clusters and trees are: {known}")
    tree: Any = None
    if any(name in bound.trees for name in names):
        left = [MAX_TREE_NODES]
        shares = [(weight, _tree(name, bound, clusters, (), left)) for name, weight in plan["targets"]]
        tree = shares[0][1] if len(shares) == 1 else ("share", shares)
        plan = {**plan, "targets": []}
    return {**plan, "tree": tree, "refuses_for": "", "answer": None}


def _tree(
    tree: Tree, bound: Binding, clusters: Mapping[str, BoundCluster], above: tuple[str, ...], left: list[int]
) -> tuple[str, Any]:
    left[0] -= 1
    if left[0] < 0:
        raise ConfigError(f"the trees of a binding have more than {MAX_TREE_NODES} nodes")
    if isinstance(tree, str):
        if tree in clusters:
            return "cluster", tree
        if tree not in bound.trees:
            raise ConfigError(f"a tree of a binding names '{tree}'; its clusters are: {', '.join(clusters) or 'none'}")
        if tree in above:
            raise ConfigError(f"the trees of a binding go in a circle: {' -> '.join([*above, tree])}")
        return _tree(bound.trees[tree], bound, clusters, (*above, tree), left)
    if not tree.of:
        raise ConfigError("a First or Share of nothing; bind a Negative where nothing is meant")
    if isinstance(tree, First):
        return "first", [_tree(one, bound, clusters, above, left) for one in tree.of]
    for weight, _ in tree.of:
        if not 0 <= weight <= MAX_WEIGHT:
            raise ConfigError(f"the weight {weight} in a Share is not within 0 to {MAX_WEIGHT}; only the proportions count")
    return "share", [(weight, _tree(child, bound, clusters, above, left)) for weight, child in tree.of]


def _endpoint(cluster: str, endpoint: BoundEndpoint) -> dict[str, Any]:
    where = f"endpoint '{endpoint.address}' of cluster '{cluster}'"
    if endpoint.protocol not in UPSTREAM_PROTOCOLS:
        raise ConfigError(f"{where}: unknown protocol '{endpoint.protocol}'; it is one of {', '.join(UPSTREAM_PROTOCOLS)}")
    if not 0 <= endpoint.weight <= MAX_WEIGHT:
        raise ConfigError(f"{where}: the weight {endpoint.weight} is not within 0 to {MAX_WEIGHT}")
    if (endpoint.tls is None) != (endpoint.identity is None):
        raise ConfigError(f"{where}: tls and identity go together: encrypted to whom?")
    if endpoint.identity is not None and tls_identity_kind(endpoint.identity) is None:
        raise ConfigError(f"{where}: {endpoint.identity!r} is no identity; it is spiffe://td/path, spiffe://td/* or dns:name")
    return {
        **_address(endpoint.address, where),
        "weight": endpoint.weight,
        "speaks": UPSTREAM_PROTOCOLS[endpoint.protocol],
        "tls": endpoint.tls,
        "identity": endpoint.identity,
        "sni": endpoint.sni,
        # Of another identity it is another endpoint: a connection to one is never used for the other.
        "trust": (endpoint.tls, endpoint.identity, endpoint.sni),
        "labels": tuple(sorted(endpoint.labels.items())),
    }


def _address(address: str, where: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        return {"address": address, "family": int(socket.AF_UNIX), "sockaddr": address[5:]}
    try:
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.inet_pton(family, host)
        if not 0 < port < 65536:
            raise ValueError
    except (ValueError, OSError):
        raise ConfigError(f"{where}: not an address; it is ip:port, [v6]:port or unix:/path, names are not resolved here") from None
    return {"address": join_address(host, port), "family": int(family), "sockaddr": (host, port)}


def _negative(bound: Negative) -> dict[str, Any]:
    if bound.reason not in NEGATIVE_REASONS:
        raise ConfigError(f"unknown reason '{bound.reason}' of a Negative; it is one of {', '.join(NEGATIVE_REASONS)}")
    answer = None
    if bound.status is not None or bound.headers or bound.body:
        status = bound.status if bound.status is not None else _STATUS[bound.reason]
        answer = Route(respond={"status": status, "headers": dict(bound.headers), "body": bound.body})  # type: ignore[arg-type]
    return {
        "falls_back": bound.fall_back,
        "clusters": [],
        "routes": [
            {
                **_route_settings(_everything("nothing")),
                "targets": [],
                "tree": None,
                "refuses_for": bound.reason,
                "answer": None if answer is None else route_plan(answer)["direct"],
            }
        ],
        "takes_all": True,
    }


_STATUS = {name: status for name, status, _, _ in reasons()}
_DEFAULT_CLUSTER = Cluster(name="default")


@functools.lru_cache(maxsize=1024)
def _everything(target: str) -> Route:
    return Route(to=target)


# Agents make thousands of bindings with the same few settings: each is compiled once. By identity: sections hold mappings,
# which do not hash; the section itself is kept, so that its id stays its own.
_settings_of: dict[int, tuple[Cluster, dict[str, Any]]] = {}
_routes_of: dict[int, tuple[Route, dict[str, Any]]] = {}
_MOST_KEPT = 4096


def _settings(cluster: Cluster) -> dict[str, Any]:
    return _kept(_settings_of, cluster, cluster_plan)


def _route_settings(route: Route) -> dict[str, Any]:
    return _kept(_routes_of, route, route_plan)


def _kept(plans: dict[int, tuple[Any, dict[str, Any]]], section: Any, compile_one: Any) -> dict[str, Any]:
    known = plans.get(id(section))
    if known is None:
        if len(plans) >= _MOST_KEPT:
            plans.clear()
        known = plans[id(section)] = (section, compile_one(section))
    return known[1]


def bound_names(rows: Iterable[tuple[Key, Binding | Negative | None, int, int, int]]) -> list[BoundName]:
    """The engine's rows as values."""
    return [
        BoundName(
            route=key[0],
            name=key[1],
            overrides=key[2],
            bound=Negative(reason="lookup_failed") if bound is None else bound,
            age_s=age_ns / 1e9,
            idle_s=idle_ns / 1e9,
            ttl_s=lifetime / 1e9 if lifetime else None,
        )
        for key, bound, age_ns, idle_ns, lifetime in rows
    ]
