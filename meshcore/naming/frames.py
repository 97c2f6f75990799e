"""The frames of a bind: alternations and unions under way. Each takes the values of its branches; `compiled` runs them."""

from __future__ import annotations

from typing import Any, Final

from .answers import BindResult, Bound, Failed, Pending
from .errors import NamingError
from .simplify import join
from .tree import MAX_NESTING, Alt, Empty, Fail, NameTree, Neg, Weighted

Elements = tuple[bytes, ...]

TOO_NESTED: Final = Failed(f"bound to unions in unions of more than {MAX_NESTING} levels")


class AltFrame:
    """An alternation under way: the first branch that is not Neg is its value."""

    __slots__ = ("choices", "depth", "tried")

    def __init__(self, choices: list[tuple[NameTree[Any], Elements]], depth: int) -> None:
        self.choices = choices
        self.depth = depth
        self.tried = 1

    def take(self, value: BindResult) -> tuple[NameTree[Any], Elements] | None:
        if type(value) is not Neg or self.tried == len(self.choices):
            return None
        self.tried += 1
        return self.choices[self.tried - 1]

    def result(self, value: BindResult) -> BindResult:
        return value


class KeptAltFrame(AltFrame):
    """The same, going on behind the winner until a `!` or `$`."""

    __slots__ = ("kept",)

    def __init__(self, choices: list[tuple[NameTree[Any], Elements]], depth: int) -> None:
        super().__init__(choices, depth)
        self.kept: list[NameTree[Bound]] = []

    def take(self, value: BindResult) -> tuple[NameTree[Any], Elements] | None:
        if isinstance(value, NameTree) and type(value) is not Neg:
            if type(value) in (Fail, Empty):
                return None
            self.kept.append(value)
        elif not self.kept and type(value) is not Neg:
            return None  # pending or failed, and nothing before it: nobody knows yet who wins
        if self.tried == len(self.choices):
            return None
        self.tried += 1
        return self.choices[self.tried - 1]

    def result(self, value: BindResult) -> BindResult:
        if not self.kept:
            return value
        if len(self.kept) == 1:
            return self.kept[0]
        try:
            return Alt(tuple(self.kept))
        except NamingError:
            return TOO_NESTED


class UnionFrame:
    """A union under way: its branches are bound one by one, whatever becomes of the others."""

    __slots__ = ("bound", "branches", "depth", "failed", "rest", "tried")

    def __init__(self, branches: tuple[Weighted[Any], ...], rest: Elements, depth: int) -> None:
        self.branches = branches
        self.rest = rest
        self.depth = depth
        self.tried = 1
        self.bound: list[Weighted[Bound]] = []
        self.failed: Failed | None = None

    def take(self, value: BindResult) -> tuple[NameTree[Any], Elements] | None:
        if isinstance(value, NameTree):
            self.bound.append(Weighted(self.branches[self.tried - 1].weight, value))
        elif isinstance(value, Failed) and self.failed is None:
            self.failed = value
        if self.tried == len(self.branches):
            return None
        self.tried += 1
        return self.branches[self.tried - 1].tree, self.rest

    def result(self, value: BindResult) -> BindResult:
        """What bound, by its weights; else the first failure; else still pending."""
        if not self.bound:
            return self.failed or Pending()
        try:
            return join(self.bound)
        except NamingError:
            return TOO_NESTED
