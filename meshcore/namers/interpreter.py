"""Interpreters: from a name to its live bound tree and the addresses behind it. Owns no table and watches no catalogue.

A bind is the pure one of `naming` over the namers' present answers. Every live value that it read is followed, and when
one changes, or the table does, the bind is made again. So a bind has no state of its own that could go stale.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec

from ..naming import (
    EMPTY_DTAB,
    BindResult,
    CompiledDtab,
    Delegation,
    Dtab,
    NameTree,
    Path,
    Pending,
    compile_dtab,
    explain,
    leaves,
)
from .live import Derived, Live, Read, fixed
from .namer import LiveNamers
from .states import State


class Resolution(msgspec.Struct, frozen=True):
    """What a name is bound to at one moment, and the state of every id that is a leaf of the tree."""

    tree: BindResult
    replicas: Mapping[Path, State]

    @property
    def is_pending(self) -> bool:
        """Whether nothing of it is known yet."""
        if isinstance(self.tree, Pending):
            return True
        return bool(self.replicas) and all(isinstance(state, Pending) for state in self.replicas.values())


class Interpreter(ABC):
    """Who knows what names are bound to: a table here, or a namerd elsewhere."""

    @abstractmethod
    def follow(self, path: Path, local: Dtab = EMPTY_DTAB) -> Live[Resolution]:
        """The name under the interpreter's table, overridden by `local`."""

    @abstractmethod
    async def close(self) -> None:
        """Ends everything; what was known stays, and is stale."""


class LocalInterpreter(Interpreter):
    """A table, which may be live itself, and namers in this process.

    With `keeps_alternatives` the tree holds what an alternation would go on to, so that who has no endpoint left in the
    first branch may fall over to the next. Without, it is the tree of Linkerd, which has no alternations.
    """

    def __init__(self, namers: LiveNamers, dtab: Dtab | Live[Dtab], *, keeps_alternatives: bool = False) -> None:
        self.namers = namers
        base = fixed(dtab) if isinstance(dtab, Dtab) else dtab
        self._base = base
        self._keeps_alternatives = keeps_alternatives
        self._compiled: Live[CompiledDtab] = Derived(lambda read: compile_dtab(read(base)))
        self._bound: weakref.WeakValueDictionary[tuple[Path, Dtab], Live[BindResult]] = weakref.WeakValueDictionary()
        self._followed: weakref.WeakValueDictionary[tuple[Path, Dtab], Live[Resolution]] = weakref.WeakValueDictionary()

    def bind(self, path: Path, local: Dtab = EMPTY_DTAB) -> Live[BindResult]:
        """The bound tree alone. The same live value for all who follow the same name."""
        live = self._bound.get((path, local))
        if live is None:
            live = self._bound[path, local] = Derived(lambda read: self._bind(path, local, read))
        return live

    def _bind(self, path: Path, local: Dtab, read: Read) -> BindResult:
        # A table of one request is compiled for it alone; the base is compiled once for all.
        table: CompiledDtab = compile_dtab(read(self._base) + local) if local else read(self._compiled)
        return table.bind(path, self.namers.reading(read), keeps_alternatives=self._keeps_alternatives)

    def replicas(self, id: Path) -> Live[State]:
        return self.namers.replicas(id)

    def follow(self, path: Path, local: Dtab = EMPTY_DTAB) -> Live[Resolution]:
        live = self._followed.get((path, local))
        if live is None:
            live = self._followed[path, local] = resolved(self.bind(path, local), self.namers)
        return live

    async def explain(self, path: Path, local: Dtab = EMPTY_DTAB, timeout_s: float = 2.0) -> Delegation:
        """Every alternative by the namers' present answers; waits, for a while, for those that have none yet."""
        whole: Derived[tuple[bool, Delegation]] = Derived(lambda read: self._explained(path, local, read))
        _, told = await whole.settled_when(lambda value: value[0], timeout_s)
        return told

    def _explained(self, path: Path, local: Dtab, read: Read) -> tuple[bool, Delegation]:
        is_complete = True

        def noting(live: Live[object]) -> object:
            nonlocal is_complete
            value = read(live)
            is_complete = is_complete and not isinstance(value, Pending)
            return value

        told = explain(read(self._base) + local, path, self.namers.reading(noting))
        return is_complete, told

    async def close(self) -> None:
        await self.namers.close()


def resolved(bound: Live[BindResult], namers: LiveNamers) -> Live[Resolution]:
    """A bound tree, joined with the addresses of its leaves."""
    known: weakref.WeakValueDictionary[Path, Live[State]] = weakref.WeakValueDictionary()

    def compute(read: Read) -> Resolution:
        tree: BindResult = read(bound)
        if not isinstance(tree, NameTree):
            return Resolution(tree, {})
        replicas: dict[Path, State] = {}
        for leaf in leaves(tree):
            if leaf.id not in replicas:
                live = known.get(leaf.id)
                if live is None:
                    live = known[leaf.id] = namers.replicas(leaf.id)
                replicas[leaf.id] = read(live)
        return Resolution(tree, replicas)

    return Derived(compute)
