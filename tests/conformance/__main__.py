"""`python -m tests.conformance meshcore nginx haproxy`: every case against each proxy, one table, failures below.

`--protocol http2` takes the HTTP/2 catalogue (peers: nginx haproxy nghttpx); `--json FILE` keeps every run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections import defaultdict

RUNNERS = {"http1": "tests.conformance.runner", "http2": "tests.conformance.http2.runner"}


def run_all(kind: str, runner, feedings: list[str], only: set[str], seed: int) -> dict[str, list[tuple]]:
    """Per category: (case id, feeding, outcome, troubles, lenient)."""
    os.environ["MESHCORE_TEST_PROXY"] = kind
    results = defaultdict(list)
    running = runner.Runner(seed)
    try:
        for number, case in enumerate(runner.CASES):
            if only and case["id"] not in only or not getattr(running, "runs", bool)(case):
                continue
            if sys.stderr.isatty():
                print(f"\r{kind}: {number + 1}/{len(runner.CASES)} {case['id']:28}", end="", file=sys.stderr)
            fed = getattr(runner, "feedings_of", lambda _: runner.FEEDINGS)(case)
            for feeding in feedings:
                if feeding in fed:
                    seen = running.run(case, feeding)
                    results[case["cat"]].append((case["id"], feeding, seen.label, runner.troubles(seen), seen.is_lenient))
    finally:
        running.stop()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proxies", nargs="*", default=["meshcore"])
    parser.add_argument("--protocol", choices=RUNNERS, default="http1")
    parser.add_argument("--feeding", action="append", choices=("one-shot", "bytewise", "random"))
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args()
    runner = importlib.import_module(RUNNERS[chosen.protocol])
    feedings = chosen.feeding or list(runner.FEEDINGS)
    tables = {kind: run_all(kind, runner, feedings, set(chosen.only), chosen.seed) for kind in chosen.proxies}
    names = {kind: kind.split()[0].rsplit("/")[-1] for kind in tables}
    print_table(tables, names)
    if chosen.json:
        keys = ("id", "feeding", "outcome", "troubles", "lenient")
        runs = {names[kind]: [dict(zip(keys, row), cat=cat) for cat, rows in table.items() for row in rows] for kind, table in tables.items()}
        with open(chosen.json, "w") as file:
            json.dump(runs, file, indent=1)
    return int(any(row[3] for table in tables.values() for rows in table.values() for row in rows))


def print_table(tables: dict[str, dict[str, list[tuple]]], names: dict[str, str]) -> None:
    def cells(texts) -> str:
        return "".join(f"{text:>14}" for text in texts)

    categories = list(dict.fromkeys(category for table in tables.values() for category in table))
    print(f"\n{'category':32}" + cells(names[kind] for kind in tables))
    for category in categories:
        rows = [table.get(category, []) for table in tables.values()]
        print(f"{category:32}" + cells(f"{sum(not row[3] for row in r)}/{len(r)}" if r else "-" for r in rows))
    everything = {kind: [row for rows in table.values() for row in rows] for kind, table in tables.items()}
    print(f"{'passed':32}" + cells(f"{sum(not row[3] for row in rows)}/{len(rows)}" for rows in everything.values()))
    print(f"{'lenient':32}" + cells(sum(row[4] for row in rows) for rows in everything.values()))
    for kind, rows in everything.items():
        for case_id, feeding, outcome, found, _ in rows:
            if found:
                print(f"{names[kind]} {case_id} {feeding}: {outcome}: {'; '.join(found)}")


if __name__ == "__main__":
    sys.exit(main())
