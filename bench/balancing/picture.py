"""Latency by percentile, a line per balancer, as SVG. Draws one picture, no more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.sax.saxutils import escape

from bench.balancing.story import WITHIN_SECONDS, Outcome

# Readable on a light and on a dark page, and told apart by people who do not see red or green.
COLOURS = {"round_robin": "#e69f00", "least_request": "#0072b2", "peak_ewma": "#009e73"}
WIDTH, PANEL, LEFT, RIGHT, TOP = 860, 250, 60, 150, 62
MOST_SECONDS = 2.2
TICKS = (0.5, 0.1, 0.05, 0.01, 0.001, 0.0001)


def svg(panels: Iterable[tuple[str, Iterable[Outcome]]], foot: str) -> str:
    """One panel below the other, each `(title, outcomes)`."""
    lines: list[str] = []
    y = TOP
    for title, outcomes in panels:
        lines += _panel(y, title, outcomes)
        y += PANEL + 70
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
        'aria-label="Latency by percentile with one slow backend, by balancer">',
        "<style>text{font:11px system-ui,sans-serif;fill:#333}.h{font-size:15px;font-weight:600}.t{font-weight:600}"
        ".s{fill:#777}.g{stroke:#ccc}.d{stroke:#999;stroke-dasharray:4 3}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#999}.g{stroke:#444}}</style>",
        _text(16, 22, "Eleven backends, one of them slow for half of the time: who notices?", "h"),
        *lines,
        _text(16, y - 14, foot, "s"),
        "</svg>",
        "",
    ])


def _panel(top: float, title: str, outcomes: Iterable[Outcome]) -> list[str]:
    lines = [_text(16, top - 12, title, "t")]
    for tick in TICKS:
        x = _x(tick)
        label = f"{100 * (1 - tick):.4g}"
        lines.append(f'<path class="g" d="M{x:.1f} {top}v{PANEL}"/>')
        lines.append(_text(x, top + PANEL + 14, label, "s", "middle"))
    for seconds in (0.0, 0.5, WITHIN_SECONDS, 1.5, 2.0):
        y = _y(top, seconds)
        style = "d" if seconds == WITHIN_SECONDS else "g"
        lines.append(f'<path class="{style}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(_text(LEFT - 6, y + 4, f"{seconds:g} s", "s", "end"))
    lines.append(_text(LEFT, top + PANEL + 28, "percentile of all requests", "s"))
    for row, one in enumerate(outcomes):
        points = " ".join(f"{_x(slower):.1f},{_y(top, seconds):.1f}" for slower, seconds in one.curve)
        colour = COLOURS[one.balancer]
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + 14 + 34 * row
        lines.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 9}" width="11" height="11" fill="{colour}"/>')
        lines.append(_text(WIDTH - RIGHT + 30, y, one.balancer, "t"))
        lines.append(_text(WIDTH - RIGHT + 30, y + 13, f"{100 * one.within:.2f} % within 1 s", "s"))
    return lines


def _x(slower: float) -> float:
    """Logarithmic in the share that is slower."""
    decades = math.log10(TICKS[0] / slower) / math.log10(TICKS[0] / TICKS[-1])
    return LEFT + decades * (WIDTH - LEFT - RIGHT)


def _y(top: float, seconds: float) -> float:
    return top + PANEL * (1 - min(seconds, MOST_SECONDS) / MOST_SECONDS)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'
