"""Tells the story to the three balancers, simulated and over real sockets, and writes table, JSON and picture."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.balancing.picture import svg
from bench.balancing.simulation import simulate
from bench.balancing.sockets import play
from bench.balancing.story import BALANCERS, PUBLISHED, Outcome, Story

RESULTS = Path(__file__).parents[1] / "results"


def table(title: str, outcomes: list[Outcome]) -> Table:
    found = Table(title=title, title_justify="left")
    for heading in ("balancer", "within 1 s", "published", "p50", "p95", "p99", "p99.9", "slow one got", "errors"):
        found.add_column(heading, justify="left" if heading == "balancer" else "right")
    for one in outcomes:
        times = [f"{one.percentiles[key] * 1000:.0f} ms" for key in ("50", "95", "99", "99.9")]
        published = f"{100 * PUBLISHED[one.balancer]:g} %"
        found.add_row(one.balancer, f"{100 * one.within:.2f} %", published, *times, f"{one.to_slow}", f"{one.errors}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.balancing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the story is (60)")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests per second (1000)")
    parser.add_argument("--only", choices=("simulation", "sockets"), help="one of the two ways to tell it")
    parser.add_argument("--save", action="store_true", help="write into bench/results, not build/results")
    given = parser.parse_args()
    console = Console(width=120)
    story = Story(seconds=given.seconds, rate=given.rate)
    panels: list[tuple[str, list[Outcome]]] = []
    ways = {"simulation": simulate, "sockets": play}
    for way, tell in ways.items():
        if given.only not in (None, way):
            continue
        outcomes = [tell(story, balancer) for balancer in BALANCERS]
        title = f"{way}: {story.requests} requests in {story.seconds:g} s, seed {story.seed}"
        panels.append((title, outcomes))
        console.print(table(title, outcomes))
    today = datetime.date.today().isoformat()
    place = RESULTS if given.save else Path("build") / "results"
    place.mkdir(parents=True, exist_ok=True)
    stem = place / f"{today}-{machine.name()}-balancing"
    report = {
        "date": today,
        "machine": machine.one_line(),
        "story": msgspec.to_builtins(story),
        "outcomes": {title.partition(":")[0]: msgspec.to_builtins(outcomes) for title, outcomes in panels},
    }
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".svg").write_text(svg(panels, f"{today}: {machine.one_line()}"))
    console.print(f"written: {stem}.json, .svg")


if __name__ == "__main__":
    main()
