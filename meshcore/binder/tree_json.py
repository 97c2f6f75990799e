"""Bound trees and addresses as namerd's HTTP interface writes them. Reads JSON that was parsed; knows no connection.

Source: namerd HttpControlService: `{"type": "leaf", "bound": {"id": "/#/io.l5d.fs/web", "path": "/"}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MeshError
from ..naming import Alt, Bound, BoundTree, Empty, Fail, Failed, Leaf, Neg, Pending, Union, Weighted, read_path
from ..namers.states import Address, Replicas, State, pairs


class NamerdError(MeshError):
    """A namerd that does not answer, or answers what cannot be understood."""

    default_source = "upstream"


def read_bound_tree(value: Any) -> BoundTree:
    kind = _field(value, "type", str)
    if kind == "leaf":
        found = _field(value, "bound", dict)
        return Leaf(Bound(read_path(_field(found, "id", str)), read_path(found.get("path") or "/")))
    if kind == "alt":
        return Alt(tuple(read_bound_tree(one) for one in _field(value, "alt", list)))
    if kind == "union":
        branches = _field(value, "union", list)
        return Union(tuple(Weighted(_weight(one), read_bound_tree(_field(one, "tree", dict))) for one in branches))
    if kind in _SIGNS:
        return _SIGNS[kind]
    raise NamerdError(f"namerd answers a tree of the unknown type {kind!r}")


_SIGNS: Mapping[str, BoundTree] = {"neg": Neg(), "fail": Fail(), "empty": Empty()}


def read_addresses(value: Any) -> State:
    kind = _field(value, "type", str)
    if kind == "bound":
        return Replicas.of((_address(one) for one in _field(value, "addrs", list)), value.get("meta") or {})
    if kind == "neg":
        return Neg()
    if kind == "pending":
        return Pending()
    if kind == "failed":
        return Failed(str(value.get("cause") or value.get("message") or "namerd cannot tell"))
    raise NamerdError(f"namerd answers addresses of the unknown type {kind!r}")


def _address(value: Any) -> Address:
    meta = dict(value.get("meta") or {})
    weight = meta.pop("endpoint_addr_weight", 1.0)
    return Address(_field(value, "ip", str), _field(value, "port", int), float(weight), pairs(meta))


def _weight(value: Any) -> float:
    weight = value.get("weight") if isinstance(value, dict) else None
    if isinstance(weight, (int, float)) and not isinstance(weight, bool):
        return float(weight)
    raise NamerdError("namerd answers a branch without a weight")


def _field(value: Any, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise NamerdError(f"namerd answers JSON without a {kind.__name__} {key!r}")
    return found
