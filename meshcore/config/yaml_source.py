"""YAML text to plain dicts, lists and scalars that remember their place. Knows nothing of what the keys mean.

A narrow YAML on purpose, read from parser events without recursion:
- scalars follow the YAML 1.2 core schema: `on`, `yes` and `12:30` are strings, not booleans or base-60 numbers;
- duplicate keys, tags, second documents and recursive aliases are problems, not surprises;
- everything is bounded: text size, nesting, nodes made by aliases (a "billion laughs" file is refused).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..errors import ConfigError, Problem

MAX_TEXT_BYTES = 8 * 1024 * 1024  # a 10,000-route file has about 1 MiB
MAX_DEPTH = 64  # the deepest valid configuration has 6 levels
MAX_ALIAS_NODES = 100_000  # nodes that exist only because an alias repeats them

Path = tuple[str | int, ...]
Mark = tuple[int, int]  # 1-based line and column


class Mapping(dict[str, Any]):
    """A YAML mapping in file order."""

    __slots__ = ("key_marks", "mark", "value_marks")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.key_marks: dict[str, Mark] = {}
        self.value_marks: dict[str, Mark] = {}


class Sequence(list[Any]):
    """A YAML sequence."""

    __slots__ = ("mark", "value_marks")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.value_marks: list[Mark] = []


def locate(root: Any, path: Path, at_key: bool = False) -> Mark:
    """Where the value (or the key) at `path` stands; the nearest enclosing place when it is not in the file."""
    mark: Mark = getattr(root, "mark", (1, 1))
    here = root
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, Mapping) and step in here:
            marks = here.key_marks if last and at_key else here.value_marks
            mark = marks[step]  # type: ignore[index]
            here = here[step]  # type: ignore[index]
        elif isinstance(here, Sequence) and isinstance(step, int) and step < len(here):
            mark = here.value_marks[step]
            here = here[step]
        else:
            break
    return mark


_INT = re.compile(r"[-+]?[0-9]+\Z|0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NUMERIC_START = frozenset("0123456789+-.")


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _NUMERIC_START:
        if _INT.match(text):
            # int() refuses absurd lengths itself (4300 digits); such a scalar stays text and fails as such.
            if len(text) > 40:
                return text
            if text[:2] in ("0x", "0o"):
                return int(text, 0)
            return int(text)
        if _FLOAT.match(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


_NO_KEY = "\0"  # stands for a key that was refused; YAML text cannot hold it


class _Frame:
    """A collection that is still open, with what waits in it."""

    __slots__ = ("anchor", "key", "key_mark", "merge", "size", "value")

    def __init__(self, value: Mapping | Sequence, anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.key_mark: Mark = (0, 0)
        self.merge: list[Mapping] = []
        self.size = 1


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.open_anchors: set[str] = set()
        self.alias_nodes = 0
        self.root: Any = None
        self.documents = 0

    def problem(self, mark: Mark, message: str, hint: str = "", **more: Any) -> Problem:
        found = Problem(message=message, hint=hint, source=self.source, line=mark[0], column=mark[1], **more)
        self.problems.append(found)
        return found

    def stop(self, mark: Mark, message: str, hint: str = "") -> None:
        self.problem(mark, message, hint)
        raise ConfigError(self.problems)

    def put(self, value: Any, mark: Mark, size: int, is_key: str | None) -> None:
        """Hang a finished value where it belongs. `is_key` is its text when it may serve as a key."""
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        frame.size += size
        holder = frame.value
        if isinstance(holder, Sequence):
            holder.append(value)
            holder.value_marks.append(mark)
            return
        if frame.key is None:
            if is_key is None:
                self.problem(mark, "a key must be a single word, not a mapping or a list")
                is_key = _NO_KEY
            frame.key, frame.key_mark = is_key, mark
            return
        key, frame.key = frame.key, None
        if key is _NO_KEY:
            return
        if key == "<<":
            self.merge(frame, value, mark)
        elif key in holder.key_marks:
            first = holder.key_marks[key]
            self.problem(
                frame.key_mark,
                f"duplicate key '{key}'",
                f"it is already set at line {first[0]}",
                at_key=True,
                got=key,
            )
        else:
            holder[key] = value
            holder.key_marks[key] = frame.key_mark
            holder.value_marks[key] = mark

    def merge(self, frame: _Frame, value: Any, mark: Mark) -> None:
        for part in value if isinstance(value, Sequence) else [value]:
            if isinstance(part, Mapping):
                frame.merge.append(part)
            else:
                self.problem(mark, "'<<' merges mappings only", "write <<: *name of a mapping")

    def open(self, value: Mapping | Sequence, anchor: str | None) -> None:
        if len(self.stack) >= MAX_DEPTH:
            self.stop(value.mark, f"nested deeper than {MAX_DEPTH} levels")
        if anchor:
            self.open_anchors.add(anchor)
        self.stack.append(_Frame(value, anchor))

    def close(self) -> None:
        frame = self.stack.pop()
        if isinstance(frame.value, Mapping):
            for part in frame.merge:  # keys written out win over merged ones, earlier merges over later ones
                for key, value in part.items():
                    if key not in frame.value:
                        frame.value[key] = value
                        frame.value.key_marks[key] = part.key_marks[key]
                        frame.value.value_marks[key] = part.value_marks[key]
        if frame.anchor:
            self.open_anchors.discard(frame.anchor)
            self.anchors[frame.anchor] = (frame.value, frame.size)
        self.put(frame.value, frame.value.mark, frame.size, None)

    def alias(self, name: str, mark: Mark) -> None:
        if name in self.open_anchors:
            self.stop(mark, f"alias '*{name}' stands inside its own anchor")
        if name not in self.anchors:
            self.stop(mark, f"alias '*{name}' has no anchor '&{name}' before it", "quote a value that begins with '*'")
        value, size = self.anchors[name]
        self.alias_nodes += size
        if self.alias_nodes > MAX_ALIAS_NODES:
            self.stop(mark, f"aliases expand to more than {MAX_ALIAS_NODES} nodes")
        self.put(value, mark, size, value if isinstance(value, str) else None)

    def read(self, text: str) -> Any:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        event: Any
        for event in yaml.parse(text, Loader=loader):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                start = event.start_mark
                mark = (start.line + 1, start.column + 1)
                if event.tag is not None and event.tag != "!":
                    self.tag(event.tag, mark)
                plain = event.style is None or event.style == ""
                value = scalar(event.value) if plain and event.tag != "!" else event.value
                if event.anchor:
                    self.anchors[event.anchor] = (value, 1)
                self.put(value, mark, 1, event.value)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                start = event.start_mark
                mark = (start.line + 1, start.column + 1)
                if event.tag is not None:
                    self.tag(event.tag, mark)
                self.open(Mapping(mark) if kind is yaml.MappingStartEvent else Sequence(mark), event.anchor)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self.close()
            elif kind is yaml.AliasEvent:
                start = event.start_mark
                self.alias(event.anchor, (start.line + 1, start.column + 1))
            elif kind is yaml.DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    start = event.start_mark
                    self.stop((start.line + 1, start.column + 1), "a second document starts here", "keep one per file")
        return self.root

    def tag(self, tag: str, mark: Mark) -> None:
        self.problem(mark, f"the tag '{tag}' is not used here", "write the plain value")


def parse(text: str, source: str = "<config>") -> tuple[Any, list[Problem]]:
    """The root value and the problems that did not stop the reading. Raises ConfigError for those that did."""
    if len(text) > MAX_TEXT_BYTES:
        raise ConfigError(
            Problem(message=f"{len(text)} characters of configuration; the most is {MAX_TEXT_BYTES}", source=source)
        )
    reader = _Reader(source)
    try:
        return reader.read(text), reader.problems
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        line = before.count("\n") + 1
        column = error.position - (before.rfind("\n") + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "?")
        reader.problem((line, column), f"the character U+{code:04X} is not allowed in YAML")
    except yaml.MarkedYAMLError as error:
        _syntax(reader, text, error)
    raise ConfigError(reader.problems) from None


def _syntax(reader: _Reader, text: str, error: yaml.MarkedYAMLError) -> None:
    """Say what the YAML parser found in words about the file."""
    at = error.problem_mark or error.context_mark
    mark = (at.line + 1, at.column + 1) if at else (1, 1)
    lines = text.split("\n")
    for number in (mark[0], mark[0] - 1):
        if 0 < number <= len(lines):
            line = lines[number - 1]
            indent = line[: len(line) - len(line.lstrip())]
            if "\t" in indent:
                reader.problem(
                    (number, indent.index("\t") + 1), "a tab indents this line", "YAML indents with spaces only"
                )
                return
    problem = error.problem or "unreadable"
    context = f" {error.context}" if error.context else ""
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = "check the indentation, or quote a value that contains ': '"
    elif "alias" in context or "anchor" in context:
        hint = "quote a value that begins with '*' or '&'"
    elif "cannot start any token" in problem:
        hint = "quote a value that begins with this character"
    elif "expected" in problem and ("block" in problem or "key" in problem):
        hint = "check the indentation of this line and the one above"
    elif "quoted scalar" in context:
        hint = "close the quote"
    reader.problem(mark, f"not valid YAML: {problem}{context}", hint)
