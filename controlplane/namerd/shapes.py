"""What namerd says in JSON: addresses, bound trees, delegations. Words as Linkerd's own; asks and streams nothing.

Source: linkerd DelegateApiHandler.scala (JsonDelegateTree, Addr), HttpControlServiceTest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshcore.namers import Address, Replicas, Resolution, State
from meshcore.naming import Alt, BoundTree, Empty, Fail, Failed, Leaf, NameTree, Neg, Path, Union
from meshcore.naming.split import innermost_weights


def addr_json(state: State, weight: float | None = None) -> dict[str, Any]:
    """The addresses of one bound name; `weight` is that of the union right above it."""
    if isinstance(state, Replicas):
        meta: dict[str, Any] = dict(state.metadata)
        if weight is not None:
            meta["namer_nametree_weight"] = weight
        return {"type": "bound", "addrs": [_address(one) for one in state.addresses], "meta": meta}
    if isinstance(state, Failed):
        return {"type": "failed", "cause": state.message}
    return {"type": "neg" if isinstance(state, Neg) else "pending"}


def _address(one: Address) -> dict[str, Any]:
    meta: dict[str, Any] = dict(one.metadata)
    if one.weight != 1.0:
        meta["endpoint_addr_weight"] = one.weight
    return {"ip": one.host, "port": one.port, "meta": meta}


def bound_json(resolution: Resolution) -> dict[str, Any]:
    """A bound tree with the addresses of its leaves."""
    tree = resolution.tree
    assert isinstance(tree, NameTree), "what is pending or failed has no such form"
    weights = {bound.id: weight for bound, weight in innermost_weights(tree)}
    return _tree(tree, resolution.replicas, weights)


def _tree(tree: BoundTree, replicas: Mapping[Path, State], weights: Mapping[Path, float | None]) -> dict[str, Any]:
    if isinstance(tree, Leaf):
        bound = tree.value
        addr = addr_json(replicas[bound.id], weights.get(bound.id))
        return {"type": "leaf", "bound": {"addr": addr, "id": str(bound.id), "path": str(bound.residual)}}
    if isinstance(tree, Alt):
        return {"type": "alt", "alt": [_tree(one, replicas, weights) for one in tree.trees]}
    if isinstance(tree, Union):
        branches = [{"weight": one.weight, "tree": _tree(one.tree, replicas, weights)} for one in tree.branches]
        return {"type": "union", "union": branches}
    return {"type": "fail" if isinstance(tree, Fail) else "empty" if isinstance(tree, Empty) else "neg"}


def with_addresses(shown: dict[str, Any], replicas: Mapping[str, State]) -> dict[str, Any]:
    """A delegation as `delegator_json` words it, and the addresses of its leaves."""
    bound = shown.get("bound")
    if bound is not None:
        state = replicas.get(bound["id"])
        addr = addr_json(state) if state is not None else {"type": "pending"}
        return {**shown, "bound": {"addr": addr, **bound}}
    if "delegate" in shown:
        return {**shown, "delegate": with_addresses(shown["delegate"], replicas)}
    if "alt" in shown:
        return {**shown, "alt": [with_addresses(one, replicas) for one in shown["alt"]]}
    if "union" in shown:
        branches = [{**one, "tree": with_addresses(one["tree"], replicas)} for one in shown["union"]]
        return {**shown, "union": branches}
    return shown
