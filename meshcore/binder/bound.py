"""From what a name is bound to, to what the engine is told: clusters, shares, fall-over, settings. Pure.

One cluster per bound id, so names that share an id share its connections, breakers and counters. A name's own route
carries what belongs to the name: timeouts, retries, the headers that tell upstreams how it was bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from ..bindings import Binding, BoundCluster, BoundEndpoint, First, Negative, Share, Tree
from ..config import Cluster, Duration, HeaderEdits, Match, Retries, Rewrite, Route
from ..naming import Alt, Bound, Dtab, Empty, Fail, Failed, Leaf, NameTree, Neg, Path, Pending, Union, leaves, show_dtab
from ..naming.headers import CONTEXT, USER
from ..naming.pattern import fill
from ..namers.interpreter import Resolution
from ..namers.states import Replicas, State
from .policies import ClientTls
from .rules import Rules, context_name
from .shares import whole_weights
from .transform import changed_id

ERROR = "l5d-err"
SERVICE = "l5d-dst-service"
CLIENT = "l5d-dst-client"
RESIDUAL = "l5d-dst-residual"
# The cluster that the engine takes for nothing on purpose: it keeps its share, and finds no endpoint.
NOTHING = "$"
WHOLE = "name"
_ROUTE_KEYS = ("timeout", "total_timeout", "retries", "retry_backoff")
_LONGEST_HEADER = 4096


def bound(rules: Rules, name: Path, local: Dtab, found: Resolution) -> Binding | Negative:
    """For a resolution of which something is known."""
    tree = found.tree
    if isinstance(tree, Failed):
        return refusal("name_unavailable", f"{name}: {tree.message}")
    if isinstance(tree, Pending):
        return refusal("name_unavailable", f"{name}: nobody has answered yet")
    if isinstance(tree, (Neg, Fail)):
        return refusal("name_unbound", f"{name}: no such name")
    if isinstance(tree, Empty):
        return refusal("name_unbound", f"{name}: has no instances")
    why = _nowhere(tree, found.replicas)
    if why:
        return refusal("name_unavailable", f"{name}: {why}")
    service = rules.services.of(name)
    clusters: dict[str, BoundCluster] = {}
    slowest: list[Any] = []
    for leaf in dict.fromkeys(leaves(tree)):
        id = changed_id(rules.transformers, leaf.id)
        client = rules.clients.of(id)
        slowest.append(client.get("timeout", 0))
        label = cluster_name(rules, id)
        if label not in clusters:
            clusters[label] = _cluster(rules, label, id, {**client, **service}, found.replicas.get(leaf.id, Pending()))
    route = _route(rules, name, local, tree, {**service, "timeout": _slowest(slowest)})
    if _has_nothing(tree):
        clusters[NOTHING] = BoundCluster(name=NOTHING)
    return Binding(clusters=tuple(clusters.values()), routes=(route,), trees={WHOLE: _tree(rules, tree)})


def _nowhere(tree: NameTree[Bound], replicas: Mapping[Path, State]) -> str:
    """Why no id of the tree has told addresses, where all of them have failed; "" where one may have some."""
    states = [(leaf.id, replicas.get(leaf.id, Pending())) for leaf in leaves(tree)]
    failed = [f"{id}: {state.message}" for id, state in states if isinstance(state, Failed)]
    return "; ".join(failed) if failed and len(failed) == len(states) else ""


def refusal(reason: str, why: str, status: int | None = None) -> Negative:
    """An answer at once, in Linkerd's form: the message in a header, as in a URL, and as the body."""
    return Negative(reason=reason, status=status, headers={ERROR: quote(why)[:_LONGEST_HEADER]}, body=f"{why}\n")


def cluster_name(rules: Rules, id: Path) -> str:
    """Routers do not share clients: what one has ejected another may still reach."""
    return f"{rules.route}:{id}"


