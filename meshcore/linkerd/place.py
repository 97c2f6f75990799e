"""One mapping of a Linkerd file while it is read: values by kind, keys without meaning, keys that do not exist.

Every key is asked for once, by name; what nobody asked for is unknown. Problems are collected with their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ..config.suggest import hint as nearest_hint
from ..config.values import shown
from ..config.yaml_source import locate
from ..errors import Problem
from ..naming import DtabSyntaxError, NamingError, Path, read_path

T = TypeVar("T")
MOST_MS = 10 * 365 * 86_400_000


class Findings:
    """What was found wrong and what was found meaningless in one file."""

    def __init__(self, source: str, tree: Any) -> None:
        self.source = source
        self.tree = tree
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def placed(self, message: str, hint: str, path: tuple[str | int, ...], at_key: bool = False) -> Problem:
        line, column = locate(self.tree, path, at_key)
        return Problem(
            message=message, hint=hint, path=path, at_key=at_key, source=self.source, line=line, column=column
        )


class Place:
    """The mapping at `path`; `noun` names it in messages. Anything but a mapping is a problem, and reads as empty."""

    def __init__(self, findings: Findings, value: Any, path: tuple[str | int, ...], noun: str) -> None:
        self.findings = findings
        self.path = path
        self.noun = noun
        self._asked: set[str] = set()
        if not isinstance(value, dict):
            if value is not None:
                self._problem(f"{noun}: expected a mapping, got {shown(value)}", "", path)
            value = {}
        self.values: dict[str, Any] = value

    # --- values ---

    def has(self, key: str) -> bool:
        """Is the key there, with a value? Counts as asking for it."""
        self._asked.add(key)
        return self.values.get(key) is not None

    def raw(self, key: str) -> Any:
        self._asked.add(key)
        return self.values.get(key)

    def text(self, key: str, default: str = "") -> str:
        return self._read(key, default, "a text", lambda value: value if isinstance(value, str) else None)

    def flag(self, key: str, default: bool = False) -> bool:
        return self._read(key, default, "true or false", lambda value: value if isinstance(value, bool) else None)

    def whole(self, key: str, default: int, least: int = 0, most: int = 2**31 - 1) -> int:
        def whole(value: Any) -> int | None:
            is_whole = isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
            return int(value) if is_whole and least <= value <= most else None

        return self._read(key, default, f"a whole number from {least} to {most}", whole)

    def number(self, key: str, default: float, least: float = 0.0, most: float = 1e9) -> float:
        def number(value: Any) -> float | None:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return float(value) if is_number and least <= value <= most else None

        return self._read(key, default, f"a number from {least:g} to {most:g}", number)

    def duration_ms(self, key: str) -> str | None:
        """Milliseconds as our configuration writes them; None where the key is not set."""
        found = self.whole(key, 0, 1, MOST_MS) if self.has(key) else 0
        return f"{found}ms" if found else None

    def word(self, key: str, words: Sequence[str], default: str) -> str:
        """One of the words. A default that is none of them means: the key must be there."""
        if not self.has(key):
            if default not in words:
                self.problem(f"the key '{key}' is missing", f"it is one of: {', '.join(words)}")
            return default
        found = self.text(key)
        if found in words:
            return found
        if isinstance(self.values[key], str):
            self.problem(f"'{key}' of {self.noun}: unknown word {found!r}", nearest_hint(found, words, "words"), key)
        return default if default in words else words[0]

    def texts(self, key: str) -> list[str]:
        """A list of texts; one alone counts as a list."""
        found = self.raw(key)
        listed = found if isinstance(found, list) else [] if found is None else [found]
        if all(isinstance(one, str) for one in listed):
            return list(listed)
        self.problem(f"'{key}' of {self.noun}: expected texts, got {shown(found)}", "", key)
        return []

    def name(self, key: str, default: Path) -> Path:
        """A path such as `/svc`."""
        text = self.text(key)
        if not text:
            return default
        try:
            return read_path(text)
        except DtabSyntaxError as error:
            self.problem(f"'{key}' of {self.noun}: {error}", "", key)
            return default

    # --- sections ---

    def section(self, key: str, noun: str = "") -> Place:
        """The mapping below a key, empty where it is not set."""
        return Place(self.findings, self.raw(key), (*self.path, key), noun or f"'{key}' of {self.noun}")

    def sections(self, key: str, noun: str, one_is_enough: bool = False) -> Iterator[Place]:
        """The mappings of a list."""
        found = self.raw(key)
        if found is None:
            return
        if not isinstance(found, list):
            if one_is_enough:
                yield Place(self.findings, found, (*self.path, key), noun)
            else:
                self.problem(f"'{key}' of {self.noun}: expected a list, got {shown(found)}", "begin each with '- '", key)
            return
        for index, value in enumerate(found):
            yield Place(self.findings, value, (*self.path, key, index), f"{noun} {index + 1}")

    # --- what has no meaning ---

    def meaningless(self, why: str, *keys: str) -> None:
        """These keys exist in Linkerd and change nothing here: a warning where one is set."""
        for key in keys:
            if self.has(key):
                self.warn(f"'{key}' of {self.noun} has no meaning here: {why}", key)

    def warn(self, message: str, key: str | None = None, hint: str = "") -> None:
        path = self.path if key is None else (*self.path, key)
        self.findings.warnings.append(self.findings.placed(message, hint, path, at_key=key is not None))

    def problem(self, message: str, hint: str = "", key: str | None = None) -> None:
        self._problem(message, hint, self.path if key is None else (*self.path, key))

    def forget(self) -> None:
        """All of it is a problem already: its keys are no others."""
        self._asked.update(self.values)

    def end(self) -> None:
        """Every key has been asked for: others do not exist."""
        for key in self.values:
            if key not in self._asked:
                message = f"unknown key {str(key)[:80]!r} in {self.noun}"
                advice = nearest_hint(str(key), self._asked, "keys")
                self.findings.problems.append(self.findings.placed(message, advice, (*self.path, key), at_key=True))

    def naming(self, key: str, read: Callable[[str], T], default: T) -> T:
        """A text of the naming language; a mistake is told with its place in that text."""
        text = self.text(key)
        if not text:
            return default
        try:
            return read(text)
        except DtabSyntaxError as error:
            within = f" (line {error.line}, column {error.column} of it)" if "\n" in text.strip() else ""
            self.problem(f"'{key}' of {self.noun}: {error}{within}", "", key)
        except NamingError as error:
            self.problem(f"'{key}' of {self.noun}: {error}", "", key)
        return default

    def _read(self, key: str, default: T, what: str, read: Callable[[Any], T | None]) -> T:
        value = self.raw(key)
        if value is None:
            return default
        found = read(value)
        if found is None:
            self.problem(f"'{key}' of {self.noun}: expected {what}, got {shown(value)}", "", key)
            return default
        return found

    def _problem(self, message: str, hint: str, path: tuple[str | int, ...]) -> None:
        self.findings.problems.append(self.findings.placed(message, hint, path))


