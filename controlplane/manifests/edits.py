"""Changes of a text at places of its nodes: entries and items put in front, taken out. Everything else keeps its bytes.

What is put in comes first in its mapping or sequence, so nothing depends on where the last one ends. In block style it
stands on lines of its own below the line that opens the collection, comments stay with what they were above; on a line
shared with a dash, and in flow style, it stands right before the first entry. Taking out is the exact inverse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from meshcore.errors import ConfigError, Problem

from . import rendering
from .nodes import BREAKS, Node, place_of

_LEAD = re.compile(r" *(?:- +)*")


class Text:
    """One text, and what is to be changed in it."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self._changes: list[tuple[int, int, str]] = []
        first = re.search(r"\r\n|[\n\r]", text)
        self._eol = first.group() if first else "\n"

    def changed(self) -> str:
        """The text with all changes made."""
        parts, at = [], 0
        for start, end, fresh in sorted(self._changes, key=lambda change: change[:2]):
            if start < at:
                raise self.unusual("changes overlap", start)
            parts += [self.text[at:start], fresh]
            at = end
        return "".join((*parts, self.text[at:]))

    def replace(self, start: int, end: int, fresh: str) -> None:
        self._changes.append((start, end, fresh))

    def put_back(self, node: Node, literal: str) -> None:
        """A null or an alias, where something took its place; no null at all was a blank shorter."""
        self.replace(node.start - (0 if literal else 1), node.end, literal)

    def unusual(self, what: str, at: int) -> ConfigError:
        line, column = place_of(self.text, at)
        return ConfigError(Problem(message=what, source=self.source, line=line, column=column))

    # -- in -----------------------------------------------------------------------------------------------------------

    def add_entries(self, owner: Node | None, mapping: Node, values: dict[str, Any], dash: int = 0) -> None:
        """Puts entries into a mapping. `owner` is the key it is the value of; `dash` how far sequences are indented."""
        if mapping.is_flow:
            self._add_flow(mapping, [rendering.entry(key, value) for key, value in values.items()])
            return
        lines: list[str] = []
        for key, value in values.items():
            inner = rendering.block(value)
            is_sequence = isinstance(value, list)
            if isinstance(value, (dict, list)):
                indent = " " * dash if is_sequence else "  "
                lines += [f"{rendering.scalar(key)}:", *(indent + line for line in inner)]
            else:
                lines.append(f"{rendering.scalar(key)}: {inner[0]}")
        self._add_block(owner, mapping, mapping.entries[0][0].start, lines)

    def add_items(self, owner: Node, sequence: Node, values: Sequence[Any]) -> None:
        """Puts items in front of a sequence that is not empty, or is in flow style."""
        if sequence.is_flow:
            self._add_flow(sequence, [rendering.flow(value) for value in values])
        else:
            self._add_block(owner, sequence, self.dash_of(sequence.items[0]), rendering.block(list(values)))

    def _add_block(self, owner: Node | None, collection: Node, first: int, lines: list[str]) -> None:
        lead = self.text[self._line_start(first) : first]
        if not _LEAD.fullmatch(lead):
            raise self.unusual("nothing can be added before this without changing its form; give it a line of its own", first)
        head = collection.start if collection.has_properties else owner.end if owner is not None else first
        above = self._line_after(head)
        if not lead.strip() and owner is not None and above <= self._line_start(first):
            self.replace(above, above, "".join(lead + line + self._eol for line in lines))
        else:
            pad = self._eol + " " * len(lead)
            self.replace(first, first, "".join(line + pad for line in lines))

    def _add_flow(self, collection: Node, parts: list[str]) -> None:
        first = collection.entries[0][0].start if collection.entries else collection.items[0].start if collection.items else -1
        if first < 0:
            self.replace(collection.end - 1, collection.end - 1, ", ".join(parts))
            return
        lead = self.text[self._line_start(first) : first]
        between = "," + (" " if lead.strip() else self._eol + lead)
        self.replace(first, first, "".join(part + between for part in parts))

    # -- out ----------------------------------------------------------------------------------------------------------

    def drop_entries(self, mapping: Node, keys: set[str]) -> None:
        """Takes entries out of a mapping."""
        places = [(key.start, value.end, key.text in keys) for key, value in mapping.entries]
        self._drop(mapping, places)

    def drop_items(self, sequence: Node, gone: set[int]) -> None:
        """Takes items out of a sequence, by their number."""
        starts = [one.start if sequence.is_flow else self.dash_of(one) for one in sequence.items]
        places = [(start, one.end, number in gone) for number, (start, one) in enumerate(zip(starts, sequence.items, strict=True))]
        self._drop(sequence, places)

    def _drop(self, collection: Node, places: list[tuple[int, int, bool]]) -> None:
        """Runs of neighbours at once: what stands between two of them belongs to neither that stays."""
        number = 0
        while number < len(places):
            first = number
            while number < len(places) and places[number][2]:
                number += 1
            if number > first:
                before = places[first - 1][1] if first else -1
                following = places[number][0] if number < len(places) else -1
                self._drop_run(collection, places[first][0], places[number - 1][1], before, following)
            number += 1

    def _drop_run(self, collection: Node, start: int, end: int, before: int, following: int) -> None:
        line = self._line_start(start)
        if not collection.is_flow and not self.text[line:start].strip(" "):
            self.replace(line, self._line_after(end), "")
        elif following >= 0:
            self.replace(start, following, "")
        else:
            self.replace(before if before >= 0 else start, end, "")  # with the comma before it

    # -- places -------------------------------------------------------------------------------------------------------

    def _line_start(self, at: int) -> int:
        while at and self.text[at - 1] not in BREAKS:
            at -= 1
        return at

    def column(self, at: int) -> int:
        return at - self._line_start(at)

    def _line_after(self, at: int) -> int:
        """The start of the next line; `at` itself where a block scalar has ended with its line."""
        if at and self.text[at - 1] in BREAKS:
            return at
        while at < len(self.text) and self.text[at] not in BREAKS:
            at += 1
        return at + (2 if self.text.startswith("\r\n", at) else 1 if at < len(self.text) else 0)

    def dash_of(self, item: Node) -> int:
        """Where the dash of a block sequence's item stands."""
        end = item.start
        while True:
            line = self._line_start(end)
            before = self.text[line:end]
            code = re.sub(r"(?:^|(?<=\s))#.*", "", before).rstrip()
            if code.endswith("-") and _LEAD.fullmatch(code[:-1]):
                return line + len(code) - 1
            if code or not line:
                raise self.unusual("the dash of this item is not where it was expected", item.start)
            end = line - (2 if self.text[line - 2 : line] == "\r\n" else 1)