def _tree(rules: Rules, tree: NameTree[Bound]) -> Tree:
    if isinstance(tree, Leaf):
        return cluster_name(rules, changed_id(rules.transformers, tree.value.id))
    if isinstance(tree, Union):
        weights = whole_weights([branch.weight for branch in tree.branches])
        return Share(of=tuple((weight, _tree(rules, branch.tree)) for weight, branch in zip(weights, tree.branches, strict=True)))
    if isinstance(tree, Alt):
        return First(of=tuple(_tree(rules, one) for one in tree.trees))
    return NOTHING


def _has_nothing(tree: NameTree[Bound]) -> bool:
    if isinstance(tree, Union):
        return any(_has_nothing(branch.tree) for branch in tree.branches)
    if isinstance(tree, Alt):
        return any(map(_has_nothing, tree.trees))
    return not isinstance(tree, Leaf)


def _cluster(rules: Rules, label: str, id: Path, settings: Mapping[str, Any], state: State) -> BoundCluster:
    addresses = state.addresses if isinstance(state, Replicas) else ()
    changed = list(addresses)
    for transformer in rules.transformers:
        changed = transformer.change(changed)
    weights = whole_weights([one.weight for one in changed]) if changed else ()
    tls: ClientTls | None = settings.get("tls")
    common_name = fill(tls.common_name, rules.clients.variables(id)) if tls is not None else None
    endpoints = tuple(
        BoundEndpoint(
            address=f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}",
            weight=weight,
            protocol=rules.protocol,
            tls=None if tls is None else context_name(tls),
            identity=None if tls is None else f"dns:{common_name}",
            sni=common_name,
            labels=dict(one.metadata),
        )
        for one, weight in zip(changed, weights, strict=True)
    )
    own = {key: value for key, value in settings.items() if key not in (*_ROUTE_KEYS, "tls")}
    return BoundCluster(name=label, endpoints=endpoints, settings=_same(Cluster, {"name": "bound", **own}))


def _route(rules: Rules, name: Path, local: Dtab, tree: NameTree[Bound], settings: Mapping[str, Any]) -> Route:
    headers = {SERVICE: str(name)}
    remove = [USER]
    bounds = set(leaves(tree))
    if len(bounds) == 1:
        (one,) = bounds
        headers[CLIENT] = str(changed_id(rules.transformers, one.id))
        if one.residual:
            headers[RESIDUAL] = str(one.residual)
    if local:
        headers[CONTEXT] = show_dtab(local)
    else:
        remove.append(CONTEXT)
    taken = name.drop(len(rules.prefix)) if rules.consumes else Path()
    return Route(
        match=Match(prefix=_path_text(taken)) if taken else _EVERY,
        rewrite=_TO_ROOT if taken else _AS_IT_IS,
        to=WHOLE,
        timeout=settings["timeout"],
        total_timeout=settings.get("total_timeout", 0),
        retries=_same(Retries, {**settings.get("retries", {}), **settings.get("retry_backoff", {})}),
        request_headers=HeaderEdits(set=headers, remove=remove),
    )


_EVERY, _AS_IT_IS, _TO_ROOT = Match(), Rewrite(), Rewrite(prefix="/")


# Thousands of names have the same few settings, which are checked and compiled once, as one object.
_sections: dict[bytes, Any] = {}
_MOST_SECTIONS = 1024


def _same(section: type[Any], settings: Mapping[str, Any]) -> Any:
    key = section.__name__.encode() + msgspec.json.encode(settings, order="deterministic")
    found = _sections.get(key)
    if found is None:
        if len(_sections) >= _MOST_SECTIONS:
            _sections.clear()
        found = _sections[key] = section(**settings)
    return found


def _slowest(timeouts: list[Any]) -> Any:
    """Of the branches of one name the most patient decides: the route has one timeout for all."""
    found = [Duration(one) for one in timeouts]
    return 0 if 0 in found else max(found)


def _path_text(path: Path) -> str:
    """The segments as they stood in the request."""
    return "/" + "/".join(elem.decode("latin-1") for elem in path.elems)
