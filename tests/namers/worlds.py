"""Small worlds for namers: one in memory that the test changes, and waiting for what a live value becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshcore.namers import Address, CatalogueNamer, Live, Replicas, Source, State
from meshcore.naming import Neg, Path, read_path

LONG_S = 20  # generous: a bound, not an expectation


class MemorySource(Source):
    """States that the test sets; while `trouble` is set, watchers break with it."""

    retry_s = (0.01,)

    def __init__(self, states: dict[str, State] | None = None, **options) -> None:
        super().__init__("memory", **options)
        self.states = {read_path(key): state for key, state in (states or {}).items()}
        self.trouble: Exception | None = None
        self.followed: list[Path] = []
        self._changed = asyncio.Condition()

    async def put(self, key: str, state: State) -> None:
        self.states[read_path(key)] = state
        await self.wake()

    async def break_with(self, trouble: Exception | None) -> None:
        self.trouble = trouble
        await self.wake()

    async def wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        self.followed.append(key)
        async with self._changed:
            while True:
                if self.trouble is not None:
                    raise self.trouble
                tell(self.states.get(key, Neg()))
                await self._changed.wait()


def memory_namer(source: MemorySource, prefix: str = "/#/memory") -> CatalogueNamer:
    return CatalogueNamer(
        "memory", read_path(prefix), source, lambda rest: (rest.take(1), rest.drop(1)) if rest else None
    )


def replicas(*ports: int) -> Replicas:
    return Replicas.of(Address("127.0.0.1", port) for port in ports)


def ports(state: State) -> list[int]:
    assert isinstance(state, Replicas), state
    return [address.port for address in state.addresses]


async def becomes(live: Live, is_good: Callable, timeout_s: float = LONG_S):
    """The first value that is good, within a generous time."""
    value = await live.settled_when(is_good, timeout_s)
    assert is_good(value), value
    return value


async def becomes_stale(live: Live, is_stale: bool = True) -> None:
    """Waits until the value's source is away, or is back."""
    async with asyncio.timeout(LONG_S):
        while (live.stale is not None) is not is_stale:
            await asyncio.sleep(0.005)


async def turns(count: int = 10) -> None:
    """Lets the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
