"""How figures look in a table, and tables on a terminal or in a pipe. Knows no proxy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from meshcore.taps import escape

NONE = "-"
PADDING = "   "


def is_plain() -> bool:
    """Whether stdout takes neither colours nor cursor movements. NO_COLOR as in no-color.org."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}%"


def rate(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}rps"


def milliseconds(value: float | None) -> str:
    """Whole milliseconds; below ten, where a mesh hop lives, with two places."""
    if value is None:
        return NONE
    return f"{value:.0f}ms" if value >= 9.995 else f"{value:.2f}ms"


def count(value: int | None) -> str:
    return NONE if value is None else str(value)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines: the first column to the left, the others to the right, three blanks between."""
    cells = [list(headers), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    return [
        PADDING.join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in cells
    ]


def heading(line: str) -> str:
    return line if is_plain() else click.style(line, bold=True)


def verdict(text: str, *, good: bool) -> str:
    return text if is_plain() else click.style(text, fg="green" if good else "red", bold=True)
