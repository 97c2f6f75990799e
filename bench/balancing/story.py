"""The story that is told to every balancer, and what is read off its end. Runs nothing.

Source: Buoyant, "Beyond Round Robin: Load Balancing for Latency" (2016), with Finagle's balancer simulation: eleven
backends that answer alike, one of them slow for the middle half of a minute.
"""

from __future__ import annotations

import random

import msgspec

BALANCERS = ("round_robin", "least_request", "peak_ewma")
PUBLISHED = {"round_robin": 0.95, "least_request": 0.99, "peak_ewma": 0.999}
"""Share of answers within a second, as the article says."""
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
WITHIN_SECONDS = 1.0


class Story(msgspec.Struct, frozen=True):
    """What happens, in seconds from its beginning."""

    seconds: float = 60.0
    rate: float = 1000.0
    backends: int = 11
    usual_seconds: float = 0.167
    deviation_seconds: float = 0.005
    slow_seconds: float = 2.0
    seed: int = 20160316

    @property
    def requests(self) -> int:
        return round(self.seconds * self.rate)

    def is_slow(self, backend: int, at: float) -> bool:
        """The first backend, from a quarter to three quarters."""
        return backend == 0 and self.seconds / 4 <= at < self.seconds * 3 / 4

    def answer_seconds(self, backend: int, at: float, chance: random.Random) -> float:
        """How long a backend takes for a request that reaches it at `at`."""
        if self.is_slow(backend, at):
            return self.slow_seconds
        return max(0.0, chance.gauss(self.usual_seconds, self.deviation_seconds))


class Outcome(msgspec.Struct, frozen=True):
    """How it went for one balancer."""

    balancer: str
    requests: int
    errors: int
    to_slow: int
    """Requests that the slow backend got while it was slow."""
    within: float
    """Share of all requests that were answered within a second."""
    percentiles: dict[str, float]
    """Seconds, by percentile."""
    curve: tuple[tuple[float, float], ...]
    """(share of requests that were slower, seconds), for the picture."""


def outcome_of(balancer: str, latencies: list[float], errors: int, to_slow: int) -> Outcome:
    """From the latency of each request that was answered. One that failed was not answered within a second."""
    ordered = sorted(latencies)
    requests = len(ordered) + errors
    return Outcome(
        balancer=balancer,
        requests=requests,
        errors=errors,
        to_slow=to_slow,
        within=sum(one <= WITHIN_SECONDS for one in ordered) / requests,
        percentiles={f"{percent:g}": round(at(ordered, percent / 100), 4) for percent in PERCENTILES},
        curve=tuple((slower, round(at(ordered, 1 - slower), 4)) for slower in _SLOWER),
    )


# From half of the requests to one in ten thousand, twelve points a decade.
_SLOWER = tuple(0.5 * 10 ** (-step / 12) for step in range(45))


def at(ordered: list[float], share: float) -> float:
    """The least value that `share` of the values do not exceed."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
