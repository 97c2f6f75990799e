"""How figures look in a table, and tables on a terminal or in a pipe. Knows no proxy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

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


def coloured(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """The same as a rich table for a terminal: what fails or is ejected stands out, nothing wraps."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, len(PADDING), 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        shown.add_column(header, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        cells = (Text(escape(cell), style=_style(header, cell)) for header, cell in zip(headers, row, strict=True))
        shown.add_row(*cells)
    return shown


def _style(header: str, cell: str) -> str:
    if cell == NONE:
        return "dim"
    if header == "SUCCESS":
        # Two nines and a half: below it a user meets a failure a minute at a few requests a second.
        return "green" if float(cell.rstrip("%")) >= 99.5 else "yellow" if float(cell.rstrip("%")) >= 95 else "bold red"
    return "bold red" if (header, cell) in (("EJECTED", "yes"), ("HEALTHY", "no")) else ""


def verdict(text: str, *, good: bool) -> str:
    return text if is_plain() else click.style(text, fg="green" if good else "red", bold=True)
