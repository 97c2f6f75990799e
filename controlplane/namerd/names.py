"""Names bound under the tables of the book: one interpreter a namespace, shared by all who ask. Speaks no protocol."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

import msgspec

from meshcore.namers import Derived, Live, LiveNamers, LocalInterpreter, Resolution, State
from meshcore.naming import EMPTY_DTAB, Delegation, Dtab, Path

from .book import Book, Namespace

T = TypeVar("T")

BINDING_S = 10.0
"""How long a question waits for namers that have not answered (Linkerd's bindingTimeoutMs)."""
DELEGATING_S = 2.0


class Key(msgspec.Struct, frozen=True):
    """What is followed: a name under a namespace, overridden by `local`."""

    namespace: str
    path: Path
    local: Dtab = EMPTY_DTAB
    keeps_alternatives: bool = False


class Names:
    """Binds for everybody."""

    def __init__(self, book: Book, namers: LiveNamers) -> None:
        self.book = book
        self.namers = namers
        self._interpreters: weakref.WeakValueDictionary[tuple[str, bool], LocalInterpreter] = weakref.WeakValueDictionary()
        self._shared: weakref.WeakValueDictionary[tuple[object, Key], Live[object]] = weakref.WeakValueDictionary()

    def interpreter(self, namespace: str, *, keeps_alternatives: bool = False) -> LocalInterpreter:
        """A namespace without a table binds as an empty one, and follows the table that it may get."""
        key = (namespace, keeps_alternatives)
        found = self._interpreters.get(key)
        if found is None:
            known = self.book.namespace(namespace)
            found = _OfNamespace(self.namers, known, keeps_alternatives=keeps_alternatives)
            self._interpreters[key] = found
        return found

    def follow(self, key: Key) -> Live[Resolution]:
        interpreter = self.interpreter(key.namespace, keeps_alternatives=key.keeps_alternatives)
        return interpreter.follow(key.path, key.local)

    def shared(self, key: Key, worded: Callable[[Resolution], T]) -> Live[T]:
        """What `worded` makes of each resolution, made once for all who follow the same name."""
        found = self._shared.get((worded, key))
        if found is None:
            followed = self.follow(key)
            found = self._shared[worded, key] = Derived(lambda read: worded(read(followed)))
        return found  # type: ignore[return-value]

    def replicas(self, id: Path) -> Live[State]:
        return self.namers.replicas(id)

    async def explain(self, key: Key) -> tuple[Delegation, dict[str, State]]:
        """Every alternative of a name, and the addresses of those that are bound."""
        told = await self.interpreter(key.namespace).explain(key.path, key.local, DELEGATING_S)
        replicas: dict[str, State] = {}
        for leaf in _leaves(told):
            replicas[str(leaf)] = await self.replicas(leaf).settled(DELEGATING_S)
        return told, replicas


class _OfNamespace(LocalInterpreter):
    """Holds its namespace, which is what the book feeds: all that it makes hold it in turn."""

    def __init__(self, namers: LiveNamers, namespace: Namespace, *, keeps_alternatives: bool) -> None:
        super().__init__(namers, namespace.dtab, keeps_alternatives=keeps_alternatives)
        self.namespace = namespace


def _leaves(told: Delegation) -> set[Path]:
    found = {told.bound.id} if told.bound is not None else set()
    for child in told.children:
        found |= _leaves(child)
    return found

