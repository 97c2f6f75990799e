"""Name trees: fail-over, weighted split, and what ends them. Shape only; what a tree means is in the rooms beside it.

Source: finagle NameTree.scala. Leaves are `Path` in a table and `Bound` after binding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr

from .errors import NamingError

T = TypeVar("T")
U = TypeVar("U")

# Alternation below union below alternation …: nobody writes five. Every walk over a tree recurses, so it must end.
MAX_NESTING = 128


class NameTree(msgspec.Struct, Generic[T], frozen=True):
    """Base of the six kinds of node."""

    @property
    def nesting(self) -> int:
        """How many alternations and unions stand one inside the other."""
        return 0


class Leaf(NameTree[T], Generic[T], frozen=True):
    """Go on with this."""

    value: T


class Neg(NameTree[T], Generic[T], frozen=True):
    """`~`: there is no such name; an alternation goes on."""


class Fail(NameTree[T], Generic[T], frozen=True):
    """`!`: stop here and fail; an alternation does not go on."""


class Empty(NameTree[T], Generic[T], frozen=True):
    """`$`: the name exists and has no instance; an alternation does not go on."""


class Alt(NameTree[T], Generic[T], frozen=True):
    """`a | b`: the first that is not Neg."""

    trees: tuple[NameTree[T], ...] = ()
    depth: int = 0
    """The nesting; worked out, not given."""

    def __post_init__(self) -> None:
        force_setattr(self, "depth", _nesting_above(self.trees))

    @property
    def nesting(self) -> int:
        return self.depth


class Weighted(msgspec.Struct, Generic[T], frozen=True):
    """One branch of a union: its share is its weight among the weights of the union."""

    weight: float
    tree: NameTree[T]

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise NamingError(f"a weight is a finite number of zero or more, not {self.weight}")
        # An int, or the zero below zero, would print as something else than what it is read back as.
        force_setattr(self, "weight", abs(float(self.weight)))


class Union(NameTree[T], Generic[T], frozen=True):
    """`w*a & w*b`: both, by weight."""

    branches: tuple[Weighted[T], ...] = ()
    depth: int = 0
    """The nesting; worked out, not given."""

    def __post_init__(self) -> None:
        force_setattr(self, "depth", _nesting_above([branch.tree for branch in self.branches]))

    @property
    def nesting(self) -> int:
        return self.depth


def _nesting_above(trees: tuple[NameTree[T], ...] | list[NameTree[T]]) -> int:
    nesting = 1 + max((tree.nesting for tree in trees), default=0)
    if nesting > MAX_NESTING:
        raise NamingError(f"a name tree of more than {MAX_NESTING} levels")
    return nesting


def alt(*trees: NameTree[T]) -> Alt[T]:
    return Alt(trees)


def union(*branches: NameTree[T] | tuple[float, NameTree[T]]) -> Union[T]:
    """`union((0.9, a), (0.1, b))`; a branch without a weight has the weight 1."""
    pairs = (branch if isinstance(branch, tuple) else (1.0, branch) for branch in branches)
    return Union(tuple(Weighted(weight, tree) for weight, tree in pairs))


def map_leaves(tree: NameTree[T], change: Callable[[T], U]) -> NameTree[U]:
    """The same tree with other leaves."""
    if isinstance(tree, Leaf):
        return Leaf(change(tree.value))
    if isinstance(tree, Alt):
        return Alt(tuple(map_leaves(one, change) for one in tree.trees))
    if isinstance(tree, Union):
        return Union(tuple(Weighted(one.weight, map_leaves(one.tree, change)) for one in tree.branches))
    return tree  # type: ignore[return-value]  # Neg, Fail and Empty hold no leaf


def leaves(tree: NameTree[T]) -> Iterator[T]:
    """Every leaf, in order, whether it could win or not."""
    if isinstance(tree, Leaf):
        yield tree.value
    elif isinstance(tree, Alt):
        for one in tree.trees:
            yield from leaves(one)
    elif isinstance(tree, Union):
        for branch in tree.branches:
            yield from leaves(branch.tree)
