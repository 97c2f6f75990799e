"""What both clients of a namerd share: trees and addresses that are watched, joined to what a name resolves to."""

from __future__ import annotations

import asyncio
import time
import weakref
from abc import abstractmethod
from typing import Any

from ..naming import EMPTY_DTAB, BindResult, Dtab, Failed, NameTree, Path, Pending, leaves
from ..namers.inet import InetNamer, said_by
from ..namers.interpreter import Interpreter, Resolution
from ..namers.live import Derived, Live, Read
from ..namers.resolving import with_addresses
from ..namers.source import SourceHealth
from ..namers.states import State
from .watched import Tally, Tell, Watched


class RemoteInterpreter(Interpreter):
    """A namerd. One watch for each name that is followed, and one for each id, whoever asks for it.

    `base` is a table of this process; under a namerd it overrides what the namespace says, as in Linkerd.
    """

    def __init__(self, where: str, base: Dtab = EMPTY_DTAB) -> None:
        self.where = where
        self._base = base
        self._inet = InetNamer()
        self._tally = Tally()
        self._trees: weakref.WeakValueDictionary[tuple[Path, Dtab], Watched[BindResult]] = weakref.WeakValueDictionary()
        self._told: weakref.WeakValueDictionary[Path, Watched[State]] = weakref.WeakValueDictionary()
        self._addresses: weakref.WeakValueDictionary[Path, Live[State]] = weakref.WeakValueDictionary()
        self._watched: weakref.WeakSet[Watched[Any]] = weakref.WeakSet()
        self._followed: weakref.WeakValueDictionary[tuple[Path, Dtab], Live[Resolution]] = weakref.WeakValueDictionary()

    @abstractmethod
    async def watch_tree(self, path: Path, dtab: Dtab, tell: Tell[BindResult]) -> None:
        """Tell the bound tree of a name, and every later one, until it breaks."""

    @abstractmethod
    async def watch_addresses(self, id: Path, tell: Tell[State]) -> None:
        """The same for the addresses of a bound id."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close what was opened."""

    def follow(self, path: Path, local: Dtab = EMPTY_DTAB) -> Live[Resolution]:
        live = self._followed.get((path, local))
        if live is None:
            tree = self._tree(path, local)
            live = self._followed[path, local] = Derived(lambda read: self._resolution(tree, read))
        return live

    def addresses(self, id: Path) -> Live[State]:
        """Of one bound id. Every host is an IP address."""
        live = self._addresses.get(id)
        if live is None:
            live = self._addresses[id] = with_addresses(self._watch(id), self._inet)
        return live

    def learn(self, id: Path, state: State) -> Watched[State]:
        """What its tree said of an id. It counts while the id is not watched; keep what this returns until it is."""
        watched = self._watch(id)
        watched.learn(state)
        return watched

    def _watch(self, id: Path) -> Watched[State]:
        # A watch lives on for a while after the last who follows it: traffic that moves back finds it.
        watched = self._told.get(id)
        if watched is None:
            what = f"{id} of {self.where}"
            watched = Watched(what, Pending(), lambda tell: self.watch_addresses(id, tell), Failed, self._tally)
            self._watched.add(watched)
            self._told[id] = watched
        return watched

    def health(self) -> SourceHealth:
        watched = [one for one in self._watched if one.is_watching]
        stale = [one.stale for one in watched if one.stale is not None]
        oldest_s = time.time() - min(one.since for one in stale) if stale else 0.0
        return SourceHealth(len(watched), len(stale), max(0.0, oldest_s), self._tally.updates, self._tally.failures)

    async def close(self) -> None:
        for watched in tuple(self._watched):
            watched.stop()
        await asyncio.gather(self._inet.close(), self.disconnect())

    def _tree(self, path: Path, local: Dtab) -> Live[BindResult]:
        dtab = self._base + local
        live = self._trees.get((path, dtab))
        if live is None:
            what = f"{path} of {self.where}"
            live = Watched(what, Pending(), lambda tell: self.watch_tree(path, dtab, tell), Failed, self._tally)
            self._watched.add(live)
            self._trees[path, dtab] = live
        return live

    def _resolution(self, tree: Live[BindResult], read: Read) -> Resolution:
        found: BindResult = read(tree)
        if not isinstance(found, NameTree):
            return Resolution(found, {})
        states: dict[Path, State] = {}
        for leaf in leaves(found):
            # An id that is an address needs no second question: traffic moves to a new one as soon as the tree is here.
            said = said_by(leaf.id)
            states[leaf.id] = read(self.addresses(leaf.id)) if said is None else said
        return Resolution(found, states)
