"""The names a proxy asked for, what is known of each, and what its proxy was told. On one loop; knows no stream.

A name is watched from the first request that needs it until the proxy says that nobody uses it any more. What is known on
disk serves at once when the control plane cannot be asked, and otherwise when it does not answer soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from meshcore import Binding, Lookup, Negative

from .answers import Answer, Endpoints
from .authority import Authority, authority_of
from .binding import binding_of, binding_outside, split_paths
from .outside import Outside
from .wire import Held

MAX_WATCHED = 10_000  # names; a client that makes names up costs the control plane no more than this
ANSWER_S = 0.25  # how long a control plane that is there may take before what lies on disk is used
REFUSED_S = 30.0  # a refused name is asked for again after this
FULL_S = 5.0

Key = tuple[str, str, str]  # route, name and overrides, as the proxy has them
Told = tuple[str, str, str, Binding | Negative, float | None]
_log = logging.getLogger("meshcore.agent")


class Watched:
    """One path: what is held of it, and who wants to know."""

    __slots__ = ("children", "held", "is_live", "keys", "number", "parents", "path")

    def __init__(self, path: str, number: int, answer: Answer | None) -> None:
        self.path = path
        self.number = number
        self.held = Held(answer)
        self.is_live = False
        """The control plane has spoken about it since this proxy started; else it is from disk."""
        self.keys: dict[Key, None] = {}
        self.parents: set[str] = set()
        """Paths whose rules lead here."""
        self.children: set[str] = set()
        """Paths that its own rules lead to."""


class Watching:
    """tell: hands bindings to the proxy. began, ended: tell the stream. http_routes: those that read requests."""

    def __init__(
        self,
        tell: Callable[[list[Told]], None],
        *,
        saved: Mapping[str, Answer],
        http_routes: Iterable[str],
        falls_back: bool,
        outside: Outside,
        is_connected: Callable[[], bool],
    ) -> None:
        self._tell = tell
        self._saved = dict(saved)
        self._http_routes = frozenset(http_routes)
        self._falls_back = falls_back
        self._outside = outside
        self._is_connected = is_connected
        self._watched: dict[str, Watched] = {}
        self._by_number: dict[int, Watched] = {}
        self._number = 0
        self.on_began: Callable[[Watched], None] = lambda _: None
        self.on_ended: Callable[[Watched], None] = lambda _: None
        self.is_dirty = False
        """Something is known that is not on disk yet."""

    # --- what the proxy says ---

    def look_up(self, lookups: Iterable[Lookup]) -> None:
        """Answer these as soon as something is known of them."""
        told: list[Told] = []
        for lookup in lookups:
            key = (lookup.route, lookup.name, lookup.overrides)
            authority = _meant(lookup.name)
            if authority is None:
                told.append((*key, Negative(reason="name_invalid", fall_back=self._falls_back), REFUSED_S))
                continue
            watched = self._watched.get(authority.path)
            if watched is None:
                if len(self._watched) >= MAX_WATCHED:
                    told.append((*key, Negative(reason="name_unavailable"), FULL_S))
                    continue
                watched = self._begin(authority.path)
            watched.keys[key] = None
            if watched.is_live:
                told += self._bindings(watched, [key])
            elif watched.held.answer is not None:
                if self._is_connected():
                    asyncio.get_running_loop().call_later(ANSWER_S, self._use_saved, watched)
                else:
                    told += self._bindings(watched, [key])
        self._hand_over(told)

    def forget(self, keys: Iterable[Key]) -> None:
        """The proxy dropped these names."""
        for key in keys:
            authority = _meant(key[1])
            watched = self._watched.get(authority.path) if authority is not None else None
            if watched is not None:
                watched.keys.pop(key, None)
        self._sweep()

    # --- what the control plane says ---

    def changed(self, changes: Iterable[Any]) -> None:
        """Changes as they came. A number that is not known is of a name that was just dropped."""
        touched: dict[str, None] = {}
        for change in changes:
            watched = self._by_number.get(change.id)
            if watched is None:
                continue
            if change.HasField("failed"):
                self._refused(watched, change.failed.code, change.failed.message)
                continue
            was_live, watched.is_live = watched.is_live, True
            if watched.held.apply(change) or not was_live:
                self._follow_splits(watched)
                touched[watched.path] = None
                touched.update(dict.fromkeys(watched.parents))
            self.is_dirty = True
        told: list[Told] = []
        for path in touched:
            if (found := self._watched.get(path)) is not None and found.held.answer is not None:
                told += self._bindings(found, found.keys)
        self._hand_over(told)

    def all(self) -> list[Watched]:
        """Every name that is watched, for a stream that begins."""
        return list(self._watched.values())

    def answers(self) -> dict[str, Answer]:
        """What is worth keeping: of names in use, and of those from disk that nobody asked for yet."""
        known = {path: watched.held.answer for path, watched in self._watched.items() if watched.held.answer is not None}
        return {**{path: answer for path, answer in self._saved.items() if path not in known}, **known}

    # --- inside ---

    def _begin(self, path: str) -> Watched:
        self._number += 1
        watched = Watched(path, self._number, self._saved.get(path))
        self._watched[path] = self._by_number[self._number] = watched
        self.on_began(watched)
        if watched.held.answer is not None:
            self._follow_splits(watched)
        return watched

    def _sweep(self) -> None:
        """Let go of every name that no key leads to, by way of rules too: those may lead in a circle."""
        wanted: set[str] = set()
        reached = [path for path, watched in self._watched.items() if watched.keys]
        while reached:
            path = reached.pop()
            if path in self._watched and path not in wanted:
                wanted.add(path)
                reached += self._watched[path].children
        for path in self._watched.keys() - wanted:
            self._end(self._watched[path])

    def _end(self, watched: Watched) -> None:
        del self._watched[watched.path], self._by_number[watched.number]
        if watched.held.answer is not None:
            self._saved.pop(watched.path, None)
            self._saved[watched.path] = watched.held.answer  # last: the oldest are the first to be left out
        for path in watched.children & self._watched.keys():
            self._watched[path].parents.discard(watched.path)
        self._outside.drop(watched.path)
        self.on_ended(watched)

    def _follow_splits(self, watched: Watched) -> None:
        """Watch the names its rules lead to, and let go of those they no longer do."""
        assert watched.held.answer is not None
        authorities = (authority_of(path) for path in split_paths(watched.held.answer.policy))
        wanted = {authority.path for authority in authorities if authority is not None} - {watched.path}
        before, watched.children = watched.children, wanted
        for path in wanted - before:
            if path not in self._watched and len(self._watched) < MAX_WATCHED:
                self._begin(path)
            if path in self._watched:
                self._watched[path].parents.add(watched.path)
        for path in (before - wanted) & self._watched.keys():
            self._watched[path].parents.discard(watched.path)
        if before - wanted:
            self._sweep()

    def _use_saved(self, watched: Watched) -> None:
        if not watched.is_live and self._watched.get(watched.path) is watched:
            self._hand_over(list(self._bindings(watched, watched.keys)))

    def _refused(self, watched: Watched, code: int, message: str) -> None:
        _log.info("%s was refused: %s", watched.path, message)
        reason = {3: "name_invalid", 7: "name_refused"}.get(code, "name_unavailable")
        # A name that cannot be one of the mesh is somebody else's.
        if code == 3 and not self._falls_back:
            self._outside.follow(watched.path, lambda: self._resolved(watched))
            return
        negative = Negative(reason=reason, fall_back=self._falls_back and code == 3)
        told: list[Told] = [(*key, negative, REFUSED_S) for key in watched.keys]
        watched.keys.clear()
        if watched.parents:
            watched.held.answer, watched.is_live = Answer(Endpoints(exists=False)), True
            for path in watched.parents & self._watched.keys():
                told += self._bindings(self._watched[path], self._watched[path].keys)
        else:
            self._end(watched)
        self._hand_over(told)

    def _bindings(self, watched: Watched, keys: Iterable[Key]) -> Iterator[Told]:
        answer = watched.held.answer
        assert answer is not None
        if not answer.endpoints.exists and not answer.policy.rules:
            yield from self._elsewhere(watched, list(keys))
            return
        self._outside.drop(watched.path)
        others: dict[str, Answer] = {}
        for path in split_paths(answer.policy):
            authority = authority_of(path)
            other = self._watched.get(authority.path) if authority is not None else None
            if other is not None and other.held.answer is None:
                return  # told when it is known: half a split would send its share to nobody
            if other is not None and other.held.answer is not None:
                others[path] = other.held.answer
        for key in keys:
            binding = binding_of(watched.path, answer, others, carries_http=key[0] in self._http_routes)
            yield (*key, binding, None)

    def _elsewhere(self, watched: Watched, keys: list[Key]) -> Iterator[Told]:
        """Of a name that is not of the mesh: where the client was going, else where its system would have sent it."""
        if self._falls_back:
            for key in keys:
                yield (*key, Negative(reason="name_unknown", fall_back=True), None)
            return
        self._outside.follow(watched.path, lambda: self._resolved(watched))
        yield from self._outside_bindings(watched, keys)

    def _resolved(self, watched: Watched) -> None:
        if self._watched.get(watched.path) is watched:
            self._hand_over(list(self._outside_bindings(watched, list(watched.keys))))

    def _outside_bindings(self, watched: Watched, keys: list[Key]) -> Iterator[Told]:
        addresses = self._outside.addresses(watched.path)
        if addresses is None:
            return  # not known yet: the requests wait on
        for key in keys:
            if addresses:
                binding = binding_outside(watched.path, addresses, carries_http=key[0] in self._http_routes)
                yield (*key, binding, None)
            else:
                yield (*key, Negative(reason="name_unknown"), None)

    def _hand_over(self, told: list[Told]) -> None:
        if told:
            self._tell(told)


def _meant(name: str) -> Authority | None:
    """What a name of the proxy stands for; constant ones are written as paths."""
    return authority_of(name.removeprefix("/"))
