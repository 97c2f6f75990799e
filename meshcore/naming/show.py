"""Printing: text that reads back as the same value, weights included. Reads nothing.

Where two decimals say all of a weight it prints as Finagle prints it (`0.50*`), otherwise with the fewest digits that
read back as the same number. Finagle always prints two: there, a canary of `0.001*` is `0.00*` after one round trip
through Consul, etcd or `l5d-ctx-dtab`, and its neighbour gets everything.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeVar

from .dtab import Dentry, Dtab
from .tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union

T = TypeVar("T")

_SIGNS: dict[type, str] = {Neg: "~", Fail: "!", Empty: "$"}

# Below it `%.2f` is no longer than what a person would write; above it prints digits that the number does not have.
LARGEST_PLAIN_WEIGHT = 1e15


def show_weight(weight: float) -> str:
    """A weight as the grammar takes it: digits and at most one dot, no exponent."""
    two_decimals = f"{weight:.2f}"
    if weight < LARGEST_PLAIN_WEIGHT and float(two_decimals) == weight:
        return two_decimals
    return format(Decimal(repr(weight)), "f")


def show_tree(tree: NameTree[T]) -> str:
    """A name tree; what a leaf prints is its own affair (`str`)."""
    return _show(tree, is_inside=False, is_in_union=False)


def _show(tree: NameTree[T], *, is_inside: bool, is_in_union: bool) -> str:
    if isinstance(tree, Leaf):
        return str(tree.value)
    if isinstance(tree, Alt):
        if len(tree.trees) < 2:  # the grammar has no alternation of one, nor of none, which binds as Neg
            return _show(tree.trees[0], is_inside=is_inside, is_in_union=is_in_union) if tree.trees else "~"
        text = " | ".join(_show(one, is_inside=True, is_in_union=False) for one in tree.trees)
        return f"({text})" if is_inside else text
    if isinstance(tree, Union):
        if len(tree.branches) < 2:
            only = [branch.tree for branch in tree.branches]
            return _show(only[0], is_inside=is_inside, is_in_union=is_in_union) if only else "~"
        text = " & ".join(
            ("" if one.weight == 1.0 else f"{show_weight(one.weight)}*")
            + _show(one.tree, is_inside=True, is_in_union=True)
            for one in tree.branches
        )
        return f"({text})" if is_in_union else text
    return _SIGNS[type(tree)]


def show_dentry(dentry: Dentry) -> str:
    return f"{dentry.prefix}=>{show_tree(dentry.dst)}"


def show_dtab(dtab: Dtab) -> str:
    """The canonical form: one line, `;` between entries."""
    return ";".join(map(show_dentry, dtab.entries))


def show_pretty(dtab: Dtab) -> str:
    """A line per entry, arrows one below the other (namerctl --pretty)."""
    prefixes = [str(dentry.prefix) for dentry in dtab.entries]
    width = max(map(len, prefixes), default=0)
    return "".join(
        f"{prefix:<{width}}  => {show_tree(dentry.dst)} ;\n"
        for prefix, dentry in zip(prefixes, dtab.entries, strict=True)
    )
