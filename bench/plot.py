"""Grouped bars as SVG: CPU per request by shape and contender. Draws one picture, no more."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from bench.table import CONTENDERS

# Readable on a light and on a dark page, and told apart by people who do not see red or green.
COLOURS = {
    "meshcore": "#0072b2",
    "forwarder": "#999999",
    "nginx": "#009e73",
    "haproxy": "#e69f00",
    "envoy": "#cc79a7",
}
WIDTH, LEFT, RIGHT, TOP = 860, 215, 70, 64
BAR, GAP = 11, 14


def svg(report: dict[str, Any]) -> str:
    """Every shape has its own scale, and Envoy's bars are cut: else the rest would be flat. Figures stand beside."""
    names = [name for name in CONTENDERS if any(name in s["peers"] for s in report["shapes"].values())]
    lines: list[str] = []
    y = TOP
    for shape in report["shapes"].values():
        values = {n: shape["peers"][n]["cpu_us"] for n in names if n in shape["peers"]}
        if not values:
            continue
        scale = _scale(shape, values)
        middle = y + len(values) * BAR / 2
        lines.append(_text(LEFT - 10, middle - 2, shape["title"], "end", "t"))
        lines.append(_text(LEFT - 10, middle + 11, shape.get("concurrency", f"{shape['conns']} connections"), "end", "s"))
        for name, found in values.items():
            lines += _bar(y, found, scale, COLOURS[name])
            y += BAR
        y += GAP
    height = y + 34
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="CPU microseconds per request, by proxy">',
        "<style>text{font:11px system-ui,sans-serif;fill:#333}.h{font-size:15px;font-weight:600}"
        ".t{font-weight:600}.s{fill:#777}.w{stroke:#333}.c{fill:#fff}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#999}.w{stroke:#ddd}.c{fill:#111}}</style>",
        _text(16, 22, "CPU µs per request of one worker: lower is better; each group has its own scale", "start", "h"),
        *_legend(names),
        *lines,
        _text(16, y + 16, f"{report['date']}: {report['machine_line']}", "start", "s"),
        "</svg>",
        "",
    ])


def _scale(shape: dict[str, Any], values: dict[str, Any]) -> float:
    """Pixels per µs, one scale per shape: the dearest contender but Envoy takes three quarters of the width."""
    rivals = [found["median"] for name, found in values.items() if name != "envoy"] or [
        found["median"] for found in values.values()
    ]
    return (WIDTH - LEFT - RIGHT) / (max(rivals) * 1.35)


def _bar(y: float, found: dict[str, float], scale: float, colour: str) -> list[str]:
    limit = WIDTH - LEFT - RIGHT
    length = found["median"] * scale
    is_cut = length > limit
    drawn = min(length, limit)
    parts = [
        f'<rect x="{LEFT}" y="{y + 1}" width="{drawn:.1f}" height="{BAR - 2}" fill="{colour}"/>'
    ]
    if not is_cut:
        low, high = LEFT + found["min"] * scale, LEFT + min(found["max"] * scale, limit)
        parts.append(f'<path class="w" d="M{low:.1f} {y + BAR / 2}H{high:.1f}" stroke-width="1"/>')
        drawn = max(drawn, high - LEFT)
    else:
        edge = LEFT + drawn - 14
        parts.append(f'<path class="c" d="M{edge} {y + BAR}l6 {-BAR}h4l-6 {BAR}z"/>')
    digits = 1 if found["median"] < 100 else 0
    text = f"{found['median']:.{digits}f}"
    return [*parts, _text(LEFT + drawn + 5, y + BAR - 2, text, "start", "")]


def _legend(names: list[str]) -> list[str]:
    parts, x = [], 16
    for name in names:
        parts.append(f'<rect x="{x}" y="34" width="11" height="11" fill="{COLOURS[name]}"/>')
        parts.append(_text(x + 16, 44, name, "start", ""))
        x += 30 + 7 * len(name)
    return parts


def _text(x: float, y: float, text: str, anchor: str, style: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'
