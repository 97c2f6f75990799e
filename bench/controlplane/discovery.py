"""How soon watching proxies learn of a change, and what that costs the control plane.

    python -m bench.controlplane.discovery                      100 proxies that watch 1,000 services each
    python -m bench.controlplane.discovery --proxies 20 --services 50 --changes 20

The control plane runs in a process of its own, with SQLite on disk and its door. Each watcher is a stream on a connection of its
own with mTLS, all in one more process. A change is one endpoint written by `Admin.Apply`; its latency is the time from before that
call until a watcher has read the message, fsync included. CPU is that of the control plane's process (all threads, user and
system) around the changes. Ends with 1 when the 99th percentile is above --p99-ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

from rich.console import Console

from ..progress import Steps
from .crowd import Crowd
from .plane import Plane, endpoint, running


def change(plane: Plane, crowd: Crowd, watchers: int, service: int, number: int) -> list[float]:
    """One endpoint gets another weight than all have (100); how long until each watcher has read it."""
    value = endpoint(service, 0, weight=101 + number % 60_000)
    crowd.expect(watchers)
    started_s = time.monotonic()
    plane.apply([value])
    return [at_s - started_s for at_s in crowd.read(watchers)]


def measure(plane: Plane, options: argparse.Namespace) -> dict[str, Any]:
    """The run."""
    with Steps(Console(stderr=True), options.changes) as steps:
        steps.say(f"writing {options.services} services")
        plane.fill(options.services)
        empty_mib = plane.rss_mib()
        crowd = Crowd(plane.address, plane.member())
        steps.say(f"{options.proxies} proxies begin to watch {options.services} services each")
        join_cpu_s = plane.cpu_s()
        join_s = crowd.join(options.proxies, 1, range(options.services))
        join_cpu_s = plane.cpu_s() - join_cpu_s
        # The first change warms what the rest finds warm.
        change(plane, crowd, options.proxies, 0, 999)
        steps.say("changing endpoints")
        full_mib, before, cpu_s = plane.rss_mib(), plane.figures(), plane.cpu_s()
        latencies: list[float] = []
        last: list[float] = []
        for number in range(options.changes):
            seen = change(plane, crowd, options.proxies, number % options.services, number)
            latencies += seen
            last.append(max(seen))
            steps.done(f"the last watcher had it after {max(seen) * 1e3:.1f} ms")
            time.sleep(options.pause_ms / 1_000)
        cpu_s, after, end_mib = plane.cpu_s() - cpu_s, plane.figures(), plane.rss_mib()
        crowd.close()
    latencies.sort()
    updates = len(latencies)
    octets = after["discovery_bytes_total"] - before["discovery_bytes_total"]
    return {
        "proxies": options.proxies,
        "services_each": options.services,
        "changes": options.changes,
        "updates": updates,
        "join_s": round(join_s, 2),
        "join_cpu_s": round(join_cpu_s, 2),
        "latency_ms": {
            "p50": round(statistics.median(latencies) * 1e3, 2),
            "p99": round(latencies[int(updates * 0.99)] * 1e3, 2),
            "max": round(latencies[-1] * 1e3, 2),
        },
        "last_watcher_ms_p50": round(statistics.median(last) * 1e3, 2),
        "cpu_us_per_change": round(cpu_s / options.changes * 1e6, 1),
        "cpu_us_per_update": round(cpu_s / updates * 1e6, 1),
        "bytes_per_update": round(octets / updates, 1),
        "refreshes_per_change": round((after["refreshes_total"] - before["refreshes_total"]) / options.changes, 2),
        "rss_mib": {"empty": round(empty_mib, 1), "watched": round(full_mib, 1), "after": round(end_mib, 1)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxies", type=int, default=100)
    parser.add_argument("--services", type=int, default=1_000, help="that each of them watches")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--pause-ms", type=float, default=20.0, help="between two changes")
    parser.add_argument("--core", type=int, help="the control plane's own")
    parser.add_argument("--p99-ms", type=float, default=50.0, help="what the 99th percentile may be")
    options = parser.parse_args()
    with running(options.core) as plane:
        result = measure(plane, options)
    print(json.dumps(result, indent=2))
    holds = result["latency_ms"]["p99"] <= options.p99_ms
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: p99 {result['latency_ms']['p99']} ms, at most {options.p99_ms:g} ms")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
