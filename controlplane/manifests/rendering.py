"""Plain values as lines of block YAML, or as one line of JSON. Reads nothing."""

from __future__ import annotations

import json
import re
from typing import Any

# What every reader of YAML, 1.1 or 1.2, takes for a string without quotes.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9./_-]*")
_WORDS = frozenset("y n yes no on off true false null".split())


def scalar(value: Any) -> str:
    """A string, number or boolean."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def block(value: Any) -> list[str]:
    """A mapping or sequence, or an entry of them, without indentation."""
    if isinstance(value, dict) and value:
        lines: list[str] = []
        for key, inner in value.items():
            if isinstance(inner, (dict, list)) and inner:
                indent = "  " if isinstance(inner, dict) else ""
                lines += [f"{scalar(key)}:", *(indent + line for line in block(inner))]
            elif isinstance(inner, str) and "\n" in inner and inner.endswith("\n") and _is_simple(inner):
                lines += [f"{scalar(key)}: |", *("  " + line for line in inner.splitlines())]
            else:
                lines.append(f"{scalar(key)}: {scalar(inner)}")
        return lines
    if isinstance(value, list) and value:
        lines = []
        for inner in value:
            first, *rest = block(inner)
            lines += [f"- {first}", *("  " + line for line in rest)]
        return lines
    return [scalar(value)]


def flow(value: Any) -> str:
    """JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def entry(key: str, value: Any) -> str:
    """One entry of a mapping, as JSON has it."""
    return f"{json.dumps(key)}: {flow(value)}"


def _is_simple(text: str) -> bool:
    """Whether a block scalar holds it as it is."""
    return text.isascii() and not re.search(r"[^\x20-\x7e\n]|^[ \n]|\n\n$", text)
