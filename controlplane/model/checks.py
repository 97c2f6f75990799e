"""Collecting what is wrong with one value, with its place. Holds shared rules, and no struct."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized

from meshcore.errors import Problem

from . import names

MAX_LABELS = 64  # as many as fit in one etcd value many times over; label sets are copied to every proxy that asks
MAX_DAY_MS = 86_400_000


class Found:
    """What was found wrong so far, and where we stand. `at()` gives the same list seen from a place further in."""

    def __init__(self, problems: list[Problem] | None = None, path: tuple[str | int, ...] = ()) -> None:
        self.problems: list[Problem] = [] if problems is None else problems
        self.path = path

    def at(self, *steps: str | int) -> Found:
        """Further in; what is found there lands in the same list."""
        return Found(self.problems, (*self.path, *steps))

    def wrong(self, message: str, expected: str = "", got: object = None) -> None:
        """One problem here."""
        self.problems.append(Problem(message=message, path=self.path, expected=expected, got=got))

    def unless(self, holds: bool, value: object, expected: str) -> bool:
        """Notes `value` as wrong unless the rule holds."""
        if not holds:
            self.wrong(f"got {shown(value)}", expected, value)
        return holds

    def label(self, field: str, text: str) -> None:
        """A DNS label."""
        self.at(field).unless(names.is_label(text), text, names.LABEL_WHAT)

    def name(self, field: str, text: str, *, may_be_empty: bool = False) -> None:
        """A DNS name."""
        self.at(field).unless((may_be_empty and text == "") or names.is_name(text), text, names.NAME_WHAT)

    def number(self, field: str, value: int, least: int, most: int) -> None:
        """A whole number within bounds."""
        self.at(field).unless(least <= value <= most, value, f"a number from {least} to {most}")

    def share(self, field: str, value: float, most: float = 1.0) -> None:
        """A ratio; NaN is none."""
        self.at(field).unless(0.0 <= value <= most, value, f"a number from 0 to {most:g}")

    def word(self, field: str, text: str, words: Iterable[str]) -> None:
        """One of a few words."""
        known = tuple(words)
        self.at(field).unless(text in known, text, "one of " + ", ".join(known))

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """A set of labels."""
        place = self.at(field)
        place.count(labels, MAX_LABELS)
        for key, value in labels.items():
            place.at(key).unless(names.is_label_key(key), key, names.LABEL_KEY_WHAT)
            place.at(key).unless(names.is_label_value(value), value, names.LABEL_VALUE_WHAT)

    def count(self, items: Sized, most: int, least: int = 0) -> None:
        """How many."""
        if not least <= len(items) <= most:
            self.wrong(f"got {len(items)} entries", f"{least} to {most}", len(items))

    def unique(self, items: Iterable[object], what: str) -> None:
        """No two the same."""
        seen: set[object] = set()
        for item in items:
            if item in seen:
                self.wrong(f"{what} {shown(item)} stands there twice", "each once", item)
            seen.add(item)

    def text(self, field: str, text: str, most: int) -> None:
        """Printable text of a bounded length."""
        self.at(field).unless(len(text) <= most and text.isprintable(), text, f"printable text, at most {most}")


def shown(value: object, most: int = 60) -> str:
    """A value as messages show it: escaped, never longer than a line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a huge number"  # Python refuses to print more than 4300 digits
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"
