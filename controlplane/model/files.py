"""Values of the model in YAML or JSON text: a list of them, each with its `kind`, problems with line and column. Reads text.

    - {kind: service, namespace: shop, name: web, ports: [{port: 80}]}
    - {kind: endpoint, namespace: shop, service: web, name: web-1, address: 192.0.2.7, port: 8080}

All that is wrong is told at once, and nothing of such a text counts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshcore.config.yaml_source import locate, parse
from meshcore.errors import ConfigError, Problem

from ..errors import Invalid
from .codec import KINDS, read
from .members import Named

MAX_VALUES = 100_000


def parsed(text: str, source: str) -> Any:
    """Plain values, with their marks; ConfigError for what is no YAML."""
    tree, problems = parse(text, source)
    if problems:
        raise ConfigError(problems)
    return tree


def read_values(text: str, source: str) -> tuple[Named, ...]:
    """The values of a text; ConfigError with everything that is wrong with it."""
    tree = parsed(text, source)
    if tree is None or tree == {}:
        return ()
    is_one = isinstance(tree, dict)
    entries = [tree] if is_one else tree
    if not isinstance(entries, list) or len(entries) > MAX_VALUES:
        expected = f"a list of values, each with its kind, at most {MAX_VALUES}"
        raise ConfigError(Problem(message="not a list of values", hint=expected, source=source, line=1, column=1))
    values: list[Named] = []
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(entries):
        at: tuple[str | int, ...] = () if is_one else (index,)
        try:
            value = _value(entry)
        except Invalid as error:
            problems += [_placed(problem, at, error.what, tree, source) for problem in error.problems]
            continue
        if (value.kind, value.key) in seen:
            twice = Problem(message=f"{value.kind} '{value.key}' stands there twice", hint="keep one")
            problems.append(_placed(twice, at, "", tree, source))
        seen.add((value.kind, value.key))
        values.append(value)
    if problems:
        raise ConfigError(problems)
    return tuple(values)


def _value(entry: Any) -> Named:
    if not isinstance(entry, dict):
        raise Invalid("value", [Problem(message="not a mapping", expected="kind, namespace, name and what the kind has")])
    kind = entry.get("kind")
    if not isinstance(kind, str):
        raise Invalid("value", [Problem(message="no kind", expected="one of " + ", ".join(KINDS))])
    return read(kind, {name: item for name, item in entry.items() if name != "kind"})


def _placed(problem: Problem, at: tuple[str | int, ...], what: str, tree: Any, source: str) -> Problem:
    line, column = locate(tree, (*at, *problem.path))
    where = ".".join(str(step) for step in problem.path)
    words = [word for word in (what, where, problem.message) if word]
    hint = problem.hint or (f"expected {problem.expected}" if problem.expected else "")
    return msgspec.structs.replace(
        problem, message=": ".join(words), hint=hint, path=(*at, *problem.path), source=source, line=line, column=column
    )


def plain(value: Named) -> dict[str, Any]:
    """A value as files have it, its kind first; what has its default is left out."""
    made: dict[str, Any] = {"kind": value.kind, **msgspec.to_builtins(value)}
    return made
