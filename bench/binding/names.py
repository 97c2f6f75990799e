"""Many names in one proxy, each bound to an endpoint of its own: what the first request of each costs, and all later ones, and what they
take of memory, as their number grows."""

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


class Step(msgspec.Struct, frozen=True):
    """With so many names bound."""

    names: int
    bind_p50_us: float
    bind_p99_us: float
    request_p50_us: float
    request_p99_us: float
    rss_kib: int
    """Of this process: proxy, binder and interpreter, and the asking client."""
    histograms: int


def name_of(number: int, port: int) -> str:
    """Every address of 127/8 leads to the one server, and is an endpoint of its own."""
    return f"127.1.{number // 250}.{number % 250 + 1}:{port}"


def resident_kib() -> int:
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0])


def measure(steps: tuple[int, ...] = STEPS, requests: int = REQUESTS, seed: int = 1) -> list[Step]:
    chance = random.Random(seed)
    found: list[Step] = []
    with Backend("web") as backend:
        table = read_dtab("/ports => /$/inet ; /svc => /$/io.buoyant.hostportPfx/ports")
        # Connections are not the question: they are let go before there are thousands.
        proxy = BoundProxy(lambda: LocalInterpreter(LiveNamers(), table), clients=Policies.of_all(pool={"idle_timeout": "100ms"}), workers=1)
        client = Client(proxy.address)
        bound = 0
        for step in steps:
            binds = []
            while bound < step:
                binds.append(client.ask(name_of(bound, backend.port))[1])
                bound += 1
            later = [client.ask(name_of(chance.randrange(bound), backend.port))[1] for _ in range(requests)]
            quantiles = (quantile(binds, 0.5), quantile(binds, 0.99), quantile(later, 0.5), quantile(later, 0.99))
            us = [round(1e6 * one, 1) for one in quantiles]
            found.append(Step(step, *us, rss_kib=resident_kib(), histograms=proxy.histograms))
        client.close()
        assert proxy.binder.counts().names == steps[-1]
        proxy.stop()
    return found
