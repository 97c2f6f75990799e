"""Binds the names a proxy asks for, and again whenever what they are bound to changes. One thread, one event loop.

The proxy asks once per name and is told by `Proxy.bind`; from then on every change is told unasked, all changes of one
turn of the loop in one hand-over. Names that nobody uses any more are let go. What was told stays in use until something
better is known: while a namerd is away, or a new branch of a name has not yet said where it is.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from ..bindings import Binding, Lookup, Negative
from ..errors import EngineError
from ..naming import EMPTY_DTAB, Dtab, Failed, NameTree, NamingError, Path, Pending, leaves, read_dtab, read_path
from ..namers.interpreter import Interpreter, LocalInterpreter, Resolution
from ..namers.live import Live
from ..namers.source import SourceHealth
from ..namers.states import has_addresses
from .bound import bound, refusal
from .nodes import OnNodes
from .remote import RemoteInterpreter
from .rules import Rules

Key = tuple[str, str, str]
"""Route, name and the table of the request, as the proxy writes them."""

# A branch that is new and has not said where it is gets so long before the rest is told without it.
BRANCH_PATIENCE_S = 1.0
# What is no name stays none; what cannot be bound is told again when it can. An answer that is never renewed would
# be kept for ever if this thread died, so it ends.
NEGATIVE_TTL_S = 3600.0
_STOP_PATIENCE_S = 10.0
_ANSWER_PATIENCE_S = 5.0

log = logging.getLogger("meshcore.binder")


class Bindable(Protocol):
    """Of a Proxy, what a binder needs."""

    def on_lookup(self, function: Callable[[list[Lookup]], None]) -> Callable[[list[Lookup]], None]: ...
    def on_idle(self, function: Callable[[list[Key]], None]) -> Callable[[list[Key]], None]: ...
    def bind_many(self, bindings: Iterable[tuple[str, str, str, Binding | Negative, float | None]]) -> None: ...


class Followed:
    """One name that is followed."""

    __slots__ = ("key", "live", "local", "name", "patience", "rules", "told", "unsubscribe")

    def __init__(self, key: Key, rules: Rules, name: Path, local: Dtab) -> None:
        self.key = key
        self.rules = rules
        self.name = name
        self.local = local
        self.told: Binding | Negative | None = None
        self.live: Live[Resolution] = rules.interpreter.follow(name, local)
        self.unsubscribe: Callable[[], None] = _nothing
        self.patience: asyncio.TimerHandle | None = None

    def end(self) -> None:
        self.unsubscribe()
        if self.patience is not None:
            self.patience.cancel()


class BinderCounts(msgspec.Struct, frozen=True):
    """What a binder does and has done."""

    names: int = 0
    asked: int = 0
    told: int = 0
    let_go: int = 0


class SourceRow(msgspec.Struct, frozen=True):
    """How one source of answers does: a namer, or a namerd."""

    route: str
    source: str
    keys: int
    stale_keys: int
    oldest_stale_s: float
    updates: int
    failures: int


class Binder:
    """Serves the lookups of one proxy. `make` runs on the binder's loop and returns the rules of every lookup route."""

    def __init__(self, proxy: Bindable) -> None:
        self._proxy = proxy
        self._rules: dict[str, Rules] = {}
        self._followed: dict[Key, Followed] = {}
        self._changed: dict[Key, Followed] = {}
        self._is_telling = False
        self._asked = self._told = self._let_go = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="meshcore-binder", daemon=True)
        self._end: Callable[[], Awaitable[None]] | None = None

    # --- life ---

    def start(self, make: Callable[[], Awaitable[Sequence[Rules]]]) -> None:
        """Begin to answer. Before the proxy starts, so that no lookup comes to nobody. Raises what `make` raises."""
        self._thread.start()
        try:
            self.use(make)
        except BaseException:
            self.stop()
            raise
        self._proxy.on_lookup(self._on_lookup)
        self._proxy.on_idle(self._on_idle)

    def use(self, make: Callable[[], Awaitable[Sequence[Rules]]]) -> None:
        """Other rules, from now on. Names in use are bound anew; until that is known the old bindings stay."""
        asyncio.run_coroutine_threadsafe(self._use(make), self._loop).result()

    def stop(self) -> None:
        """Stop following. The proxy keeps what it was told."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_STOP_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_PATIENCE_S)

    def counts(self) -> BinderCounts:
        return BinderCounts(len(self._followed), self._asked, self._told, self._let_go)

    def sources(self) -> list[SourceRow]:
        """Every source of every route, once. From any thread but the binder's."""
        if not self._thread.is_alive():
            return []
        return asyncio.run_coroutine_threadsafe(self._sources(), self._loop).result(_ANSWER_PATIENCE_S)

    async def _sources(self) -> list[SourceRow]:
        # Namers that several routes share are told once, for the first of them.
        told: dict[int, list[SourceRow]] = {}
        for rules in self._rules.values():
            owner, sources = _sources_of(rules.interpreter)
            told.setdefault(
                id(owner),
                [
                    SourceRow(rules.route, name, one.keys, one.stale_keys, one.oldest_stale_s, one.updates, one.failures)
                    for name, one in sources
                ],
            )
        return [row for rows in told.values() for row in rows]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            # gRPC has one queue of events for all loops of a process, and goes on calling those it has seen: in the
            # others each such call of a closed one would be an error.
            if "grpc.aio" not in sys.modules:
                self._loop.close()

    async def _use(self, make: Callable[[], Awaitable[Sequence[Rules]]]) -> None:
        rules = {one.route: one for one in await make()}
        before, self._rules = self._rules, rules
        for key, old in tuple(self._followed.items()):
            # The new one follows before the old one ends: what both watch is not asked for again.
            if key[0] in rules:
                self._follow(key, told=old.told)
            else:
                del self._followed[key]
            old.end()
        await _close_all(before.values(), but=rules.values())

    async def _close(self) -> None:
        for one in self._followed.values():
            one.end()
        self._followed.clear()
        self._changed.clear()
        await _close_all(self._rules.values())
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # --- asked, on threads of the proxy ---

    def _on_lookup(self, lookups: list[Lookup]) -> None:
        keys = [(one.route, one.name, one.overrides) for one in lookups]
        self._loop.call_soon_threadsafe(self._ask, keys)

    def _on_idle(self, keys: list[Key]) -> None:
        self._loop.call_soon_threadsafe(self._let_idle_go, list(keys))

    # --- following, on the loop ---

    def _ask(self, keys: list[Key]) -> None:
        for key in keys:
            self._asked += 1
            followed = self._followed.get(key)
            if followed is None:
                self._follow(key)
            else:
                # The proxy has let it go and asks again: it is told again, whatever it was told before.
                followed.told = None
                self._note(followed)

    def _let_idle_go(self, keys: list[Key]) -> None:
        for key in keys:
            followed = self._followed.pop(key, None)
            if followed is not None:
                self._let_go += 1
                followed.end()

    def _follow(self, key: Key, told: Binding | Negative | None = None) -> None:
        route, text, overrides = key
        rules = self._rules.get(route)
        if rules is None:
            self._tell([(key, refusal("name_unavailable", f"{text}: nobody binds the names of route {route}"))])
            return
        try:
            name = read_path(text)
            local = read_dtab(overrides) if overrides else EMPTY_DTAB
        except NamingError as error:
            self._tell([(key, refusal("name_invalid", str(error)))])
            return
        followed = Followed(key, rules, name, local)
        followed.told = told
        self._followed[key] = followed
        followed.unsubscribe = followed.live.subscribe(lambda: self._note(followed))
        self._note(followed)

    def _note(self, followed: Followed) -> None:
        """Tell it before the loop waits again, together with all that changes until then."""
        self._changed[followed.key] = followed
        if not self._is_telling:
            self._is_telling = True
            self._loop.call_soon(self._tell_changed)

    def _tell_changed(self) -> None:
        self._is_telling = False
        changed, self._changed = self._changed, {}
        news: list[tuple[Key, Binding | Negative]] = []
        for followed in changed.values():
            if self._followed.get(followed.key) is not followed:
                continue  # let go, or followed anew, since it was noted
            found = followed.live.now
            if found.is_pending or (followed.patience is None and _waits(found)):
                if not found.is_pending:
                    followed.patience = self._loop.call_later(BRANCH_PATIENCE_S, self._note, followed)
                continue
            if not _waits(found) and followed.patience is not None:
                followed.patience.cancel()
                followed.patience = None
            if isinstance(followed.told, Binding) and _cannot_tell(found):
                continue  # who should know fails: what was told last is better than nothing
            answer = self._bound(followed, found)
            if answer != followed.told:
                followed.told = answer
                news.append((followed.key, answer))
        self._tell(news)

    def _bound(self, followed: Followed, found: Resolution) -> Binding | Negative:
        try:
            return bound(followed.rules, followed.name, followed.local, found)
        except Exception as error:  # a setting that only this name brings to light must not end all others
            log.exception("cannot bind %s", followed.name)
            return refusal("name_unavailable", f"{followed.name}: {error}")

    def _tell(self, news: list[tuple[Key, Binding | Negative]]) -> None:
        if not news:
            return
        self._told += len(news)
        rows = [(*key, one, NEGATIVE_TTL_S if isinstance(one, Negative) else None) for key, one in news]
        try:
            self._proxy.bind_many(rows)
        except EngineError:
            pass  # stopped meanwhile: nobody is left who would ask
        except Exception:
            log.exception("the proxy takes none of %d bindings together; one by one", len(rows))
            for row in rows:
                self._tell_one(row)

    def _tell_one(self, row: tuple[str, str, str, Binding | Negative, float | None]) -> None:
        try:
            self._proxy.bind_many([row])
        except Exception as error:
            log.error("%s cannot be bound: %s", row[1], error)
            route, name, overrides = row[:3]
            why = refusal("name_unavailable", f"{name}: {error}")
            self._proxy.bind_many([(route, name, overrides, why, NEGATIVE_TTL_S)])


