"""Figures and tables of traffic, as Conduit shows them. Knows no service.

Cells: `2/3`, `99.50%`, `12.3rps`, `45ms`, `100%`, and `-` where nothing happened. The first columns to the left, figures to the
right, three blanks between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from meshcore.taps import escape

NONE = "-"
PADDING = "   "
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Window(click.ParamType[float]):
    """A span such as 30s, 10m or 24h."""

    name = "window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", str(value))
        seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
        if not 1 <= seconds <= 86_400:
            self.fail(f"got {value!r}; expected 1s to 24h, such as 30s, 10m or 1h", param, ctx)
        return seconds


def success(row: Any) -> str:
    answered = row.successes + row.failures
    return f"{100 * row.successes / answered:.2f}%" if answered else NONE


def rate(row: Any, span_s: float) -> str:
    return f"{row.requests / span_s:.1f}rps" if row.requests else NONE


def secured(row: Any) -> str:
    return f"{100 * row.secure / row.requests:.0f}%" if row.requests else NONE


def latencies(row: Any, *, wide: bool = False) -> list[str]:
    """P50, P95, P99; wide: with two places."""
    if not row.HasField("p50_ms"):
        return [NONE] * 3
    return [f"{ms:.2f}ms" if wide else f"{ms:.0f}ms" for ms in (row.p50_ms, row.p95_ms, row.p99_ms)]


def tcp(row: Any, span_s: float) -> list[str]:
    """Connections open now, octets a second read from the other side and written to it."""
    if not (row.tcp_open or row.tcp_opened or row.tcp_read_bytes or row.tcp_written_bytes):
        return [NONE] * 3
    return [str(row.tcp_open), f"{row.tcp_read_bytes / span_s:.1f}B/s", f"{row.tcp_written_bytes / span_s:.1f}B/s"]


def lines(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A table; the first `left` columns to the left."""
    cells = [list(headers), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return [
        PADDING.join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def figures(row: Any, span_s: float) -> dict[str, Any]:
    """A row's figures for JSON, exact."""
    answered = row.successes + row.failures
    has_latency = row.HasField("p50_ms")
    return {
        "requests": row.requests,
        "success_percent": 100 * row.successes / answered if answered else None,
        "rps": row.requests / span_s,
        "secured_percent": 100 * row.secure / row.requests if row.requests else None,
        "p50_ms": row.p50_ms if has_latency else None,
        "p95_ms": row.p95_ms if has_latency else None,
        "p99_ms": row.p99_ms if has_latency else None,
        "tcp_open": row.tcp_open,
        "tcp_opened": row.tcp_opened,
        "tcp_read_bytes_per_s": row.tcp_read_bytes / span_s,
        "tcp_written_bytes_per_s": row.tcp_written_bytes / span_s,
    }
