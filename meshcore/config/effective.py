"""The effective configuration: every value, defaults filled in, each with where it comes from. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from .loader import Origin, origin_of
from .section import Section, SectionKind, specs
from .types import Config
from .values import ListKind
from .yaml_source import locate


class Leaf(msgspec.Struct, frozen=True):
    """One value with its origin: `default`, `mesh.yaml:12`, `flag`, `env MESHCORE_WORKERS` or `python`."""

    value: Any
    origin: str


def effective(config: Config) -> dict[str, Any]:
    """Nested dicts and lists in the order of the documentation, with a Leaf for each value."""
    origin = origin_of(config)
    tree = origin.tree() if origin is not None else None
    return _section(config, (), origin, tree, tree)


_ABSENT: Any = object()


def _section(
    section: Section, path: tuple[str | int, ...], origin: Origin | None, tree: Any, raw: Any
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for spec in specs(type(section)).values():
        value = getattr(section, spec.name)
        here = (*path, spec.name)
        given = raw.get(spec.name, _ABSENT) if isinstance(raw, dict) else _ABSENT
        kind = spec.kind
        if isinstance(kind, SectionKind):
            result[spec.name] = (
                Leaf(None, _origin(spec.default is value, origin, tree, here, given))
                if value is None
                else _section(value, here, origin, tree, given)
            )
        elif isinstance(kind, ListKind) and isinstance(kind.item, SectionKind) and value:
            items = []
            for index, item in enumerate(value):
                entry = given[index] if isinstance(given, (list, tuple)) and index < len(given) else _ABSENT
                if kind.item.short and isinstance(entry, str):
                    leaf = Leaf(item.address, _origin(False, origin, tree, (*here, index), entry))
                    rest = _section(item, (*here, index), origin, tree, _ABSENT)
                    items.append({**rest, kind.item.short: leaf})
                else:
                    items.append(_section(item, (*here, index), origin, tree, entry))
            result[spec.name] = items
        else:
            default = not spec.required and value == spec.default or spec.name == "name" and given is _ABSENT
            # A list that may be left out but not be empty is absent, not empty.
            absent = value is None or (isinstance(kind, ListKind) and kind.least and not value)
            result[spec.name] = Leaf(None if absent else kind.text(value), _origin(default, origin, tree, here, given))
    return result


def _origin(default: bool, origin: Origin | None, tree: Any, path: tuple[str | int, ...], given: Any) -> str:
    if origin is not None and len(path) == 1 and path[0] in origin.overrides:
        return origin.overrides[str(path[0])]
    if given is not _ABSENT and origin is not None and origin.text is not None:
        line, _ = locate(tree, path)
        return f"{origin.source}:{line}"
    return "default" if default else "python"


def render(config: Config) -> str:
    """The effective configuration as YAML that loads again, with each value's origin as a comment."""
    rows = list(_rows(effective(config), 0))
    width = min(60, max((len(text) for text, origin in rows if origin and len(text) <= 60), default=0))
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in rows)


def _rows(node: dict[str, Any], depth: int, first: str = "") -> Iterator[tuple[str, str]]:
    indent = "  " * depth
    lead = first or indent
    for key, value in node.items():
        if isinstance(value, Leaf):
            # A key without a value cannot be written as null: it is shown as a comment.
            if value.value is None:
                yield (f"{indent}# {key}:", value.origin)
                continue
            yield (f"{lead}{key}: {_scalar(value.value)}", value.origin)
        elif isinstance(value, dict):
            yield (f"{lead}{key}:", "")
            rows = list(_rows(value, depth + 1))
            yield from rows
            if all(text.lstrip().startswith("#") for text, _ in rows):
                yield (f"{indent}  {{}}", "")
        else:
            yield (f"{lead}{key}:", "")
            for item in value:
                yield from _rows(item, depth + 2, "  " * (depth + 1) + "- ")
        lead = indent


def _scalar(value: Any) -> str:
    """Flow-style YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n...")
