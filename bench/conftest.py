"""Fixtures of the timing suite: `timed` for a verb of the engine, `baseline` for what is judged otherwise."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.regression import Attempt, Baseline, Quiet, reference_ns
from bench.turns import my_turn

LINES = pytest.StashKey[list[str]]()

# A round is shorter than a time slice, so that even beside a compiler some rounds run undisturbed: the
# minimum over a hundred of them repeats within 1-2 %.
SECONDS_PER_ROUND = 0.001
ROUNDS = 100
# Below it the code's alignment in memory decides, not the code.
VERB_BAND = 0.15


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-baseline", action="store_true", help="store the figures of this machine")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []
    config.option.benchmark_disable_gc = True
    config.option.benchmark_sort = "name"
    config.option.benchmark_columns = ["min", "median", "stddev", "rounds"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figure that is judged: the plugin's own table shows whole calls, not single operations."""
    if config.stash[LINES]:
        terminalreporter.section("one operation, and the same beside the reference against the baseline")
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)


def _line(key: str, figure: str, noted: dict[str, Any]) -> str:
    stored = noted["baseline"]
    change = f"{noted['relative'] / stored - 1:+.1%}" if isinstance(stored, float) else f"baseline: {stored}"
    return f"{key:<75} {figure:>14}   {change}"


@pytest.fixture(scope="session")
def baseline(request: pytest.FixtureRequest) -> Iterator[Baseline]:
    """The stored figures of this machine; written at the end with --save-baseline."""
    stored = Baseline.of_this_machine(is_saving=request.config.getoption("--save-baseline"))
    with my_turn():
        yield stored
    stored.save()


@pytest.fixture
def timed(benchmark: Any, baseline: Baseline, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`timed(operation, times=n)`: times a call that does its work n times, and judges the time per work."""
    key = f"{request.path.stem}::{request.node.name}"

    def run(operation: Callable[[], object], *, times: int = 1) -> None:
        timer = timeit.Timer(operation)
        once_seconds = min(timer.repeat(3, 1))
        number = max(1, int(SECONDS_PER_ROUND / once_seconds))

        def attempt() -> Attempt:
            with Quiet() as quiet:
                reference = reference_ns()
                best_ns = min(timer.repeat(ROUNDS, number)) / number / times * 1e9
                reference = min(reference, reference_ns())
            benchmark.extra_info["ns_each"] = round(best_ns, 2)
            return Attempt(best_ns / reference, quiet.is_disturbed)

        benchmark.pedantic(operation, rounds=ROUNDS, iterations=number, warmup_rounds=1)
        noted = baseline.judge(key, attempt, band=VERB_BAND)
        benchmark.extra_info.update(times=times, **noted)
        request.config.stash[LINES].append(_line(key, f"{benchmark.extra_info['ns_each']:.1f} ns", noted))

    return run


@pytest.fixture
def judged(benchmark: Any, baseline: Baseline, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`judged(attempt, band=…)`: a relative figure with a reference of its own, such as a ratio to a peer.

    `attempt` returns what is judged, and a dict of what to note beside it.
    """
    key = f"{request.path.stem}::{request.node.name}"

    def run(attempt: Callable[[], tuple[Attempt, dict[str, float]]], *, band: float) -> None:
        def once() -> Attempt:
            found, notes = attempt()
            benchmark.extra_info.update(notes)
            return found

        noted = benchmark.pedantic(lambda: baseline.judge(key, once, band=band, attempts=3), rounds=1)
        benchmark.extra_info.update(noted)
        request.config.stash[LINES].append(_line(key, f"{noted['relative']:.3f}", noted))

    return run
