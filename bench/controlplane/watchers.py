"""What a change costs the control plane by how many watch: 5,000 simulated proxies on one core.

    python -m bench.controlplane.watchers
    python -m bench.controlplane.watchers --watchers 200 --changes 10

The control plane has core 0 for itself. Each watcher watches 10 services: one that all watch, one or two that half or a fifth of them
watch if it is among those, and others that a tenth watches. Reported are CPU and bytes an update, an update being one change told to
one watcher. Watchers come in steps, and at every step endpoints change. When all are there, changes that all, half, a fifth and a tenth
watch, and four times as many that all watch, are made in turns, so that whatever else the machine does meets all alike. What counts is
the median of --rounds of each. Ends with 1 unless

    CPU and bytes an update at the last step are at most --growth times those of the first (no faster than linear),
    so they are for changes that all watch as against those that fewer watch, and with four times the changes,
    a change that nobody watches costs no more with all watchers there than with none, by that factor,
    memory after all changes is at most --memory times what it was before them.

What a change costs when nobody is there (its write, its look at the model) is no part of an update, and left out in the comparison.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from typing import Any

from rich.console import Console

from ..progress import Steps
from .crowd import Crowd
from .plane import Plane, endpoint, running

STEPS = (0.25, 0.5, 1.0)  # of all watchers
PARTS = 10  # a watcher belongs to one part
EACH = 10
SHARED = (PARTS, PARTS // 2, PARTS // 5)  # how many parts watch service 0, 1, 2: the first ones
UNWATCHED = len(SHARED) + PARTS * EACH  # the number of the service that nobody watches
DOOR_SHARE = 0.45  # of its open files, the control plane's door gives to callers (`limits.max_connections: auto`)
FILES = 500  # open files besides

Row = dict[str, Any]


def own(part: int) -> int:
    """The first service that only this part watches."""
    return len(SHARED) + part * EACH


class Run:
    """The watchers so far, and what changes cost with them."""

    def __init__(self, plane: Plane, crowd: Crowd, steps: Steps) -> None:
        self._plane, self._crowd, self._steps = plane, crowd, steps
        self._number = 0
        self.watchers = 0

    def join(self, more: int, streams: int) -> None:
        for part in range(PARTS):
            shared = [service for service, parts in enumerate(SHARED) if part < parts]
            services = [*shared, *range(own(part), own(part) + EACH - len(shared))]
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
    with Steps(Console(stderr=True), 2 + options.rounds * (len(STEPS) + len(SHARED) + 2)) as steps:
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
            rows.append(middle([run.change(max(1, options.changes // 3), 0, run.watchers) for _ in range(options.rounds)]))
        steps.say("changes that many and few watch, in turns")
        few = max(1, options.changes // 3)
        watched = [(few, service, run.watchers * parts // PARTS) for service, parts in enumerate(SHARED)]
        watched += [(few, own(PARTS - 1), run.watchers // PARTS), (few * 4, 0, run.watchers)]
        turns: list[list[Row]] = [[] for _ in watched]
        for number in range(options.rounds):
            for at in range(len(watched)) if number % 2 else reversed(range(len(watched))):
                turns[at].append(run.change(*watched[at]))
        unwatched = run.change(options.changes * 4, UNWATCHED, 0)
        crowd.close()
    *parts, more = [middle(some) for some in turns]
    return [alone, *rows, *parts, more, unwatched], judged(alone, rows, parts, more, unwatched, options.growth, options.memory)


def middle(rows: list[Row]) -> Row:
    """The median of some rows of a kind, and their spread."""
    costs = [row["cpu_us_per_update"] for row in rows]
    return {
        **rows[-1], "rounds": len(rows), "cpu_us_per_change": round(statistics.median(row["cpu_us_per_change"] for row in rows), 1),
        "cpu_us_per_update": round(statistics.median(costs), 1), "spread": [min(costs), max(costs)],
    }  # fmt: skip


def judged(alone: Row, steps: list[Row], parts: list[Row], more: Row, unwatched: Row, growth: float, memory: float) -> list[str]:
    """What does not hold."""

    def cpu_us(row: Row) -> float:
        return float(row["cpu_us_per_change"] - alone["cpu_us_per_change"]) / row["interested"]

    wrong = []
    everybody, *fewer = parts
    pairs = [(some, everybody, f"all where {some['interested']} of them watch") for some in fewer]
    pairs.append((steps[0], steps[-1], f"{steps[-1]['watchers']} watchers where it was {steps[0]['watchers']}"))
    for some, row, name in [*pairs, (everybody, more, "four times the changes")]:
        if cpu_us(row) > cpu_us(some) * growth:
            wrong.append(f"CPU an update, {name}: {cpu_us(row):.1f} us, was {cpu_us(some):.1f}")
        if row["bytes_per_update"] > some["bytes_per_update"] * growth:
            wrong.append(f"bytes an update, {name}: {row['bytes_per_update']}, were {some['bytes_per_update']}")
    if unwatched["cpu_us_per_change"] > alone["cpu_us_per_change"] * growth:
        wrong.append(f"a change that nobody watches: {unwatched['cpu_us_per_change']} us, was {alone['cpu_us_per_change']}")
    if more["rss_mib"] > steps[-1]["rss_mib"] * memory:
        wrong.append(f"memory: {steps[-1]['rss_mib']} MiB, then {more['rss_mib']}")
    return wrong


def room_for(connections: int) -> None:
    """Lets this process and those it starts have so many connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(connections / DOOR_SHARE) + FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"RLIMIT_NOFILE: {wanted} open files are needed, {hard} are the most here; fewer --watchers, more --streams, or `ulimit -Hn {wanted}`")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--watchers", type=int, default=5_000)
    parser.add_argument("--streams", type=int, default=1, help="watchers on one connection")
    parser.add_argument("--changes", type=int, default=15, help="at each step, that all watch")
    parser.add_argument("--rounds", type=int, default=6, help="of changes that many and few watch")
    parser.add_argument("--core", type=int, default=0, help="the control plane's own")
    parser.add_argument("--growth", type=float, default=1.25, help="what an update may cost, as times one that fewer watch")
    parser.add_argument("--memory", type=float, default=1.02, help="what memory may become, as times what it was")
    options = parser.parse_args()
    room_for(options.watchers // options.streams)
    with running(options.core) as plane:
        rows, wrong = measure(plane, options)
    print(json.dumps(rows, indent=2))
    print("\n".join(f"DOES NOT HOLD: {one}" for one in wrong) or "holds: no faster than linear, and memory is flat")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
