"""`python -m tests.conformance meshcore nginx haproxy`: every case against each proxy, one table, failures below."""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict

from tests.conformance import runner


def run_all(kind: str, feedings: list[str], only: set[str], seed: int) -> dict[str, list[tuple]]:
    """Per category: (case id, feeding, troubles, lenient)."""
    os.environ["MESHCORE_TEST_PROXY"] = kind
    results = defaultdict(list)
    running = runner.Runner(seed)
    try:
        for number, case in enumerate(runner.CASES):
            if only and case["id"] not in only:
                continue
            if sys.stderr.isatty():
                print(f"\r{kind}: {number + 1}/{len(runner.CASES)} {case['id']:24}", end="", file=sys.stderr)
            for feeding in feedings:
                seen = running.run(case, feeding)
                results[case["cat"]].append((case["id"], feeding, runner.troubles(seen), seen.is_lenient))
    finally:
        running.stop()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proxies", nargs="*", default=["meshcore"])
    parser.add_argument("--feeding", action="append", choices=runner.FEEDINGS)
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    feedings = chosen.feeding or list(runner.FEEDINGS)
    tables = {kind: run_all(kind, feedings, set(chosen.only), chosen.seed) for kind in chosen.proxies}
    categories = list(next(iter(tables.values())))
    names = {kind: kind.split()[0].rsplit("/")[-1] for kind in tables}
    print(f"\n{'category (runs)':32}" + "".join(f"{names[kind]:>14}" for kind in tables))
    for category in categories:
        n = len(next(iter(tables.values()))[category])
        print(f"{f'{category} ({n})':32}" + "".join(f"{sum(not r[2] for r in t[category]):>14}" for t in tables.values()))
    everything = {kind: [r for rows in table.values() for r in rows] for kind, table in tables.items()}
    print(f"{'passed':32}" + "".join(f"{f'{sum(not r[2] for r in rows)}/{len(rows)}':>14}" for rows in everything.values()))
    print(f"{'lenient':32}" + "".join(f"{sum(r[3] for r in rows):>14}" for rows in everything.values()))
    for kind, rows in everything.items():
        for case_id, feeding, found, _ in rows:
            if found:
                print(f"{names[kind]} {case_id} {feeding}: {'; '.join(found)}")
    return int(any(found for rows in everything.values() for _, _, found, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
