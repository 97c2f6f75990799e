"""The one table of a comparison, for a terminal and for Markdown. Computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from bench.gates import PROXIES

CONTENDERS = ("meshcore", "forwarder", *PROXIES)
RIVALS = CONTENDERS[1:]
HEADER = ["", *CONTENDERS, *(f"/ {rival}" for rival in RIVALS), "gates"]


class Section(str):
    """A row that only names what the rows below it show."""


Row = Section | list[str]


def _spread(found: dict[str, Any] | None, digits: int = 2) -> str:
    if not found:
        return "-"
    low, high = found["min"], found["max"]
    return f"{found['median']:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def _gates(report: dict[str, Any], row: str) -> str:
    mine = [gate for gate in report["gates"] if gate["row"] == row]
    if not mine:
        return ""
    failed = [gate for gate in mine if not gate["holds"]]
    if not failed:
        return "PASS"
    return "FAIL " + ", ".join(
        f"{gate['value']:.3g} > {gate['limit']:g} {gate['against']}".strip() for gate in failed
    )


def rows(report: dict[str, Any]) -> Iterator[Row]:
    """Every row of the table, sections between them."""
    if report["shapes"]:
        yield Section("CPU µs per request: median (min..max); ratio meshcore / peer, paired by round")
        for key, shape in report["shapes"].items():
            yield _shape_row(report, key, shape, "cpu_us")
        yield Section("requests/s of one worker, closed loop")
        for shape in report["shapes"].values():
            cells = [_thousands(shape["peers"].get(name, {}).get("rps")) for name in CONTENDERS]
            yield [shape["label"], *cells, *[""] * len(RIVALS), ""]
    handshakes = [shape for shape in report["shapes"].values() if shape.get("is_handshakes")]
    if handshakes:
        yield Section("handshakes per second that one core carries, with a request each: from CPU")
        for shape in handshakes:
            cells = [_per_core(shape["peers"].get(name, {}).get("cpu_us")) for name in CONTENDERS]
            yield [shape["label"], *cells, *[""] * len(RIVALS), ""]
    if report["syscalls"]:
        yield Section("system calls per request")
        found = report["syscalls"]
        cells = [_syscalls(found.get(name)) for name in CONTENDERS]
        yield ["small request, 32 connections", *cells, *[""] * len(RIVALS), ""]
    for kind, by_name in report["latency"].items():
        yield Section(f"latency added to direct, µs, {kind}")
        for quantile in ("p50", "p99", "p99.9"):
            cells = [_spread(by_name.get(name, {}).get(f"added_{quantile}"), 0) for name in CONTENDERS]
            yield [quantile, *cells, *[""] * len(RIVALS), ""]
    if report["memory"]:
        yield Section("bytes per idle connection that made one request (PSS, user space)")
        cells = [_memory(report["memory"].get(name)) for name in CONTENDERS]
        yield [f"{report['settings']['idle_connections']} connections", *cells, *[""] * len(RIVALS),
               _gates(report, "memory")]
    if report.get("tls_memory"):
        yield Section("bytes per idle TLS 1.3 connection that made one request (PSS, user space)")
        cells = [_memory(report["tls_memory"].get(name)) for name in CONTENDERS]
        yield [f"{report['settings']['idle_tls_connections']} connections", *cells, *[""] * len(RIVALS),
               _gates(report, "tls_memory")]
    if report["pairs"]:
        yield Section("meshcore beside itself: CPU per request, ratio of pairs of runs")
        for key, pair in report["pairs"].items():
            cell = _spread(pair["ratio"], 3) if "ratio" in pair else f"skipped: {pair['skipped']}"
            yield [pair["label"], cell, *[""] * (len(RIVALS) * 2), _gates(report, key)]


def _shape_row(report: dict[str, Any], key: str, shape: dict[str, Any], measure: str) -> list[str]:
    cells = []
    for name in CONTENDERS:
        found = shape["peers"].get(name)
        text = "failed" if name in shape["failed"] else _spread(found[measure] if found else None)
        if found and found["errors"]:
            text += f" {found['errors']} errors!"
        if found and found["disturbed"]:
            text += f" ~{found['disturbed']}"
        cells.append(text)
    ratios = [shape["ratios"].get(rival, {}).get("median") for rival in RIVALS]
    verdict = "FAIL no figure" if "meshcore" in shape["failed"] else _gates(report, key)
    return [shape["label"], *cells, *("-" if r is None else f"{r:.2f}" for r in ratios), verdict]


def _thousands(found: dict[str, Any] | None) -> str:
    return f"{found['median'] / 1000:.1f}k" if found else "-"


def _per_core(found: dict[str, Any] | None) -> str:
    return f"{1e6 / found['median']:.0f}" if found and found["median"] else "-"


def _syscalls(found: dict[str, Any] | None) -> str:
    if not found:
        return "-"
    if "skipped" in found:
        return f"skipped: {found['skipped']}"
    parts = [f"{count:.2f} {name}" for name, count in found.items() if name != "total"]
    return f"{found['total']:.2f}: " + ", ".join(parts[:5])


def _memory(found: dict[str, Any] | None) -> str:
    if not found:
        return "-"
    return f"{found['bytes']:.0f}" if "bytes" in found else f"skipped: {found['skipped']}"


def footnotes(report: dict[str, Any]) -> list[str]:
    """What a reader needs to know before quoting a figure."""
    notes = [f"{name}: not in this run: {reason}" for name, reason in report["missing"].items()]
    notes += [
        f"{name}, {shape['label']}: failed: {reason}"
        for shape in report["shapes"].values()
        for name, reason in shape["failed"].items()
    ]
    if any(p["disturbed"] for s in report["shapes"].values() for p in s["peers"].values()):
        notes.append("~n: n of the rounds ran while something else used the machine; quote with care.")
    return notes


def render(report: dict[str, Any], console: Console) -> None:
    """Prints the table; columns without any figure are left out."""
    listed = list(rows(report))
    keep = [
        column
        for column in range(len(HEADER))
        if column == 0 or any(isinstance(row, list) and row[column] not in ("", "-") for row in listed)
    ]
    table = RichTable(title=f"meshcore and its peers, {report['machine_line']}", show_lines=False)
    for column in keep:
        table.add_column(HEADER[column], overflow="fold", justify="left" if column == 0 else "right")
    for row in listed:
        if isinstance(row, Section):
            table.add_section()
            table.add_row(f"[bold]{row}[/bold]")
        else:
            table.add_row(*(_coloured(row[column]) for column in keep))
    console.print(table)
    for note in footnotes(report):
        console.print(note, highlight=False)


def _coloured(cell: str) -> str:
    if cell.startswith("PASS"):
        return f"[green]{cell}[/green]"
    return f"[red]{cell}[/red]" if cell.startswith("FAIL") else cell


def markdown(report: dict[str, Any], *, brief: bool = False) -> str:
    """The table as Markdown, one small table per section; `brief`: medians of the sections that are judged."""
    parts: list[str] = []
    block: list[list[str]] = []
    title = ""

    def flush() -> None:
        if not block:
            return
        keep = [c for c in range(len(HEADER)) if c == 0 or any(row[c] not in ("", "-") for row in block)]
        head = [HEADER[column] for column in keep]
        parts.append(f"**{title}**\n\n" + "\n".join(
            "| " + " | ".join(cells) + " |"
            for cells in [head, ["---"] * len(head), *([row[c] for c in keep] for row in block)]
        ))
        block.clear()

    for row in rows(report):
        if isinstance(row, Section):
            flush()
            title = str(row).replace(" (min..max)", "") if brief else str(row)
        elif not brief:
            block.append(row)
        elif not title.startswith(("requests/s", "system calls", "latency")):
            block.append([re.sub(r" \([^)]*\.\.[^)]*\)", "", cell) for cell in row])
    flush()
    notes = "\n".join(f"- {note}" for note in footnotes(report))
    return "\n\n".join(filter(None, [*parts, notes]))
