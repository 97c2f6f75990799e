"""Live values: what is known now, and a call when it changes. One event loop; knows neither names nor sources.

Rules that hold for each subscriber:
  newest       a change is told by a call without a value, so whoever is slow reads the newest next and never an old one
  last         the last change is always told: between it and the call nothing can get lost
  coalesced    any number of changes in one turn of the loop are one call
  on demand    the first subscriber starts what feeds the value, the last one to leave stops it

Shape as in Twitter's Var and Activity, without their updates in the middle of an update: all calls come from the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..naming import Pending

T = TypeVar("T")
U = TypeVar("U")


class Stale(msgspec.Struct, frozen=True):
    """The source of a value does not answer any more: since when (as time.time), and why."""

    since: float
    why: str


class Live(Generic[T]):
    """One value that changes."""

    def __init__(self, now: T) -> None:
        self._now = now
        self._subscribers: dict[object, Callable[[], None]] = {}
        self._is_told = True

    @property
    def now(self) -> T:
        """The present value; reading it starts nothing."""
        return self._now

    @property
    def stale(self) -> Stale | None:
        """Whether the present value may be old."""
        return None

    @property
    def is_followed(self) -> bool:
        return bool(self._subscribers)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Calls back from the loop after each change, until the function that this returns is called."""
        key = object()
        is_first = not self._subscribers
        self._subscribers[key] = on_change
        if is_first:
            self._begin()

        def unsubscribe() -> None:
            if self._subscribers.pop(key, None) is not None and not self._subscribers:
                self._end()

        return unsubscribe

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[T]]:
        """The present value and every later one that is another, for as long as the block lasts."""
        wake = asyncio.Event()
        unsubscribe = self.subscribe(wake.set)
        values = self._values(wake)
        try:
            yield values
        finally:
            unsubscribe()
            await values.aclose()

    async def _values(self, wake: asyncio.Event) -> Any:
        told: object = _NOTHING
        while True:
            wake.clear()
            if told is _NOTHING or self._now_differs(told):
                told = self.now
                yield told
            else:
                await wake.wait()

    def _now_differs(self, told: object) -> bool:
        return bool(self.now != told)

    async def settled(self, timeout_s: float) -> T:
        """The first value that is not pending; pending itself when there is none in time."""
        return await self.settled_when(lambda value: not is_pending(value), timeout_s)

    async def settled_when(self, is_good: Callable[[T], bool], timeout_s: float) -> T:
        """The first value that is good; the last one when none is in time."""
        async with self.watch() as values:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    async for value in values:
                        if is_good(value):
                            return value
            return self.now

    def map(self, change: Callable[[T], U]) -> Derived[U]:
        """What `change` makes of each value."""
        return Derived(lambda read: change(read(self)))

    # -- for what feeds it

    def _set(self, value: T) -> None:
        if value != self._now:
            self._now = value
            self._tell()

    def _tell(self) -> None:
        if self._is_told and self._subscribers:
            self._is_told = False
            asyncio.get_running_loop().call_soon(self._call)

    def _call(self) -> None:
        self._is_told = True
        for key, on_change in tuple(self._subscribers.items()):
            if key in self._subscribers:  # none may be called after it has unsubscribed, not even by its neighbour
                on_change()

    def _begin(self) -> None:
        """The first subscriber came."""

    def _end(self) -> None:
        """The last one left."""


_NOTHING = object()


def is_pending(value: object) -> bool:
    return isinstance(value, Pending) or bool(getattr(value, "is_pending", False))


class Cell(Live[T]):
    """A live value that its owner sets."""

    def set(self, value: T) -> None:
        self._set(value)


def fixed(value: T) -> Live[T]:
    """A value that never changes."""
    return Live(value)


Read = Callable[[Live[Any]], Any]
"""Reads a live value on behalf of a computation, which is done again when that changes."""


class Derived(Live[T]):
    """A value computed of other live values, again whenever one that the last computation read has changed.

    While nobody follows it, it follows nobody: `now` is then computed of what the others know at that moment.
    """

    def __init__(self, compute: Callable[[Read], T]) -> None:
        super().__init__(cast(T, None))
        self._compute = compute
        self._read: dict[Live[Any], Callable[[], None]] = {}
        self._reading: dict[Live[Any], Callable[[], None]] = {}
        self._is_current = True
        self.computations = 0

    @property
    def now(self) -> T:
        return self._now if self._subscribers else self._compute(lambda live: live.now)

    @property
    def stale(self) -> Stale | None:
        """Of the values it was computed of, the one that is stale for the longest time."""
        found = [live.stale for live in self._read]
        return min((one for one in found if one is not None), key=lambda one: one.since, default=None)

    def _begin(self) -> None:
        self._now = self._computed()

    def _end(self) -> None:
        read, self._read = self._read, {}
        for unsubscribe in read.values():
            unsubscribe()

    def _computed(self) -> T:
        """Computes, and follows what was read now before it lets go of what was read before."""
        self._reading = {}
        self.computations += 1
        value = self._compute(self._follow)
        before, self._read, self._reading = self._read, self._reading, {}
        for live, unsubscribe in before.items():
            if live not in self._read:
                unsubscribe()
        return value

    def _follow(self, live: Live[U]) -> U:
        if live not in self._reading:
            self._reading[live] = self._read.get(live) or live.subscribe(self._on_change)
        return live.now

    def _on_change(self) -> None:
        if self._is_current:
            self._is_current = False
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        self._is_current = True
        if self._subscribers:
            self._set(self._computed())
