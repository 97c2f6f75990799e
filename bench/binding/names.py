"""Many names in one proxy, each bound to an endpoint of its own: what the first request of each costs, and all later ones, and what they
take of memory, as their number grows.

Latency is flat when a name of ten thousand answers as soon as one of the first hundred does: these two are asked for in turn, so that a
drift of the machine meets both. What lies in no cache costs some twenty lines of memory, 1 to 2 µs of a request, however many names there
are; what would grow with them (a longer search, a table made anew, an eviction as Linkerd's above a thousand names) costs more than that.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from bench.binding.backend import Backend
from bench.binding.client import Client, quantile
from bench.binding.proxies import BoundProxy
from meshcore.binder.policies import Policies
from meshcore.namers.interpreter import LocalInterpreter
from meshcore.namers.namer import LiveNamers
from meshcore.naming import read_dtab

STEPS = (100, 500, 1000, 1500, 2000, 5000, 10_000)
REQUESTS = 4000
FEW = 100
# How much more a name of all may take than one of the few. The median: several times what memory costs, and little beside a network. The
# 99th percentile of two thousand requests is told by twenty of them, and differs by as much between two runs of the same.
MOST_MORE_PERCENT = {"p50": 5.0, "p99": 30.0}


class Step(msgspec.Struct, frozen=True):
    """With so many names bound."""

    names: int
    bind_p50_us: float
    bind_p99_us: float
    request_p50_us: float
    request_p99_us: float
    few_p50_us: float
    few_p99_us: float
    """Of requests to the first hundred names, in turn with those above to any of them."""
    rss_kib: int
    """Of this process: proxy, binder and interpreter, and the asking client."""
    histograms: int


def name_of(number: int, port: int) -> str:
    """Every address of 127/8 leads to the one server, and is an endpoint of its own."""
    return f"127.1.{number // 250}.{number % 250 + 1}:{port}"


def more_percent(step: Step) -> dict[str, float]:
    """How much longer a request to any name takes than one to the first hundred."""
    return {
        "p50": 100 * (step.request_p50_us / step.few_p50_us - 1),
        "p99": 100 * (step.request_p99_us / step.few_p99_us - 1),
    }


def resident_kib() -> int:
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0])


def measure(steps: tuple[int, ...] = STEPS, requests: int = REQUESTS, seed: int = 1) -> list[Step]:
    chance = random.Random(seed)
    found: list[Step] = []
    with Backend("web") as backend:
        table = read_dtab("/ports => /$/inet ; /svc => /$/io.buoyant.hostportPfx/ports")
        # Connections are not the question: one for each request, for a name that is asked for often would find the last one's.
        proxy = BoundProxy(lambda: LocalInterpreter(LiveNamers(), table), clients=Policies.of_all(pool={"max_idle": 0}), workers=1)
        client = Client(proxy.address)
        bound = 0
        for step in steps:
            binds = []
            while bound < step:
                binds.append(client.ask(name_of(bound, backend.port))[1])
                bound += 1
            all_of_them: list[float] = []
            few: list[float] = []
            for number in range(requests):
                most, took = (FEW, few) if number % 2 else (bound, all_of_them)
                took.append(client.ask(name_of(chance.randrange(most), backend.port))[1])
            us = [round(1e6 * quantile(took, share), 1) for took in (binds, all_of_them, few) for share in (0.5, 0.99)]
            found.append(Step(step, *us, rss_kib=resident_kib(), histograms=proxy.histograms))
        client.close()
        assert proxy.binder.counts().names == steps[-1]
        proxy.stop()
    return found
