"""Lookup: one step, from a path to the tree that a table gives for it. Follows nothing; `compiled` does, and faster.

Source: finagle Dtab.lookup, Dentry.Prefix.matches.
"""

from __future__ import annotations

from .dtab import Dtab
from .path import Path
from .tree import Alt, NameTree, Neg, map_leaves


def lookup(dtab: Dtab, path: Path) -> NameTree[Path]:
    """All entries that match, the last one first; Neg when none does. The rest of the path is added to each leaf."""
    found = [
        extend(dentry.dst, path.drop(len(dentry.prefix)))
        for dentry in reversed(dtab.entries)
        if dentry.prefix.matches(path)
    ]
    if not found:
        return Neg()
    return found[0] if len(found) == 1 else Alt(tuple(found))


def extend(tree: NameTree[Path], rest: Path) -> NameTree[Path]:
    return map_leaves(tree, lambda leaf: leaf + rest) if rest else tree
