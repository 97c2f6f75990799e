"""YAML and JSON text as nodes that know where they stand, comments and blanks between them untouched. Changes nothing.

Read from parser events, without recursion. JSON is read as the YAML it nearly is. What of it is none (tabs between tokens,
halves of a character, controls in strings) is read as something as long that is, so that every place stays where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml  # type: ignore[import-untyped]

from meshcore.errors import ConfigError, Problem

MAX_TEXT_BYTES = 64 * 1024 * 1024  # the definitions of a large operator have some 5 MiB
MAX_DEPTH = 500  # schemas in definitions nest by two a level, and have seldom more than twenty
BREAKS = "\n\r\x85\u2028\u2029"
_LOADER = getattr(yaml, "CLoader", yaml.Loader)  # libyaml is ten times faster, and its events are the same
_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\t', re.DOTALL)
_JSON_ONLY = re.compile("(?i:\\\\ud[89a-f][0-9a-f]{2})|[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Node:
    """One value. `start` is before its anchor and tag; `end` is behind its last token, for block collections of their last
    entry."""

    __slots__ = ("anchor", "end", "entries", "has_properties", "is_flow", "is_plain", "items", "kind", "start", "target", "text")

    def __init__(self, kind: str, start: int, end: int) -> None:
        self.kind = kind
        """mapping, sequence, scalar or alias."""
        self.start = start
        self.end = end
        self.text = ""
        """Of a scalar its value, of an alias its name."""
        self.is_plain = False
        self.is_flow = False
        self.anchor = ""
        self.has_properties = False
        self.target: Node | None = None
        self.entries: list[tuple[Node, Node]] = []
        self.items: list[Node] = []

    @property
    def is_null(self) -> bool:
        return self.kind == "scalar" and self.is_plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def is_true(self) -> bool:
        return self.kind == "scalar" and self.is_plain and self.text in ("true", "True", "TRUE")

    def resolved(self) -> Node:
        """What an alias stands for; else itself."""
        return self.target if self.target is not None else self

    def entry(self, key: str) -> tuple[Node, Node] | None:
        """The entry as it is written here."""
        return next((entry for entry in self.entries if entry[0].kind == "scalar" and entry[0].text == key), None)

    def get(self, key: str) -> Node | None:
        """The value as a reader finds it: through aliases, and through `<<`."""
        here = self.resolved()
        found = here.entry(key)
        if found is not None:
            return found[1].resolved()
        merged = here.entry("<<")
        if merged is None or not merged[0].is_plain:
            return None
        value = merged[1].resolved()
        for one in value.items if value.kind == "sequence" else [value]:
            there = one.resolved()
            if there.kind == "mapping" and (inner := there.entry(key)) is not None:
                return inner[1].resolved()
        return None

    def string(self, key: str) -> str:
        """A scalar's text; empty when there is none."""
        found = self.get(key)
        return found.text if found is not None and found.kind == "scalar" and not found.is_null else ""

    def children(self, key: str) -> list[Node]:
        """Of a sequence the items, aliases resolved."""
        found = self.get(key)
        return [one.resolved() for one in found.items] if found is not None else []


class Document:
    """One document of a text."""

    def __init__(self, root: Node | None, aliased: frozenset[int]) -> None:
        self.root = root
        self._aliased = aliased

    def is_shared(self, node: Node) -> bool:
        """Whether an alias elsewhere repeats this node."""
        return id(node) in self._aliased


def documents(text: str, source: str) -> list[Document]:
    """All documents of a text; ConfigError with the place for what is no YAML."""
    found: list[Document] = []
    building = _Building(source)
    try:
        for event in yaml.parse(_readable(text), Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                building = _Building(source)
            elif isinstance(event, yaml.DocumentEndEvent):
                found.append(Document(building.root, frozenset(building.aliased)))
            else:
                building.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise ConfigError(Problem(message=f"not YAML: {error.problem}", source=source, line=line, column=column)) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(Problem(message=f"not YAML: {error.reason} at {error.position}", source=source)) from None
    return found


def place_of(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _readable(text: str) -> str:
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _JSON_PART.sub(lambda part: " " if part.group() == "\t" else _JSON_ONLY.sub(_as_long, part.group()), text)


def _as_long(found: re.Match[str]) -> str:
    return "?" * len(found.group())


class _Building:
    """Nodes from the events of one document."""

    def __init__(self, source: str) -> None:
        self.root: Node | None = None
        self.aliased: set[int] = set()
        self._source = source
        self._anchors: dict[str, Node] = {}
        self._open: list[tuple[Node, list[Node]]] = []

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            node = self._node("scalar", event)
            node.text, node.is_plain = event.value, event.style in (None, "")
            self._add(node)
        elif isinstance(event, yaml.AliasEvent):
            node = self._node("alias", event)
            node.text, node.anchor, node.has_properties = event.anchor, "", False
            node.target = self._anchors.get(event.anchor)
            if node.target is None or any(above is node.target for above, _ in self._open):
                self._refuse(event, f"alias *{event.anchor[:40]} stands for nothing before it")
            else:
                self.aliased.add(id(node.target))
            self._add(node)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            node = self._node("mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence", event)
            node.is_flow = bool(event.flow_style)
            if len(self._open) >= MAX_DEPTH:
                self._refuse(event, f"nested deeper than {MAX_DEPTH}")
            self._open.append((node, []))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close(event)

    def _node(self, kind: str, event: yaml.Event) -> Node:
        node = Node(kind, event.start_mark.index, event.end_mark.index)
        anchor = getattr(event, "anchor", None)
        node.has_properties = anchor is not None or getattr(event, "tag", None) not in (None, "!")
        if anchor is not None and kind != "alias":
            node.anchor = anchor
            self._anchors[anchor] = node
        return node

    def _close(self, event: yaml.Event) -> None:
        node, parts = self._open.pop()
        if node.kind == "mapping":
            node.entries = list(zip(parts[::2], parts[1::2], strict=True))
            seen: set[str] = set()
            for key, _ in node.entries:
                if key.kind == "scalar" and key.text in seen and key.text != "<<":
                    self._refuse(event, f"key '{key.text[:40]}' stands there twice", key.start)
                seen.add(key.text)
        else:
            node.items = parts
        # A block collection "ends" where the next token begins, behind comments that are not its own.
        node.end = event.end_mark.index if node.is_flow or not parts else max(one.end for one in parts[-2:])
        self._add(node)

    def _add(self, node: Node) -> None:
        if self._open:
            self._open[-1][1].append(node)
        else:
            self.root = node

    def _refuse(self, event: yaml.Event, message: str, at: int | None = None) -> None:
        mark = event.start_mark
        raise ConfigError(Problem(message=message, source=self._source, line=mark.line + 1, column=mark.column + 1))


def walk(node: Node) -> Iterator[Node]:
    """Itself and all below, aliases as themselves."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [part for entry in one.entries for part in entry]
        waiting += one.items
