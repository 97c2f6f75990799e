"""Delegation explained: every alternative of a name as a tree, also those after the one that wins. Prints nothing.

Source: linkerd DelegateTree.scala, DefaultInterpreterInitializer.scala (delegateLookup, delegateBind, simplify). Two
things are told better than there: a rewriting namer is a step of its own, and where one matching `~` lets the namers
answer after all, both are shown, so that an explanation never contradicts the bind.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from .answers import NEVER_MORE_THAN, Bound, BoundTree, Failed, Pending, too_deep
from .dtab import Dentry, Dtab
from .lookup import extend
from .namers import NO_NAMERS, Namers
from .path import Path
from .simplify import join
from .tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union, Weighted

Kind: TypeAlias = Literal["delegate", "leaf", "alt", "union", "neg", "fail", "empty", "exception"]

MOST_NODES = 10_000
"""Of one explanation; what is left out is told at its place."""

DEEPEST = 300
"""Nodes one inside the other. Nobody reads so far down, and every reader of the tree recurses."""


class Delegation(msgspec.Struct, frozen=True):
    """A name and what became of it."""

    kind: Kind
    path: Path
    """The name looked up here."""
    dentry: Dentry | None = None
    """The entry that led here; None at the root."""
    children: tuple[Delegation, ...] = ()
    """One for `delegate`; the branches of `alt` and `union`."""
    weights: tuple[float, ...] = ()
    """Of the branches of a `union`."""
    bound: Bound | None = None
    """Of a `leaf`."""
    message: str = ""
    """Of an `exception`: why it cannot be known."""
    is_literal: bool = False
    """A `~`, `!` or `$` that stands in the table, as opposed to a name that nobody knows."""
    by_namer: bool = False
    """A step of a rewriting namer, not of the table."""


def explain(dtab: Dtab, path: Path, namers: Namers = NO_NAMERS) -> Delegation:
    """How a path is bound, and what else was there. Loops are cut where they close."""
    return collapse(_Explaining(dtab, namers).name(path, None, ()))


class _Explaining:
    def __init__(self, dtab: Dtab, namers: Namers) -> None:
        self.newest_first = dtab.entries[::-1]
        self.namers = namers
        self.nodes = 0

    def name(self, path: Path, dentry: Dentry | None, above: tuple[Path, ...], room: int = DEEPEST) -> Delegation:
        """A name that came by `dentry`, after the names `above`."""
        self.nodes += 1
        if path in above:
            circle = " -> ".join(map(str, (*above[above.index(path) :], path)))
            return Delegation("exception", path, dentry, message=f"loop: {circle}")
        if len(above) == NEVER_MORE_THAN:
            return Delegation("exception", path, dentry, message=too_deep(path).message)
        if self.nodes > MOST_NODES or room < 1:
            return Delegation("exception", path, dentry, message="not shown: the explanation grows too large")
        chain = (*above, path)
        found = [one for one in self.newest_first if one.prefix.matches(path)]
        trees = tuple(
            self.tree(extend(one.dst, path.drop(len(one.prefix))), path, one, chain, room - 2) for one in found
        )
        if not trees:
            return self.asked(path, dentry, chain, room - 1)
        if len(trees) > 1:
            return Delegation("alt", path, dentry, trees)
        if not isinstance(found[0].dst, Neg):
            return Delegation("delegate", path, dentry, trees)
        answer = self.asked(path, dentry, chain, room - 1)
        if answer.kind == "neg":
            return Delegation("delegate", path, dentry, trees)
        return Delegation("alt", path, dentry, (*trees, answer))

    def asked(self, path: Path, dentry: Dentry | None, chain: tuple[Path, ...], room: int) -> Delegation:
        """A name that the table does not know, and what the namers say of it."""
        answer = self.namers.ask(path.elems)
        if isinstance(answer, Failed):
            return Delegation("exception", path, dentry, message=answer.message)
        if isinstance(answer, Pending):
            return Delegation("exception", path, dentry, message="pending: the namer has no answer yet")
        shown = self.tree(answer, path, dentry, chain, room)
        if isinstance(answer, Leaf) and isinstance(answer.value, Path):
            return Delegation("delegate", path, dentry, (shown,), by_namer=True)
        # What a namer answers stands in no table, even where the tree is a `~`.
        return msgspec.structs.replace(shown, is_literal=False)

    def tree(
        self,
        tree: NameTree[Path] | NameTree[Bound] | NameTree[Path | Bound],
        path: Path,
        dentry: Dentry | None,
        chain: tuple[Path, ...],
        room: int,
    ) -> Delegation:
        """A tree that stands for `path` because of `dentry`."""
        self.nodes += 1
        if isinstance(tree, Leaf):
            if isinstance(tree.value, Bound):
                return Delegation("leaf", path, dentry, bound=tree.value)
            return self.name(tree.value, dentry, chain, room)
        if room < 1:
            return Delegation("exception", path, dentry, message="not shown: the tree is too deep")
        if isinstance(tree, Alt):
            trees = tuple(self.tree(one, path, dentry, chain, room - 1) for one in tree.trees)
            return Delegation("alt", path, dentry, trees) if trees else Delegation("neg", path, dentry)
        if isinstance(tree, Union):
            trees = tuple(self.tree(one.tree, path, dentry, chain, room - 1) for one in tree.branches)
            weights = tuple(one.weight for one in tree.branches)
            return Delegation("union", path, dentry, trees, weights) if trees else Delegation("neg", path, dentry)
        kind: Kind = "fail" if isinstance(tree, Fail) else "empty" if isinstance(tree, Empty) else "neg"
        return Delegation(kind, path, dentry, is_literal=True)


_ENDS = ("neg", "fail", "empty")


def collapse(node: Delegation) -> Delegation:
    """Nodes of one path become one; an alternation of the same path goes into the one above (DelegateTree.simplify)."""
    if node.kind in ("alt", "union") and len(node.children) == 1:
        node = Delegation("delegate", node.path, node.dentry, node.children)
    children = tuple(map(collapse, node.children))
    if node.kind == "delegate":
        child = children[0]
        if child.path == node.path and child.kind not in _ENDS and not node.by_namer:
            return msgspec.structs.replace(child, dentry=node.dentry)
    if node.kind == "alt":
        flat: list[Delegation] = []
        for child in children:
            flat += child.children if child.kind == "alt" and child.path == node.path else (child,)
        children = tuple(flat)
    return msgspec.structs.replace(node, children=children)


def outcome(node: Delegation) -> BoundTree | Failed:
    """What the explanation comes down to: the same as binding, except where a loop was cut."""
    if node.kind == "leaf" and node.bound is not None:
        return Leaf(node.bound)
    if node.kind == "exception":
        return Failed(node.message)
    if node.kind == "delegate":
        return outcome(node.children[0])
    if node.kind == "alt":
        for child in node.children:
            if not isinstance(found := outcome(child), Neg):
                return found
        return Neg()
    if node.kind == "union":
        pairs = [(weight, outcome(child)) for weight, child in zip(node.weights, node.children, strict=True)]
        bound = [Weighted(weight, found) for weight, found in pairs if isinstance(found, NameTree)]
        failed = [found for _, found in pairs if isinstance(found, Failed)]
        return join(bound) if bound else failed[0]
    return Fail() if node.kind == "fail" else Empty() if node.kind == "empty" else Neg()
