"""Many names in one proxy: what the first request of each costs, and all later ones, as their number grows."""

from __future__ import annotations

import random

import msgspec

from bench.binding.backend import Backend
from bench.binding.client import Client, quantile
from bench.binding.proxies import BoundProxy
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


def measure(steps: tuple[int, ...] = STEPS, requests: int = REQUESTS, seed: int = 1) -> list[Step]:
    chance = random.Random(seed)
    found: list[Step] = []
    with Backend("web") as backend:
        table = read_dtab(f"/svc => /$/inet/127.0.0.1/{backend.port}")
        proxy = BoundProxy(lambda: LocalInterpreter(LiveNamers(), table))
        client = Client(proxy.address)
        bound = 0
        for step in steps:
            binds = []
            while bound < step:
                binds.append(client.ask(f"name-{bound}")[1])
                bound += 1
            later = [client.ask(f"name-{chance.randrange(bound)}")[1] for _ in range(requests)]
            quantiles = (quantile(binds, 0.5), quantile(binds, 0.99), quantile(later, 0.5), quantile(later, 0.99))
            found.append(Step(step, *(round(1e6 * one, 1) for one in quantiles)))
        client.close()
        assert proxy.binder.counts().names == steps[-1]
        proxy.stop()
    return found
