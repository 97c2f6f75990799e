"""What a bound name costs a request: CPU time of the proxy beside a plain route, and with ten thousand names beside ten."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import msgspec

from bench.binding.served import FEW, WAYS
from bench.load import PROXY_CORE, Load, run_load
from bench.peers.base import free_ports
from bench.rounds import interleave

HOST = "nNNNNNN.test"
NAMES = 10_000
# What is compared with what.
PAIRS = (("few", "route"), ("name", "routes"), ("routes", "route"), ("name", "route"), ("name", "few"), ("linkerd", "told"))


class Cost(msgspec.Struct, frozen=True):
    """One way beside another: CPU-µs of the proxy per request, medians over the rounds; the mean of each round's ratio without the
    outermost fifths, and its standard error; latency of both."""

    way: str
    beside: str
    cpu_us: float
    beside_cpu_us: float
    more_percent: float
    error_percent: float
    p50_us: float
    beside_p50_us: float
    p99_us: float
    beside_p99_us: float


def measure(rounds: int = 100, seconds: float = 0.12, conns: int = 32) -> list[Cost]:
    """Many short rounds: what disturbs a machine lasts longer than one, so that it meets both sides of a ratio or is cut off."""
    (backend,) = free_ports(1)
    command = ["taskset", "-c", str(PROXY_CORE), sys.executable, "-m", "bench.binding.served", str(backend), str(NAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ports = dict(zip(WAYS, json.loads(process.stdout.readline()), strict=True))
        found: dict[str, list[Load]] = {way: [] for way in WAYS}
        # Every way is asked for as many different hosts, for what reading them costs is not the question.
        arguments = {way: [f"--conns={conns}", f"--host={HOST}", f"--names={FEW if way == 'few' else NAMES}"] for way in WAYS}
        for _, way in interleave(list(WAYS), rounds):
            load = run_load(
                ports[way], backend, arguments[way], seconds=seconds, warmup_seconds=seconds / 3, watched_pids=[process.pid]
            )
            if load.errors:
                raise SystemExit(f"{way}: errors of the load: {load.first_error}")
            found[way].append(load)
        process.communicate()
    return [_compared(way, beside, found) for way, beside in PAIRS]


def _compared(way: str, beside: str, found: dict[str, list[Load]]) -> Cost:
    pairs = list(zip(found[way], found[beside], strict=True))
    more = sorted(100 * (one.cpu_us_per_request / other.cpu_us_per_request - 1) for one, other in pairs)
    fifth = len(more) // 5
    kept = more[fifth : len(more) - fifth]
    # The outermost ones count as the last that were kept (Winsor): the usual error of a trimmed mean.
    spread = statistics.stdev([kept[0]] * fifth + kept + [kept[-1]] * fifth)
    error = spread / ((1 - 2 * fifth / len(more)) * len(more) ** 0.5)
    figures = [_median(loads, read) for read in (_cpu_us, _p50_us, _p99_us) for loads in (found[way], found[beside])]
    ratio = [statistics.fmean(kept), error]
    return Cost(way, beside, *(round(one, 2) for one in (*figures[:2], *ratio, *figures[2:])))


def _median(loads: list[Load], read: Callable[[Load], float]) -> float:
    return statistics.median(map(read, loads))


def _cpu_us(load: Load) -> float:
    return load.cpu_us_per_request


def _p50_us(load: Load) -> float:
    return load.main.p50_us


def _p99_us(load: Load) -> float:
    return load.main.p99_us
