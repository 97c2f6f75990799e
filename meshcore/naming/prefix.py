"""Prefixes: what the left side of a dentry matches. A path with wildcards, and no tree.

Source: finagle Dentry.scala. `*` stands for one whole element; what it matched is not kept.
"""

from __future__ import annotations

import msgspec

from .errors import NamingError
from .path import Path, show_element

ANY = None
"""The wildcard, as an element of a prefix."""


class Prefix(msgspec.Struct, frozen=True):
    """`/http/*/GET` is `Prefix((b"http", ANY, b"GET"))`."""

    elems: tuple[bytes | None, ...] = ()

    def __post_init__(self) -> None:
        if b"" in self.elems:
            raise NamingError("an element of a prefix is not empty")

    @classmethod
    def of(cls, path: Path) -> Prefix:
        """The prefix that matches this path and what begins with it; no element is a wildcard."""
        return cls(path.elems)

    def __len__(self) -> int:
        return len(self.elems)

    def __str__(self) -> str:
        return "/" + "/".join("*" if one is ANY else show_element(one) for one in self.elems)

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"

    def matches(self, path: Path) -> bool:
        if len(self.elems) > len(path.elems):
            return False
        return all(mine is ANY or mine == its for mine, its in zip(self.elems, path.elems, strict=False))
