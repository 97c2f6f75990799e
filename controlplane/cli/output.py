"""How values look: a table, or JSON. Knows no service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

PADDING = "   "

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json"]),
    default="table",
    show_default=True,
    help="How to show it.",
)


def escaped(text: str) -> str:
    """Without anything that could move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns to the left, three blanks between."""
    cells = [list(headers), *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        click.echo(PADDING.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_json(value: Any) -> None:
    """Indented, keys as they stand."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def is_json(output: str) -> bool:
    return output == "json"
