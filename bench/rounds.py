"""Interleaved rounds: every contender once per round, so that a drift of the machine meets all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from bench.load import Load

# A disturbed run (see Load.is_disturbed) is repeated; more often than this and the machine is simply
# not quiet: then the figure is kept and marked.
MAX_REPEATS = 2


@dataclass
class Samples:
    """What one contender showed over the rounds of one shape; index i is round i for everyone."""

    loads: list[Load] = field(default_factory=list)
    failure: str = ""  # why it was left out of the rest of the rounds

    def values(self, read: Callable[[Load], float]) -> list[float]:
        return [read(load) for load in self.loads]

    @property
    def cpu_us(self) -> list[float]:
        return self.values(lambda load: load.cpu_us_per_request)

    @property
    def rps(self) -> list[float]:
        return self.values(lambda load: load.main.rps)

    @property
    def errors(self) -> int:
        return sum(load.errors for load in self.loads)

    @property
    def first_error(self) -> str:
        return next((load.first_error for load in self.loads if load.first_error), "")

    @property
    def disturbed(self) -> int:
        return sum(load.is_disturbed for load in self.loads)


def interleave(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    """A B C, then C B A, …: the one that ran just after a heavy one is another in each round."""
    for number in range(rounds):
        yield from ((number, name) for name in (names if number % 2 == 0 else reversed(names)))


def sample(
    names: list[str],
    rounds: int,
    run: Callable[[str], Load],
    on_sample: Callable[[str, Load], None] = lambda name, load: None,
    *,
    max_repeats: int = MAX_REPEATS,
) -> dict[str, Samples]:
    """`run(name)` once per round for every name; disturbed runs are repeated."""
    samples = {name: Samples() for name in names}
    for _, name in interleave(names, rounds):
        if samples[name].failure:
            continue
        load = run(name)
        if not load.requests:
            load = run(name)  # once more: a machine that stands still answers nothing either
        if not load.requests:
            samples[name].failure = load.first_error or "no request was answered"
            samples[name].loads.clear()
            continue
        for _ in range(max_repeats):
            if not load.is_disturbed:
                break
            again = run(name)
            if again.requests and again.foreign_share < load.foreign_share:
                load = again
        samples[name].loads.append(load)
        on_sample(name, load)
    return samples


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value beside it."""

    median: float
    least: float
    greatest: float
    count: int

    def as_dict(self) -> dict[str, float]:
        return {"median": self.median, "min": self.least, "max": self.greatest, "n": self.count}


def spread(values: Iterable[float]) -> Spread:
    listed = list(values)
    if not listed:
        return Spread(float("nan"), float("nan"), float("nan"), 0)
    return Spread(statistics.median(listed), min(listed), max(listed), len(listed))


def paired_ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round, so that what slowed both down in one round cancels out."""
    return [our / their for our, their in zip(ours, theirs, strict=False) if their > 0]
