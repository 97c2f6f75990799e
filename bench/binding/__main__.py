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
from bench.binding import cost, names, shift

RESULTS = Path(__file__).parents[1] / "results"
MOST_SHIFT_MS = 100.0
MOST_MORE_PERCENT = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.binding", description=__doc__)
    parser.add_argument("--only", choices=("cost", "names", "shift"), help="one of them")
    parser.add_argument("--proxies", type=int, default=100, help="that watch the namerd (100)")
    parser.add_argument("--edits", type=int, default=40, help="edits of the table (40; a quarter of it to new ids)")
    parser.add_argument("--rounds", type=int, default=100, help="of the requests' cost (100)")
    parser.add_argument("--explain", type=int, metavar="EDITS", help="show where the time of so many of the slowest edits went")
    parser.add_argument("--save", action="store_true", help="write into bench/results, not build/results")
    given = parser.parse_args()
    console = Console(width=160)
    today = datetime.date.today().isoformat()
    report: dict[str, object] = {"date": today, "machine": machine.one_line()}
    if given.only in (None, "cost"):
        costs = cost.measure(max(2, given.rounds))
        report["cost"] = msgspec.to_builtins(costs)
        console.print(_table("CPU of the proxy per request, one way beside another; µs", costs))
        verdict = "met" if costs[0].more_percent <= MOST_MORE_PERCENT else "MISSED"
        console.print(f"gate: a name at most {MOST_MORE_PERCENT:g} % beside a plain route: {verdict}")
    if given.only in (None, "names"):
        steps = names.measure()
        report["names"] = msgspec.to_builtins(steps)
        console.print(_table("names bound in one proxy; µs", steps))
        for share, more in names.more_percent(steps[-1]).items():
            verdict = "met" if more <= names.MOST_MORE_PERCENT[share] else "MISSED"
            most = names.MOST_MORE_PERCENT[share]
            console.print(f"gate: {share} of {steps[-1].names} names at most {most:g} % above that of {names.FEW}: {more:+.1f} %: {verdict}")
    if given.only in (None, "shift"):
        found, edits = shift.measure(given.proxies, given.edits)
        report["shift"] = msgspec.to_builtins(found)
        if given.explain:
            for edit in sorted(edits, key=lambda one: one.moved_ms[1], reverse=True)[: given.explain]:
                console.print(msgspec.json.encode(edit).decode())
        console.print(_table("from an edit at the namerd until requests through the proxies moved", found))
        for shifted in found:
            verdict = "met" if shifted.p99_ms <= MOST_SHIFT_MS else "MISSED"
            console.print(f"gate: {shifted.to}: p99 <= {MOST_SHIFT_MS:g} ms: {verdict}")
    place = RESULTS if given.save else Path("build") / "results"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{today}-{machine.name()}-binding.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"written: {path}")


def _table(title: str, rows: list[names.Step] | list[shift.Shift] | list[cost.Cost]) -> Table:
    table = Table(title=title, title_justify="left")
    for field in rows[0].__struct_fields__:
        table.add_column(field.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:g}" for value in msgspec.structs.astuple(row)))
    return table


if __name__ == "__main__":
    main()
