"""The story in simulated time: the engine's own balancer, with its averages and breakers, under a clock of ours."""

from __future__ import annotations

import heapq
import random

from bench.balancing.story import Outcome, Story, outcome_of
from meshcore._fastpath import BalancerDoor

KINDS = {"round_robin": 0, "random": 1, "least_request": 2, "peak_ewma": 3}
_NS = 1_000_000_000


def simulate(story: Story, balancer: str) -> Outcome:
    """The same story and balancer give the same outcome, on every machine."""
    door = BalancerDoor([1] * story.backends, KINDS[balancer], seed=story.seed)
    chance = random.Random(story.seed)
    running: list[tuple[float, int, float]] = []    # (when it ends, where, how long it took)
    latencies: list[float] = []
    to_slow = 0
    for number in range(story.requests):
        at = number / story.rate
        while running and running[0][0] <= at:
            _end(door, heapq.heappop(running))
        backend = door.pick(_ns(at))
        took = story.answer_seconds(backend, at, chance)
        door.start(backend)
        heapq.heappush(running, (at + took, backend, took))
        latencies.append(took)
        to_slow += story.is_slow(backend, at)
    return outcome_of(balancer, latencies, 0, to_slow)


def _end(door: BalancerDoor, answer: tuple[float, int, float]) -> None:
    at, backend, took = answer
    door.finish(backend)
    door.observe(backend, took * _NS, _ns(at))
    door.succeed(backend)


def _ns(at: float) -> int:
    """A second later than in the story: to the engine a clock at zero is one that was never read."""
    return round((at + 1) * _NS)
