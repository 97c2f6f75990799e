"""Puts the last comparison into README.md, between its two marks: `python -m bench.readme [REPORT]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.table import markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
FILTERS_SUFFIX = "-filters.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def last_filters() -> str:
    """One sentence on filters in Python, from the last run of bench.filters; "" without one."""
    found = sorted(RESULTS.glob(f"*{FILTERS_SUFFIX}"))
    if not found:
        return ""
    gateways = json.loads(found[-1].read_text())["gateways"]
    ours = gateways["meshcore"]["rps"]["median"]
    beside = [
        f"{gateways[name]['times']['median']:.1f} × {name}"
        for name in ("mitmproxy", "aiohttp")
        if gateways.get(name, {}).get("times")
    ]
    return (
        f"**A filter in Python** that reads one header and sets another: {ours / 1000:.1f}k requests/s on one core, "
        f"{' and '.join(beside)} (`make bench-filters`)."
    )


def section(report: dict[str, Any], stem: str) -> str:
    """What stands between the marks."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return "\n\n".join(
        [
            BEGIN,
            f"![CPU per request](bench/results/{stem}.svg)",
            f"{report['date']}: {report['machine_line']}; {versions}; "
            f"{report['settings']['rounds']} interleaved rounds. How to read it: "
            "[bench/README.md](bench/README.md).",
            markdown(report, brief=True),
            *filter(None, [last_filters()]),
            END,
        ]
    )


def update(readme: Path, report: dict[str, Any], stem: str) -> bool:
    """False when the file is missing or lacks the marks: then nothing is written."""
    if not readme.exists():
        return False
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return False
    before, rest = text.split(BEGIN)
    readme.write_text(before + section(report, stem) + rest.split(END)[1])
    return True


def last_reports() -> list[Path]:
    """Comparisons, the newest last."""
    return sorted(path for path in RESULTS.glob("*.json") if not path.name.endswith(FILTERS_SUFFIX))


def main() -> int:
    reports = [Path(sys.argv[1])] if len(sys.argv) > 1 else last_reports()
    if not reports:
        print("no report in bench/results; run `make bench-peers` first", file=sys.stderr)
        return 1
    report = json.loads(reports[-1].read_text())
    if not update(ROOT / "README.md", report, reports[-1].stem):
        print(f"README.md has no {BEGIN} … {END}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
