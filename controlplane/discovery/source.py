"""What a source of discovery is, and what it may say. Knows no kind of source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from ..model import Named
from ..model.checks import Found

Groups = Mapping[str, Iterable[Named]]


class Listener(Protocol):
    """Whom a source tells."""

    def whole(self, groups: Groups) -> None:
        """All there is, in groups of the source's own naming."""

    def some(self, groups: Groups) -> None:
        """These groups as they are now; an empty one is gone."""

    def well(self) -> None:
        """All is as it was told, as of now."""

    def wrong(self, why: str) -> None:
        """What was told stays, and this is why."""


class Source(Protocol):
    """One place to look at."""

    @property
    def name(self) -> str:
        """For metrics, files and messages."""

    async def follow(self, listener: Listener) -> None:
        """Tells the whole, then every change, until cancelled. Raises when it cannot go on: it is begun again."""


def sound(values: Iterable[Named]) -> list[Named]:
    """Those that hold to the model's rules: what others name may not fit, and one bad record must not cost the rest."""
    kept = []
    for value in values:
        found = Found()
        value.check(found)
        if not found.problems:
            kept.append(value)
    return kept
