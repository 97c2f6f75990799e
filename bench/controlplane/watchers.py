"""What a change costs the control plane by how many watch: 5,000 simulated proxies on one core.

    python -m bench.controlplane.watchers
    python -m bench.controlplane.watchers --watchers 200 --changes 10

The control plane has core 0 for itself. Watchers come in steps; each watches 10 services, one that all watch and nine that a tenth
watches. At every step endpoints change: of the one, of one of the nine, and at the end of one that nobody watches. Reported are CPU
and bytes an update, an update being one change told to one watcher. Ends with 1 unless

    CPU and bytes an update at the last step are at most --growth times those of the first (no faster than linear),
    so they are with four times the changes, and for changes that a tenth watches from step to step,
    a change that nobody watches costs no more with all watchers there than with none, by that factor,
    memory after all changes is at most --memory times what it was before them.

What a change costs when nobody is there (its write, its look at the model) is no part of an update, and left out in the comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from rich.console import Console

from ..progress import Steps
from .crowd import Crowd
from .plane import Plane, endpoint, running

STEPS = (0.25, 0.5, 1.0)  # of all watchers
PARTS = 10  # a watcher belongs to one part: the first service everyone watches, nine are its part's own
EACH = 10
UNWATCHED = 1 + PARTS * (EACH - 1)  # the number of the service that nobody watches

Row = dict[str, Any]


class Run:
    """The watchers so far, and what changes cost with them."""

    def __init__(self, plane: Plane, crowd: Crowd, steps: Steps) -> None:
        self._plane, self._crowd, self._steps = plane, crowd, steps
        self._number = 0
        self.watchers = 0

    def join(self, more: int, streams: int) -> None:
        for part in range(PARTS):
            services = [0, *range(1 + part * (EACH - 1), 1 + (part + 1) * (EACH - 1))]
            self._crowd.join(more // PARTS // streams, streams, services)
        self.watchers += more

    def change(self, changes: int, service: int, interested: int) -> Row:
        """So many changes, and what they cost."""
        self._one(service, interested)
        before, cpu_s, took_s = self._plane.figures(), self._plane.cpu_s(), time.monotonic()
        for _ in range(changes):
            self._one(service, interested)
        cpu_s, took_s, after = self._plane.cpu_s() - cpu_s, time.monotonic() - took_s, self._plane.figures()
        octets = after["discovery_bytes_total"] - before["discovery_bytes_total"]
        updates = changes * interested
        found: Row = {
            "watchers": self.watchers, "interested": interested, "changes": changes, "updates": updates,
            "cpu_us_per_change": round(cpu_s / changes * 1e6, 1), "last_watcher_ms": round(took_s / changes * 1e3, 1),
            "rss_mib": round(self._plane.rss_mib(), 1),
        }  # fmt: skip
        if updates:
            found["cpu_us_per_update"] = round(cpu_s / updates * 1e6, 1)
            found["bytes_per_update"] = round(octets / updates, 1)
        self._steps.done(f"{self.watchers} watchers, {interested} of a change: {found['cpu_us_per_change']} us a change")
        return found

    def _one(self, service: int, interested: int) -> None:
        self._number += 1
        value = endpoint(service, 0, weight=101 + self._number % 60_000)
        self._crowd.expect(interested)
        self._plane.apply([value])
        self._crowd.read(interested)


def measure(plane: Plane, options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """All rows, and what does not hold."""
    with Steps(Console(stderr=True), len(STEPS) * 2 + 3) as steps:
        plane.fill(UNWATCHED + 1)
        crowd = Crowd(plane.address, plane.member())
        run = Run(plane, crowd, steps)
        alone = run.change(options.changes * 4, UNWATCHED, 0)
        unit = PARTS * options.streams
        rows = []
        for share in STEPS:
            count = int(options.watchers * share) // unit * unit
            steps.say(f"{count} proxies watch")
            run.join(count - run.watchers, options.streams)
            rows.append(run.change(options.changes, 0, run.watchers))
            rows.append(run.change(options.changes * 2, 1, run.watchers // PARTS))
        steps.say("four times the changes")
        rows.append(run.change(options.changes * 4, 0, run.watchers))
        unwatched = run.change(options.changes * 4, UNWATCHED, 0)
        crowd.close()
    return [alone, *rows, unwatched], judged(alone, rows, unwatched, options.growth, options.memory)


def judged(alone: Row, rows: list[Row], unwatched: Row, growth: float, memory: float) -> list[str]:
    """What does not hold."""
    first, first_part, (last, part, more) = rows[0], rows[1], rows[-3:]

    def cpu_us(row: Row) -> float:
        return float(row["cpu_us_per_change"] - alone["cpu_us_per_change"]) / row["interested"]

    wrong = []
    pairs = ((first, last, "more watchers"), (first, more, "more changes"), (first_part, part, "a tenth that watches"))
    for before, row, name in pairs:
        if cpu_us(row) > cpu_us(before) * growth:
            wrong.append(f"CPU an update with {name}: {cpu_us(row):.1f} us, was {cpu_us(before):.1f}")
        if row["bytes_per_update"] > before["bytes_per_update"] * growth:
            wrong.append(f"bytes an update with {name}: {row['bytes_per_update']}, were {before['bytes_per_update']}")
    if unwatched["cpu_us_per_change"] > alone["cpu_us_per_change"] * growth:
        wrong.append(f"a change that nobody watches: {unwatched['cpu_us_per_change']} us, was {alone['cpu_us_per_change']}")
    if more["rss_mib"] > last["rss_mib"] * memory:
        wrong.append(f"memory: {last['rss_mib']} MiB, then {more['rss_mib']}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--watchers", type=int, default=5_000)
    parser.add_argument("--streams", type=int, default=1, help="watchers on one connection")
    parser.add_argument("--changes", type=int, default=15, help="at each step, that all watch")
    parser.add_argument("--core", type=int, default=0, help="the control plane's own")
    parser.add_argument("--growth", type=float, default=1.25, help="what an update may cost, as times the first step's")
    parser.add_argument("--memory", type=float, default=1.02, help="what memory may become, as times what it was")
    options = parser.parse_args()
    with running(options.core) as plane:
        rows, wrong = measure(plane, options)
    print(json.dumps(rows, indent=2))
    print("\n".join(f"DOES NOT HOLD: {one}" for one in wrong) or "holds: no faster than linear, and memory is flat")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
