"""An explanation as the JSON of Linkerd's /delegator.json and namerd's /api/1/delegate. Addresses are not known here.

Source: linkerd DelegateApiHandler.scala (JsonDelegateTree). `collapse` has shaped the tree; this only words it.
"""

from __future__ import annotations

from typing import Any

from .dtab import Dentry
from .explain import Delegation
from .path import Path
from .show import show_tree

_FAIL = Path.of("$", "fail")


def delegator_json(node: Delegation) -> dict[str, Any]:
    """Plain values for a JSON encoder. A step of a rewriting namer is left out, as it is there."""
    if node.kind == "delegate" and node.by_namer:
        return delegator_json(node.children[0])
    shown: dict[str, Any] = {"type": node.kind, "path": _path_of(node)}
    if node.dentry is not None:
        shown["dentry"] = dentry_json(node.dentry)
    if node.kind == "delegate":
        shown["delegate"] = delegator_json(node.children[0])
    elif node.kind == "alt":
        shown["alt"] = [delegator_json(child) for child in node.children]
    elif node.kind == "union":
        shown["union"] = [
            {"weight": weight, "tree": delegator_json(child)}
            for weight, child in zip(node.weights, node.children, strict=True)
        ]
    elif node.bound is not None:
        shown["bound"] = {"id": str(node.bound.id), "path": str(node.bound.residual)}
    elif node.kind == "exception":
        shown["message"] = node.message
    return shown


def _path_of(node: Delegation) -> str:
    """A sign that stands in the table is printed in place of the name it was given for."""
    if node.kind == "neg" and node.is_literal:
        return "~"
    if node.kind == "fail" and not node.path.starts_with(_FAIL):
        return "!"
    return str(node.path)


def dentry_json(dentry: Dentry) -> dict[str, str]:
    return {"prefix": str(dentry.prefix), "dst": show_tree(dentry.dst)}
