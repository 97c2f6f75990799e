"""Evaluating: which leaves a tree comes down to, weights aside. For shares see `split`; binds nothing.

Source: finagle NameTree.eval since 19.6 (`!` below a union counts as `~`).
"""

from __future__ import annotations

from typing import TypeVar

from .tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union

T = TypeVar("T")


def evaluate(tree: NameTree[T]) -> frozenset[T] | None:
    """The leaves; an empty set for `$`, None where there is no value (`~`, `!`)."""
    found = _evaluate(tree)
    return found if isinstance(found, frozenset) else None


def _evaluate(tree: NameTree[T]) -> frozenset[T] | Neg[T] | Fail[T]:
    if isinstance(tree, Leaf):
        return frozenset((tree.value,))
    if isinstance(tree, Empty):
        return frozenset()
    if isinstance(tree, Alt):
        for one in tree.trees:
            if not isinstance(found := _evaluate(one), Neg):
                return found
        return Neg()
    if isinstance(tree, Union):
        if len(tree.branches) == 1:
            return _evaluate(tree.branches[0].tree)
        values = [_evaluate(branch.tree) for branch in tree.branches]
        sets = [value for value in values if isinstance(value, frozenset)]
        return frozenset[T]().union(*sets) if sets else Neg()
    return Fail() if isinstance(tree, Fail) else Neg()
