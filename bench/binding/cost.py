"""What a bound name costs a request: CPU time of the proxy beside a plain route, and with ten thousand names beside ten."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import msgspec

from bench.binding.served import FEW, WAYS
from bench.load import PROXY_CORE, run_load
from bench.peers.base import free_ports
from bench.rounds import interleave

HOST = "nNNNNNN.test"
NAMES = 10_000
# What is compared with what.
PAIRS = (("few", "route"), ("name", "route"), ("name", "few"), ("linkerd", "told"))


class Cost(msgspec.Struct, frozen=True):
    """One way beside another: CPU-µs of the proxy per request, medians over the rounds, and of each round's ratio."""

    way: str
    beside: str
    cpu_us: float
    beside_cpu_us: float
    more_percent: float
    least_percent: float
    most_percent: float


def measure(rounds: int = 8, seconds: float = 1.5, conns: int = 32) -> list[Cost]:
    (backend,) = free_ports(1)
    command = ["taskset", "-c", str(PROXY_CORE), sys.executable, "-m", "bench.binding.served", str(backend), str(NAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ports = dict(zip(WAYS, json.loads(process.stdout.readline()), strict=True))
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        # Every way is asked for as many different hosts, for what reading them costs is not the question.
        arguments = {way: [f"--conns={conns}", f"--host={HOST}", f"--names={FEW if way == 'few' else NAMES}"] for way in WAYS}
        for _, way in interleave(list(WAYS), rounds):
            load = run_load(ports[way], backend, arguments[way], seconds=seconds, watched_pids=[process.pid])
            if load.errors:
                raise SystemExit(f"{way}: errors of the load: {load.first_error}")
            found[way].append(load.cpu_us_per_request)
        process.communicate()
    return [_compared(way, beside, found) for way, beside in PAIRS]


def _compared(way: str, beside: str, found: dict[str, list[float]]) -> Cost:
    more = [100 * (one / other - 1) for one, other in zip(found[way], found[beside], strict=True)]
    medians = (statistics.median(found[way]), statistics.median(found[beside]))
    figures = (*medians, statistics.median(more), min(more), max(more))
    return Cost(way, beside, *(round(one, 2) for one in figures))
