"""Live namers: what a name below a prefix is now, and the addresses behind it. Watching is a source's; binding is above.

Source for the order: linkerd ConfiguredDtabNamer.scala. Several namers may share a prefix, or stand below one another:
each is asked in order, `~` passes on to the next, while one that is pending or fails does not; the system namer is last.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..naming import Answer, Bound, Failed, Leaf, Namers, Neg, Path
from ..naming import Namer as PureNamer
from ..naming.transformers import strip_transformers
from .inet import InetNamer
from .live import Derived, Live, Read, fixed
from .resolving import with_addresses
from .source import Source, SourceHealth
from .states import Replicas, State

_NEG: Neg[Any] = Neg()


class NamerHealth(msgspec.Struct, frozen=True):
    """How one namer does."""

    kind: str
    prefix: str
    source: SourceHealth


class LiveNamer(ABC):
    """Names below one prefix."""

    kind: str
    prefix: Path

    @abstractmethod
    def answer(self, rest: Path, read: Read) -> Answer:
        """What the rest of a path is, by what the live values that it reads say at this moment."""

    @abstractmethod
    def replicas(self, rest: Path) -> Live[State]:
        """The addresses of a bound name, whose id is the prefix and `rest`."""

    def lookup(self, rest: Path) -> Live[Answer]:
        """The answer, live."""
        return Derived(lambda read: self.answer(rest, read))

    @property
    def source(self) -> Source | None:
        """What it watches; None for one that knows everything already."""
        return None

    async def close(self) -> None:
        """Ends every watch."""
        if self.source is not None:
            await self.source.close()


class CatalogueNamer(LiveNamer):
    """A namer over a source of address sets: a name is bound while its set is not empty, otherwise it is `~`.

    `cut` takes the rest of a path apart: the end of the id, which is the key of the source, and the residual. Who asks for the
    replicas of something that `cut` never makes (ids come in requests) gets `~`.
    """

    def __init__(self, kind: str, prefix: Path, source: Source, cut: Callable[[Path], tuple[Path, Path] | None]) -> None:
        self.kind = kind
        self.prefix = prefix
        self._source = source
        self._cut = cut

    @property
    def source(self) -> Source:
        return self._source

    def answer(self, rest: Path, read: Read) -> Answer:
        found = self._cut(rest)
        if found is None:
            return _NEG
        end, residual = found
        state: State = read(self._source.cell(self.key(end)))
        if isinstance(state, Replicas):
            return Leaf(Bound(self.prefix + end, residual)) if state.addresses else _NEG
        return state

    def replicas(self, rest: Path) -> Live[State]:
        return self._source.cell(self.key(rest)) if self._cut(rest) == (rest, Path()) else fixed(_NEG)

    def key(self, end: Path) -> Path:
        """The key of the source for what an id ends with."""
        return end


class PureLiveNamer(LiveNamer):
    """A namer whose answers never change and bind nothing: rewriting ones."""

    def __init__(self, kind: str, prefix: Path, namer: PureNamer) -> None:
        self.kind = kind
        self.prefix = prefix
        self._namer = namer

    def answer(self, rest: Path, read: Read) -> Answer:
        return self._namer(rest)

    def replicas(self, rest: Path) -> Live[State]:
        return fixed(_NEG)


class LiveNamers:
    """Namers in the order in which they are asked, and behind them the system namer."""

    def __init__(self, namers: Iterable[LiveNamer] = (), *, inet: InetNamer | None = None) -> None:
        self.asked = tuple(namers)
        self.inet = inet or InetNamer()

    @classmethod
    def from_configuration(cls, namers: Iterable[LiveNamer], *, inet: InetNamer | None = None) -> LiveNamers:
        """In the order of Linkerd's file, where the one at the bottom is asked first."""
        return cls(tuple(namers)[::-1], inet=inet)

    def reading(self, read: Read) -> Namers:
        """All of them as pure namers for one computation."""

        def asks(namer: LiveNamer) -> PureNamer:
            return lambda rest: namer.answer(rest, read)

        return Namers([(namer.prefix, asks(namer)) for namer in self.asked])

    def replicas(self, id: Path) -> Live[State]:
        """The addresses of a bound name, whatever transformers stand in front of it. Every host is an IP address."""
        return with_addresses(self._told(strip_transformers(id)), self.inet)

    def _told(self, id: Path) -> Live[State]:
        live = self.inet.replicas(id)
        if live is not None:
            return live
        found = [(one, id.drop(len(one.prefix))) for one in self.asked if id.starts_with(one.prefix)]
        if not found:
            return fixed(Failed(f"no namer knows {id}"))
        if len(found) == 1:
            return found[0][0].replicas(found[0][1])

        def first(read: Read) -> State:
            state: State = _NEG
            for namer, rest in found:
                state = read(namer.replicas(rest))
                if not isinstance(state, Neg):
                    break
            return state

        return Derived(first)

    def health(self) -> tuple[NamerHealth, ...]:
        found = [(one.kind, str(one.prefix), one.source) for one in self.asked]
        found.append(("inet", "/$/inet", self.inet.source))
        return tuple(NamerHealth(kind, prefix, source.health()) for kind, prefix, source in found if source is not None)

    async def close(self) -> None:
        await asyncio.gather(self.inet.close(), *(namer.close() for namer in self.asked))
