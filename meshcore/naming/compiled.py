"""A dtab compiled for binding: a trie of its prefixes, and a bind that follows names through it in microseconds.

Pure: the same table, path and answers give the same result. `tests/naming/oracle.py` says the same in the plainest way.
Source: finagle Namer.bind, linkerd ConfiguredDtabNamer.scala. Bounded: lookups in a row, lookups in all, nesting of the
result.
"""

from __future__ import annotations

from typing import Any, Final

from .answers import NEVER_MORE_THAN, BindResult, Bound, Failed, Pending, too_deep
from .dtab import Dtab
from .frames import TOO_NESTED, AltFrame, Elements, KeptAltFrame, UnionFrame
from .lookup import extend
from .namers import NO_NAMERS, Namers
from .path import Path
from .tree import Alt, Leaf, NameTree, Neg, Union

MOST_LOOKUPS = 10_000
"""Of one bind. A table for people needs some dozens; `/a0=>/a1&/a1;/a1=>/a2&/a2;…` doubles with every entry."""

_NEG: NameTree[Bound] = Neg()
_TOO_MANY: Final = Failed(f"more than {MOST_LOOKUPS} lookups: the table multiplies names (dtab check tells where)")


class Entry:
    """A dentry as the trie holds it."""

    __slots__ = ("consumed", "index", "tree")

    def __init__(self, index: int, consumed: int, tree: NameTree[Path]) -> None:
        self.index = index
        self.consumed = consumed
        self.tree = tree


class _Node:
    """The entries whose prefix ends here, and the ways to longer prefixes."""

    __slots__ = ("children", "entries", "wildcard")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}
        self.wildcard: _Node | None = None
        self.entries: list[Entry] = []


def _position(entry: Entry) -> int:
    return entry.index


class CompiledDtab:
    """`compile_dtab(dtab)`. Never changes; may be shared between threads."""

    __slots__ = ("_root", "dtab")

    def __init__(self, dtab: Dtab) -> None:
        self.dtab: Final = dtab
        self._root: Final = _Node()
        for index, dentry in enumerate(dtab.entries):
            node = self._root
            for elem in dentry.prefix.elems:
                if elem is None:
                    node.wildcard = node.wildcard or _Node()
                    node = node.wildcard
                else:
                    node = node.children.setdefault(elem, _Node())
            node.entries.append(Entry(index, len(dentry.prefix), dentry.dst))

    def matching(self, elems: Elements) -> list[Entry]:
        """The entries that match, the last of the table first."""
        found = self._root.entries[:]
        alive = [self._root]
        for elem in elems:
            grown = []
            for node in alive:
                child = node.children.get(elem)
                if child is not None:
                    grown.append(child)
                    found += child.entries
                child = node.wildcard
                if child is not None:
                    grown.append(child)
                    found += child.entries
            if not grown:
                break
            alive = grown
        if len(found) > 1:
            found.sort(key=_position, reverse=True)
        return found

    def lookup(self, path: Path) -> NameTree[Path]:
        """As `lookup.lookup`: one step."""
        found = tuple(extend(entry.tree, path.drop(entry.consumed)) for entry in self.matching(path.elems))
        if not found:
            return Neg()
        return found[0] if len(found) == 1 else Alt(found)

    def bind(self, path: Path, namers: Namers = NO_NAMERS, *, keeps_alternatives: bool = False) -> BindResult:
        """Follow the path until only bound names are left. Raises nothing: what cannot be bound is `Failed`.

        With `keeps_alternatives` the result still has alternations: first what wins, then what would, were it gone. Of
        the others only those that bind are kept. When that takes too many lookups, the winner alone is the result.
        """
        if keeps_alternatives:
            value = self._bind(path, namers, KeptAltFrame)
            if value is not _TOO_MANY and value is not TOO_NESTED:
                return value
        return self._bind(path, namers, AltFrame)

    def _bind(self, path: Path, namers: Namers, alternation: type[AltFrame]) -> BindResult:
        """A machine with a stack of its own, as a table may lead through more trees than Python can recurse into. It
        descends to the first leaf of a tree, then hands values up through the frames; a frame asks for its next branch
        or ends.
        """
        frames: list[AltFrame | UnionFrame] = []
        tree: NameTree[Any] = Leaf(path)
        rest: Elements = ()
        depth = lookups = 0
        value: BindResult
        while True:
            while True:  # descend
                kind = type(tree)
                if kind is Leaf:
                    name = tree.value  # type: ignore[attr-defined]
                    if type(name) is Bound:
                        value = tree
                        break
                    elems = name.elems + rest if rest else name.elems
                    if depth == NEVER_MORE_THAN:
                        value = too_deep(Path(elems))
                        break
                    depth += 1
                    lookups += 1
                    if lookups > MOST_LOOKUPS:
                        return _TOO_MANY
                    found = self.matching(elems)
                    if len(found) == 1 and type(found[0].tree) is not Neg:
                        tree, rest = found[0].tree, elems[found[0].consumed :]
                        continue
                    if len(found) > 1:
                        choices = [(entry.tree, elems[entry.consumed :]) for entry in found]
                        frames.append(alternation(choices, depth))
                        tree, rest = choices[0]
                        continue
                    # One `~` is as no match: the namers are asked all the same. Two are not, and hide what is below.
                    answer = namers.ask(elems)
                    if isinstance(answer, (Pending, Failed)):
                        value = answer
                        break
                    tree, rest = answer, ()
                elif kind is Alt:
                    if not tree.trees:  # type: ignore[attr-defined]
                        value = _NEG
                        break
                    choices = [(one, rest) for one in tree.trees]  # type: ignore[attr-defined]
                    frames.append(alternation(choices, depth))
                    tree = choices[0][0]
                elif kind is Union:
                    branches = tree.branches  # type: ignore[attr-defined]
                    if not branches:
                        value = _NEG
                        break
                    tree = branches[0].tree
                    if len(branches) > 1:
                        frames.append(UnionFrame(branches, rest, depth))
                else:
                    value = tree
                    break
            while frames:  # ascend
                going_on = frames[-1].take(value)
                if going_on is not None:
                    tree, rest = going_on
                    depth = frames[-1].depth
                    break
                value = frames.pop().result(value)
                if value is TOO_NESTED:
                    return TOO_NESTED
            else:
                return value


def compile_dtab(dtab: Dtab) -> CompiledDtab:
    return CompiledDtab(dtab)


def bind(dtab: Dtab, path: Path, namers: Namers = NO_NAMERS) -> BindResult:
    """Bind one path. Who binds more of them compiles the table once."""
    return CompiledDtab(dtab).bind(path, namers)
