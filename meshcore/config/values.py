"""The kinds of plain values: numbers, switches, words, text, lists, mappings. Reads one value; knows no context.

A kind has `read(value)`, which returns the canonical value or raises `Bad`, and `text(value)`, which writes it back as
YAML would have it. Reading is idempotent: a canonical value reads as itself, so structs may be built from either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .suggest import hint as nearest_hint


class Bad(ValueError):
    """A value that cannot be used: the message completes the sentence `<key>: …`."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        expected: str = "",
        path: tuple[str | int, ...] = (),
        at_key: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.expected = expected
        self.path = path
        self.at_key = at_key

    def under(self, *steps: str | int) -> Bad:
        """The same, seen from further out."""
        return Bad(self.message, self.hint, self.expected, (*steps, *self.path), self.at_key)


def shown(value: Any, most: int = 60) -> str:
    """A value as an error message shows it: type and content, never longer than a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        cut = value if len(value) <= most else value[: most - 1] + "…"
        # repr() escapes control bytes, so that no file can write on the terminal of who reads its errors.
        return f"the string {cut!r}"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4300 digits.
        return f"the number {value}" if abs(value) < 10**30 else "a huge number"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


class Kind:
    """How one value is read, written and described."""

    what = "a value"  # in messages: "expected …"
    unit = ""  # in docs

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def text(self, value: Any) -> Any:
        """The value as a plain YAML scalar or collection."""
        return value

    def describe(self) -> str:
        """Type and range for the reference page."""
        return self.what.removeprefix("a ")

    def wrong(self, value: Any, hint: str = "") -> Bad:
        return Bad(f"expected {self.what}, got {shown(value)}", hint, self.what)


class IntKind(Kind):
    """A whole number between two bounds, or one of a few words (`auto`)."""

    def __init__(self, least: int, most: int, words: tuple[str, ...] = (), zero: str = "", unit: str = "") -> None:
        self.least = least
        self.most = most
        self.words = words
        self.zero = zero
        self.unit = unit
        self.what = "a whole number" + "".join(f" or '{word}'" for word in words)

    def read(self, value: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, int):
            if isinstance(value, str):
                if value in self.words:
                    return value
                if value.strip().lstrip("-").isdigit():
                    raise self.wrong(value, f"remove the quotes: {value.strip()[:40]}")
                if self.words and not any(letter.isdigit() for letter in value):
                    raise self.wrong(value, nearest_hint(value, self.words, "words"))
            if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
                raise self.wrong(value, f"write {int(value)}")
            raise self.wrong(value)
        if value == 0 and self.zero:
            return value
        if not self.least <= value <= self.most:
            zero = f" (or 0: {self.zero})" if self.zero else ""
            number = str(value) if abs(value) < 10**30 else "the number"
            raise Bad(f"{number} is out of range", f"from {self.least} to {self.most}{zero}", self.describe())
        return int(value)

    def describe(self) -> str:
        words = "".join(f" or `{word}`" for word in self.words)
        return f"number, {self.least} to {self.most}{words}" + (f"; 0 = {self.zero}" if self.zero else "")


class PercentKind(Kind):
    """A share from above 0 up to 100 %, with at most four decimals."""

    what = "a percentage"

    def read(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(value)
        if not 0.0001 <= value <= 100:
            raise Bad(f"{shown(value)} is out of range", "from 0.0001 to 100", self.describe())
        if round(value, 4) != value:
            raise Bad(f"{shown(value)} is finer than four decimals", f"write {round(value, 4)}", self.describe())
        return value

    def describe(self) -> str:
        return "percentage, 0.0001 to 100"


class BoolKind(Kind):
    """true or false."""

    what = "true or false"

    def read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if value.lower() in ("yes", "on", "true", "y", "1"):
                raise self.wrong(value, "write true")
            if value.lower() in ("no", "off", "false", "n", "0"):
                raise self.wrong(value, "write false")
        raise self.wrong(value)


class WordKind(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.what = "one of " + ", ".join(words)

    def read(self, value: Any) -> str:
        # `retries.on: [502]` is as clear as `["502"]`.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if abs(value) < 10**30 else "a huge number"
        if isinstance(value, str):
            if value in self.words:
                return value
            raise Bad(f"unknown value {value[:60]!r}", nearest_hint(value, self.words, "values"), self.what)
        if value is False and "off" in self.words:
            raise self.wrong(value, "write off")
        raise self.wrong(value)

    def describe(self) -> str:
        return "one of " + ", ".join(f"`{word}`" for word in self.words)


class TextKind(Kind):
    """A string, not empty unless allowed, with bounded length and a pattern."""

    def __init__(
        self,
        what: str,
        pattern: str = r"[^\x00-\x1f\x7f]*",
        most: int = 256,
        empty: bool = False,
        hint: str = "",
    ) -> None:
        self.what = what
        self.pattern = re.compile(pattern + r"\Z", re.DOTALL)
        self.most = most
        self.empty = empty
        self.hint = hint

    def read(self, value: Any) -> str:
        text = self.string(value)
        if not self.pattern.match(text):
            raise Bad(f"{shown(text)} is not {self.what}", self.hint, self.what)
        return text

    def string(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
            value = str(value)  # `name: 7` and `x-version: 2` mean the digits as written
        if not isinstance(value, str):
            hint = ""
            if isinstance(value, (bool, float)):
                hint = "put it in quotes"
            raise self.wrong(value, hint)
        if not value and not self.empty:
            raise Bad(f"expected {self.what}, got an empty string", "", self.what)
        if len(value) > self.most:
            raise Bad(f"{len(value)} characters are too many for {self.what}", f"the most is {self.most}", self.what)
        return value


NAME = TextKind(
    "a name",
    r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]*",
    most=200,
    hint="names have letters, digits and . _ - : / @ +, and start with a letter or a digit",
)


JITTER = WordKind("added", "decorrelated")
JITTER_TEXT = (
    "`added`: waits double, each with up to `jitter_percent` of itself on top. `decorrelated`: each is drawn between `backoff` and three "
    "times the one before, up to `max_backoff`; `jitter_percent` then means nothing."
)


class ListKind(Kind):
    """A list of values of one kind, with a bound."""

    def __init__(self, item: Kind, most: int, least: int = 0, unique: bool = False) -> None:
        self.item = item
        self.most = most
        self.least = least
        self.unique = unique
        self.what = "a list"

    def read(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            hint = "put it in brackets: [" + value[:40] + "]" if isinstance(value, str) else ""
            raise self.wrong(value, hint)
        self.check_count(value)
        items = []
        for index, item in enumerate(value):
            try:
                items.append(self.item.read(item))
            except Bad as bad:
                raise bad.under(index) from None
        if self.unique and len(set(items)) < len(items):
            for index, item in enumerate(items):
                if item in items[:index]:
                    raise Bad(f"'{item}' is listed twice", "", self.what, (index,))
        return tuple(items)

    def check_count(self, value: Iterable[Any]) -> None:
        count = len(value)  # type: ignore[arg-type]
        if count < self.least:
            raise Bad("the list is empty", f"it needs at least {self.least}", self.what)
        if count > self.most:
            raise Bad(f"{count} entries are too many", f"the most is {self.most}", self.what)

    def text(self, value: Any) -> Any:
        return [self.item.text(item) for item in value]

    def describe(self) -> str:
        return f"list of {self.item.describe()}"


class MapKind(Kind):
    """A mapping from one kind to another, with a bound."""

    what = "a mapping"

    def __init__(self, key: Kind, item: Kind, most: int) -> None:
        self.key = key
        self.item = item
        self.most = most

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(value)
        if len(value) > self.most:
            raise Bad(f"{len(value)} entries are too many", f"the most is {self.most}", self.what)
        result: dict[str, Any] = {}
        for name, item in value.items():
            try:
                canonical = self.key.read(name)
            except Bad as bad:
                raise Bad(bad.message, bad.hint, bad.expected, (name,), at_key=True) from None
            if canonical in result:
                raise Bad(
                    f"'{canonical}' is listed twice", "header names do not differ by case", self.what, (name,), True
                )
            try:
                result[canonical] = self.item.read(item)
            except Bad as bad:
                raise bad.under(name) from None
        return result

    def describe(self) -> str:
        return f"mapping of {self.key.describe()} to {self.item.describe() if self.item.what else 'text'}"


class Key(msgspec.Struct, frozen=True):
    """What a configuration key accepts and why its default is what it is. Stands in the Annotated type of a field."""

    kind: Any
    doc: str
    why: str = ""
