"""Namers: who is asked when the table says nothing, and in which order. They answer at once; watching is not done here.

Source: linkerd ConfiguredDtabNamer.scala, NamerInitializersTest. A namer is asked for what comes after its prefix. One
that answers Neg passes on to the next; at last the system namer is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from .answers import Answer, Bound, Failed, Pending
from .errors import NamingError
from .parse import read_path
from .path import Path
from .pattern import Pattern
from .system import ask_system
from .tree import Leaf, NameTree, Neg

CONFIGURED = Path.of("#")
"""Configured namers stand below it: `/#/io.l5d.fs`."""

Namer = Callable[[Path], Answer]
"""Given the rest of the path, the present answer. A pure function: the same answer to the same path during one bind."""

Said: TypeAlias = Namer | Answer
"""A namer, or the one answer that it always gives."""

_NEG: NameTree[Bound] = Neg()


class Namers:
    """Namers by prefix, the first asked first. `Namers()` has the system namer alone."""

    __slots__ = ("_asked", "prefixes")

    def __init__(self, namers: Mapping[str | Path, Said] | Iterable[tuple[str | Path, Said]] = ()) -> None:
        pairs = namers.items() if isinstance(namers, Mapping) else namers
        asked = []
        for prefix, namer in pairs:
            path = prefix if isinstance(prefix, Path) else read_path(prefix)
            asked.append((path.elems, len(path.elems), namer if callable(namer) else always(namer)))
        self._asked: Final = tuple(asked)
        self.prefixes: Final = tuple(Path(elems) for elems, _, _ in asked)

    @classmethod
    def from_configuration(cls, namers: Iterable[tuple[str | Path, Said]]) -> Namers:
        """In the order of Linkerd's configuration, which asks the namer at the bottom first."""
        return cls(tuple(namers)[::-1])

    def ask(self, elems: tuple[bytes, ...]) -> Answer:
        """The first answer that is not Neg."""
        for prefix, count, namer in self._asked:
            if elems[:count] == prefix:
                answer = namer(Path(elems[count:]))
                if not isinstance(answer, Neg):
                    return answer
        return ask_system(elems)


NO_NAMERS: Final = Namers()


def always(answer: Answer) -> Namer:
    """A namer that gives one answer to every path."""
    if not isinstance(answer, (NameTree, Pending, Failed)):
        raise NamingError(f"not an answer of a namer: {answer!r}")
    return lambda rest: answer


def binds(prefix: str | Path, count: int = 0) -> Namer:
    """A namer that takes `count` elements into the id and leaves the rest; Neg for a shorter path.

    `binds("/#/io.l5d.k8s", 3)` is how the Kubernetes namer cuts `/ns/port/svc/…`, if every service exists.
    """
    above = prefix if isinstance(prefix, Path) else read_path(prefix)
    return lambda rest: _NEG if len(rest) < count else Leaf(Bound(above + rest.take(count), rest.drop(count)))


def rewrites(pattern: str | Pattern, name: str) -> Namer:
    """`io.l5d.rewrite`: what matches the pattern is called `name`, `{variables}` filled in; the rest is dropped."""
    matcher = pattern if isinstance(pattern, Pattern) else Pattern(pattern)

    def rewrite(rest: Path) -> Answer:
        try:
            renamed = matcher.rewrite(rest, name)
        except NamingError as error:
            return Failed(f"{matcher} makes no path of {rest}: {error}")
        return _NEG if renamed is None else Leaf(renamed)

    return rewrite
