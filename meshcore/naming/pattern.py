"""Patterns over paths: `/svc/{name}/*`, what they capture, and templates that use it. Knows no namer.

Source: linkerd PathMatcher.scala, in its last form (parts of elements capture too), with its tests. Patterns work on
the text that a path prints, so `%` and escapes stand in captures as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from .errors import NamingError
from .parse import read_path
from .path import Path, show_element

VARIABLE = re.compile(r"\{([^{}/]*)\}")


class Segment(msgspec.Struct, frozen=True):
    """One element of a pattern: `{A}.com:{B}` has the literals "", ".com:", "" around the variables A, B."""

    literals: tuple[str, ...]
    variables: tuple[str, ...]


class Pattern(msgspec.Struct, frozen=True):
    """`Pattern("/svc/{name}")`: matches paths that begin so. `*` is any one element, `{x}` any text within one."""

    text: str
    segments: tuple[Segment | None, ...] = ()
    """Worked out from the text: None for `*`."""

    def __post_init__(self) -> None:
        if not self.text.startswith("/"):
            raise NamingError(f"a pattern begins with '/': {self.text!r}")
        words = [word for word in self.text.split("/") if word]
        segments = tuple(None if word == "*" else _segment(word) for word in words)
        msgspec.structs.force_setattr(self, "segments", segments)

    def __str__(self) -> str:
        return self.text

    def extract(self, path: Path) -> dict[str, str] | None:
        """Variable -> text; None when the path does not match. A variable that stands twice has its last text."""
        if len(self.segments) > len(path.elems):
            return None
        found: dict[str, str] = {}
        for segment, element in zip(self.segments, path.elems, strict=False):
            if segment is None:
                continue
            captured = _captured(segment.literals, show_element(element))
            if captured is None:
                return None
            found.update(zip(segment.variables, captured, strict=True))
        return found

    def substitute(self, path: Path, template: str) -> str | None:
        """The template with `{name}` replaced by what it captured; others stay as they are."""
        found = self.extract(path)
        return None if found is None else fill(template, found)

    def rewrite(self, path: Path, template: str) -> Path | None:
        """The same as a path. The rest of the path is not carried over. Raises DtabSyntaxError for what is no path."""
        text = self.substitute(path, template)
        return None if text is None else read_path(text)


def fill(template: str, found: dict[str, str]) -> str:
    return VARIABLE.sub(lambda one: found.get(one[1], one[0]), template)


def _segment(word: str) -> Segment:
    parts = VARIABLE.split(word)  # literal, variable, literal, …
    return Segment(tuple(parts[::2]), tuple(parts[1::2]))


def _captured(literals: Sequence[str], text: str) -> list[str] | None:
    """What stands between the literals, at least one character each, the first as long as it can be.

    `{A}-{B}` takes `foo-bar-baz` apart into `foo-bar` and `baz`. From the right, each literal at its last place: the
    same as greedy groups of a regular expression, without their back-tracking.
    """
    first, *middle = literals
    if not middle:
        return [] if text == first else None
    last = middle.pop()
    start, end = len(first), len(text) - len(last)
    if end <= start or not (text.startswith(first) and text.endswith(last)):
        return None
    found = []
    for literal in reversed(middle):
        at = text.rfind(literal, start + 1, end - 1)
        if at < 0:
            return None
        found.append(text[at + len(literal) : end])
        end = at
    found.append(text[start:end])
    return found[::-1]