def _sources_of(interpreter: Interpreter) -> tuple[object, list[tuple[str, SourceHealth]]]:
    """Who owns them, and each with its name."""
    if isinstance(interpreter, OnNodes):
        interpreter = interpreter.inner
    if isinstance(interpreter, LocalInterpreter):
        return interpreter.namers, [(one.prefix, one.source) for one in interpreter.namers.health()]
    if isinstance(interpreter, RemoteInterpreter):
        return interpreter, [(interpreter.where, interpreter.health())]
    return interpreter, []


def _waits(found: Resolution) -> bool:
    """Does some branch still have to say where it is?"""
    if not isinstance(found.tree, NameTree):
        return isinstance(found.tree, Pending)
    return any(isinstance(found.replicas.get(leaf.id), Pending) for leaf in leaves(found.tree))


def _cannot_tell(found: Resolution) -> bool:
    """Has it failed, in whole or so far that no address is known?"""
    if isinstance(found.tree, Failed):
        return True
    states = list(found.replicas.values())
    return any(isinstance(state, Failed) for state in states) and not any(map(has_addresses, states))


async def _close_all(rules: Iterable[Rules], but: Iterable[Rules] = ()) -> None:
    kept = {id(one.interpreter) for one in but}
    closing = {id(one.interpreter): one.interpreter for one in rules if id(one.interpreter) not in kept}
    await asyncio.gather(*(one.close() for one in closing.values()), return_exceptions=True)


def _nothing() -> None:
    pass
