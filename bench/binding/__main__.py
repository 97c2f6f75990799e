"""Measures what names cost, and how fast an edit of a table reaches a hundred proxies. Prints a table, writes JSON."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.binding import names, shift

RESULTS = Path(__file__).parents[1] / "results"
MOST_SHIFT_MS = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.binding", description=__doc__)
    parser.add_argument("--only", choices=("names", "shift"), help="one of the two")
    parser.add_argument("--watchers", type=int, default=100, help="proxies that watch (100)")
    parser.add_argument("--edits", type=int, default=40, help="edits of the table (40)")
    parser.add_argument("--save", action="store_true", help="write into bench/results, not build/results")
    given = parser.parse_args()
    console = Console(width=120)
    today = datetime.date.today().isoformat()
    report: dict[str, object] = {"date": today, "machine": machine.one_line()}
    if given.only != "shift":
        steps = names.measure()
        report["names"] = msgspec.to_builtins(steps)
        console.print(_table("names bound in one proxy; µs", steps))
    if given.only != "names":
        found = shift.measure(given.watchers, given.edits)
        report["shift"] = msgspec.to_builtins(found)
        console.print(_table("from an edit at the namerd until watchers were told, and until requests moved", [found]))
        console.print(f"gate: p99 <= {MOST_SHIFT_MS:g} ms: {'met' if found.moved_p99_ms <= MOST_SHIFT_MS >= found.told_p99_ms else 'MISSED'}")
    place = RESULTS if given.save else Path("build") / "results"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{today}-{machine.name()}-binding.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"written: {path}")


def _table(title: str, rows: list[names.Step] | list[shift.Shift]) -> Table:
    table = Table(title=title, title_justify="left")
    for field in rows[0].__struct_fields__:
        table.add_column(field.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:g}" for value in msgspec.structs.astuple(row)))
    return table


if __name__ == "__main__":
    main()
