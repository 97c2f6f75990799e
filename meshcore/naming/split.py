"""Shares: what part of the requests each leaf of a bound tree gets, and choosing one. Randomness is an argument.

Source: finagle NameTreeFactory.scala with NameTreeFactoryTest, Drv.scala. Nested unions multiply; `~` and `!` branches
have no share; `$` keeps its share, and those requests find no instance; weights that are all zero count as equal.
"""

from __future__ import annotations

import math
from typing import TypeVar

from .simplify import simplify
from .tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union

T = TypeVar("T")

End = Leaf[T] | Empty[T] | Neg[T] | Fail[T]


def shares(tree: NameTree[T]) -> tuple[tuple[End[T], float], ...]:
    """(leaf or sign, its share) in order; they add up to 1. An alternation is its first branch that is not Neg."""
    found: list[tuple[End[T], float]] = []
    _share(simplify(tree), 1.0, found)
    return tuple(found)


def _share(tree: NameTree[T], part: float, found: list[tuple[End[T], float]]) -> None:
    if isinstance(tree, Alt):
        _share(tree.trees[0], part, found)
    elif isinstance(tree, Union):
        weights = [branch.weight for branch in tree.branches]
        if math.isinf(total := sum(weights)):
            largest = max(weights)
            weights = [weight / largest for weight in weights]
            total = sum(weights)
        if total == 0:
            weights, total = [1.0] * len(weights), float(len(weights))
        for branch, weight in zip(tree.branches, weights, strict=True):
            _share(branch.tree, part * (weight / total), found)
    elif isinstance(tree, (Leaf, Empty, Neg, Fail)):
        found.append((tree, part))


def choose(tree: NameTree[T], at: float) -> End[T]:
    """The leaf for a number drawn evenly from [0, 1). One without a share is never chosen beside others."""
    dealt = [(end, part) for end, part in shares(tree) if part > 0]
    for end, part in dealt:
        if at < part:
            return end
        at -= part
    return dealt[-1][0]  # rounding: the shares add up to a hair less than 1


def innermost_weights(tree: NameTree[T]) -> tuple[tuple[T, float | None], ...]:
    """(leaf, weight of the union right above it), None outside of unions: what Finagle notes beside an address set."""
    found: list[tuple[T, float | None]] = []
    _weigh(tree, None, found)
    return tuple(found)


def _weigh(tree: NameTree[T], weight: float | None, found: list[tuple[T, float | None]]) -> None:
    if isinstance(tree, Leaf):
        found.append((tree.value, weight))
    elif isinstance(tree, Union):
        for branch in tree.branches:
            _weigh(branch.tree, branch.weight, found)
    elif isinstance(tree, Alt):
        for one in tree.trees:
            _weigh(one, weight, found)
