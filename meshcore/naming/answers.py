"""Answers: what a name is bound to, or why not yet and why not at all. Immutable; asks nobody.

Source: finagle Name.Bound, Activity. A live namer watches the world and hands its present answer to a bind that stays
pure.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .path import Path
from .tree import NameTree


class Bound(msgspec.Struct, frozen=True):
    """A set of addresses known as `id`, and the part of the name that nothing consumed.

    Looking up the id gives the same set again. Clients (pools, balancers) belong to the id; the residual is kept
    apart, so `/usa/ca/sf` and `/usa/ca/la`, both bound to `/usa`, share one client.
    """

    id: Path
    residual: Path = Path()

    def __str__(self) -> str:
        return str(self.id + self.residual)


class Pending(msgspec.Struct, frozen=True):
    """Not known yet. Only in a union may others answer meanwhile; an alternation waits."""


class Failed(msgspec.Struct, frozen=True):
    """Cannot be known: the namer fails, there is no such namer, or the table leads nowhere.

    Not a `~`: an alternation does not go on.
    """

    message: str


BoundTree: TypeAlias = NameTree[Bound]
Answer: TypeAlias = NameTree[Path] | NameTree[Bound] | NameTree[Path | Bound] | Pending | Failed
"""Of a namer: a tree whose leaves are bound, or are paths to go on with from the whole table."""

BindResult: TypeAlias = BoundTree | Pending | Failed
"""Of a bind: simplified, and without alternations."""

NEVER_MORE_THAN = 100
"""Lookups one after the other (finagle's namerMaxDepth): 99 rewrites and a system path bind, 100 do not."""


def too_deep(path: Path) -> Failed:
    shown = str(path)
    shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
    return Failed(f"maximum depth exceeded ({NEVER_MORE_THAN}): still looking up {shown}")
