"""Dentries and dtabs: rules and their order. Holds them; reading, printing and following them is done elsewhere.

Source: finagle Dtab.scala, Dentry.scala. Nothing is merged and nothing is sorted: position decides, so a later entry is
tried before an earlier one, and equal prefixes are all kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .path import Path
from .prefix import Prefix
from .tree import Fail, NameTree


class Dentry(msgspec.Struct, frozen=True):
    """`prefix => dst`: what begins with the prefix is also called dst."""

    prefix: Prefix
    dst: NameTree[Path]


class Dtab(msgspec.Struct, frozen=True):
    """Dentries, the one that decides first at the end."""

    entries: tuple[Dentry, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Dentry]:
        return iter(self.entries)

    def __add__(self, other: Dtab) -> Dtab:
        """This table, overridden by the other."""
        return Dtab(self.entries + other.entries)

    def without(self, base: Dtab) -> Dtab:
        """What was appended to `base`; this table itself when it does not begin with it (finagle stripPrefix)."""
        begins = self.entries[: len(base.entries)] == base.entries
        return Dtab(self.entries[len(base.entries) :]) if begins else self


EMPTY_DTAB = Dtab()
FAIL_DTAB = Dtab((Dentry(Prefix(), Fail()),))
"""`/=>!`: no name binds."""
