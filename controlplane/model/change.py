"""What happened, and where in history: entries, changes, positions. Plain values; no store and no kind is known here.

A revision counts the transactions of a store; all changes of one transaction have the same revision. An epoch names a
store's life. A mark is random, made anew by each transaction, so a position (epoch, revision, mark) can only be found
in a history that really contains it: a store that was restored from a backup, or began again, does not have the
positions it lost, and says so by sending a snapshot instead of pretending to continue. Revisions of two epochs cannot
be compared.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec

V = TypeVar("V")

_POSITION = re.compile(r"([0-9a-f]{16}):(0|[1-9][0-9]{0,18}):([0-9a-f]{16})")
NO_MARK = "0" * 16


class Position(msgspec.Struct, frozen=True):
    """A point in the history of one store. Opaque for readers: they keep the last one they saw and resume from it."""

    epoch: str
    revision: int
    mark: str = NO_MARK

    def __str__(self) -> str:
        return f"{self.epoch}:{self.revision}:{self.mark}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """A position from its text; None for anything else, which is then as good as no position."""
        match = _POSITION.fullmatch(text) if len(text) <= 64 else None
        return cls(match[1], int(match[2]), match[3]) if match and int(match[2]) < 2**63 else None

    def is_before(self, other: Position) -> bool:
        """Whether the other one is later in the same life; False when they cannot be compared."""
        return self.epoch == other.epoch and self.revision < other.revision


class Entry(msgspec.Struct, Generic[V], frozen=True):
    """A value as it stands: who writes it back with `revision` expected overwrites nobody's change."""

    kind: str
    key: str
    value: V
    revision: int
    lease: int = 0


class Change(msgspec.Struct, Generic[V], frozen=True):
    """One entry was written, or deleted (`value` is None)."""

    revision: int
    kind: str
    key: str
    value: V | None

    @property
    def is_deleted(self) -> bool:
        return self.value is None


class Snapshot(msgspec.Struct, Generic[V], frozen=True):
    """All there is at a position. It replaces what the reader had, whatever that was."""

    position: Position
    entries: tuple[Entry[V], ...]


class Changes(msgspec.Struct, Generic[V], frozen=True):
    """What one or more transactions changed, in order, since the event before. Nothing lies between."""

    position: Position
    changes: tuple[Change[V], ...]


Event = Snapshot[V] | Changes[V]
