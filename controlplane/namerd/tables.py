"""Where tables are kept: the interface of all stores of dtabs. Stores nothing, and takes no text apart.

A table is text under a namespace. Every write of it gets a revision, higher than any before in that store, and leaves a record
of what it wrote. Source for the shape: namerd's DtabStore.scala; history is ours.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Self

import msgspec

from meshcore.errors import MeshError

MAX_TABLE_BYTES = 262_144
"""As a value in the stores may have. A table of a thousand entries is some 60 KiB."""
MAX_TABLES = 10_000
KEPT = 200
"""Writes of one namespace that are remembered."""
NAMESPACE_WHAT = "letters, digits, '_', '-' and '.', the first one none of the signs, at most 100"

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class AlreadyThere(MeshError):
    """A namespace that was to be created has a table."""


class Missing(MeshError):
    """There is no such namespace."""


class WrongVersion(MeshError):
    """Somebody else wrote it meanwhile, or it never had this version. Nothing was done."""


class Forbidden(MeshError):
    """The store does not let us."""


class BadNamespace(MeshError):
    """A name that no namespace can have."""

    default_source = "downstream"


class Table(msgspec.Struct, frozen=True):
    """One table as it stands."""

    namespace: str
    text: str
    version: bytes
    """Opaque: who writes with it overwrites nobody's change."""
    revision: int


class Record(msgspec.Struct, frozen=True):
    """One write of a namespace: its text, None for a removal, and who did it."""

    revision: int
    version: bytes
    text: str | None
    by: str = ""
    time_s: float = 0.0


class Whole(msgspec.Struct, frozen=True):
    """All tables at one moment. What lies between it and what was told before is in the records."""

    tables: tuple[Table, ...]


class Step(msgspec.Struct, frozen=True):
    """One write; nothing lies between it and what was told before. `table` is None for a removal."""

    namespace: str
    revision: int
    table: Table | None


class Tables(ABC):
    """One store. `async with` opens and closes it."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def get(self, namespace: str) -> Table | None:
        """The table behind every write that was acknowledged before the call."""

    @abstractmethod
    async def create(self, namespace: str, text: str, by: str) -> Table:
        """AlreadyThere when there is one."""

    @abstractmethod
    async def put(self, namespace: str, text: str, by: str, version: bytes | None = None) -> Table:
        """With a version only over that one (Missing, WrongVersion); without one in any case."""

    @abstractmethod
    async def delete(self, namespace: str, by: str, version: bytes | None = None) -> int:
        """Missing when there is none. The records stay. Returns the revision."""

    @abstractmethod
    async def history(self, namespace: str, most: int = KEPT) -> list[Record]:
        """The last writes, oldest first."""

    @abstractmethod
    def watch(self) -> AsyncIterator[Whole | Step]:
        """Begins with all tables. Raises when the store is away: then begin again."""


def check_namespace(namespace: str) -> None:
    if _NAMESPACE.fullmatch(namespace) is None:
        raise BadNamespace(f"namespace {namespace[:120]!r}: expected {NAMESPACE_WHAT}")
