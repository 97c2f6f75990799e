"""Simplifying: the smallest tree that evaluates to the same. Binds nothing.

Source: finagle NameTree.simplify since 19.6. Below a union `!` is dropped like `~`: a branch that fails leaves its
share to the others. Until 19.5, Linkerd 1.7.2 and before, one `!` made the whole union `!`.
"""

from __future__ import annotations

from typing import TypeVar

from .dtab import Dentry, Dtab
from .tree import Alt, Fail, NameTree, Neg, Union, Weighted

T = TypeVar("T")


def simplify(tree: NameTree[T]) -> NameTree[T]:
    """A fixpoint: simplifying again changes nothing. A union of one has no weight."""
    if isinstance(tree, Alt):
        return _simplify_alt(tree)
    if isinstance(tree, Union):
        if len(tree.branches) == 1:
            return simplify(tree.branches[0].tree)  # not a choice, so its `!` stays
        return join([Weighted(branch.weight, simplify(branch.tree)) for branch in tree.branches])
    return tree


def _simplify_alt(tree: Alt[T]) -> NameTree[T]:
    if len(tree.trees) == 1:
        return simplify(tree.trees[0])
    kept: list[NameTree[T]] = []
    for one in tree.trees:
        simple = simplify(one)
        if isinstance(simple, Neg):
            continue
        kept.append(simple)
        if isinstance(simple, Fail):
            break  # nothing after it can be reached
    if not kept:
        return Neg()
    return kept[0] if len(kept) == 1 else Alt(tuple(kept))


def join(branches: list[Weighted[T]]) -> NameTree[T]:
    """A union of simple branches: without those that lead nowhere; `$` stays, and with it its share."""
    kept = tuple(branch for branch in branches if not isinstance(branch.tree, (Neg, Fail)))
    if not kept:
        return Neg()
    return kept[0].tree if len(kept) == 1 else Union(kept)


def simplify_dtab(dtab: Dtab) -> Dtab:
    """Each destination simplified, entries to `~` dropped.

    Almost the same table: one matching `~` is as no match, but two of them keep the namers from being asked (see
    docs/naming.md).
    """
    simple = (Dentry(dentry.prefix, simplify(dentry.dst)) for dentry in dtab.entries)
    return Dtab(tuple(dentry for dentry in simple if not isinstance(dentry.dst, Neg)))
