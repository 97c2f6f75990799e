"""A namer whose names and addresses stand in the configuration. Watches nothing.

Ours: Linkerd has no such kind. It makes a table of a few fixed services complete without a folder or a catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..naming import Answer, Bound, Leaf, Neg, Path
from .live import Live, Read, fixed
from .namer import LiveNamer
from .states import Replicas, State


class StaticNamer(LiveNamer):
    """The longest known beginning of a name is its id."""

    kind = "io.l5d.static"

    def __init__(self, prefix: Path, names: Mapping[Path, Replicas]) -> None:
        self.prefix = prefix
        self._names = dict(names)
        self._longest = max(map(len, self._names), default=0)

    def answer(self, rest: Path, read: Read) -> Answer:
        for count in range(min(len(rest), self._longest), -1, -1):
            if rest.take(count) in self._names:
                return Leaf(Bound(self.prefix + rest.take(count), rest.drop(count)))
        return Neg()

    def replicas(self, rest: Path) -> Live[State]:
        return fixed(self._names.get(rest, Neg()))
