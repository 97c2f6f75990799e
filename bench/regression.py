"""The stored baseline of this machine, and whether a figure has grown beyond its noise. Measures nothing.

Facts: on a small virtual machine the same code differs by 10 % and more from one minute to the next, and a
disturbance only ever makes it slower. Consequence: absolute times cannot be compared, and one slow run
proves nothing. Decision: every figure is divided by a reference measured beside it (a fixed piece of work,
or the raw forwarder); the stored value is the median of several attempts, the judged one the best of up
to as many; only what stays beyond the band in all of them fails, and only if the machine was quiet in one of
them: busy neighbours slow caches and clocks in ways no reference follows. Cost: a slowdown smaller than the
band passes (`python -m bench.compare` sees finer ones), and on a busy machine nothing is judged, which the
summary says.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine

FOLDER = Path(__file__).parent / "baseline"
ATTEMPTS = 5
_REFERENCE_BLOCK = bytes(range(256)) * 64


def reference_ns() -> float:
    """Time of a fixed piece of work that shares nothing with the engine: BLAKE2b of 16 KiB, best of 20."""
    return min(timeit.repeat(lambda: hashlib.blake2b(_REFERENCE_BLOCK).digest(), number=5, repeat=20)) / 5 * 1e9


@dataclass(frozen=True)
class Attempt:
    """A relative figure, lower is better, and whether something else used the machine meanwhile."""

    relative: float
    is_disturbed: bool


class Quiet:
    """Context manager: how much of the machine others used while this process computed in one thread."""

    def __enter__(self) -> Quiet:
        self._began = (time.perf_counter(), time.process_time(), _busy_seconds())
        return self

    def __exit__(self, *_: object) -> None:
        elapsed, own, busy = (
            now - then
            for now, then in zip(
                (time.perf_counter(), time.process_time(), _busy_seconds()), self._began, strict=True
            )
        )
        # 25 % of a core; ticks of 10 ms make short attempts coarser than that of bench.load.
        self.is_disturbed = (busy - own) / elapsed > 0.25


def _busy_seconds() -> float:
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Regression(AssertionError):
    """A figure stayed above its band in every attempt."""


class Baseline:
    """Relative figures by test name, for one kind of machine; another machine's are never compared."""

    def __init__(self, path: Path, *, is_saving: bool) -> None:
        self.path = path
        self.is_saving = is_saving
        self._stored: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        self._found: dict[str, dict[str, Any]] = {}

    @classmethod
    def of_this_machine(cls, *, is_saving: bool) -> Baseline:
        return cls(FOLDER / f"{machine.name()}.json", is_saving=is_saving)

    def judge(
        self, key: str, attempt: Callable[[], Attempt], *, band: float, attempts: int = ATTEMPTS
    ) -> dict[str, Any]:
        """Runs `attempt` until it is within `band` of the baseline.

        Returns what to note beside the result. Raises Regression when no attempt gets there although the
        machine was quiet.
        """
        if self.is_saving:
            values = [attempt().relative for _ in range(attempts)]
            middle = statistics.median(values)
            self._found[key] = {"relative": middle, "spread": (max(values) - min(values)) / middle}
            return {"relative": middle, "baseline": "saved"}
        stored = self._stored.get(key)
        if stored is None:
            return {"relative": attempt().relative, "baseline": "none for this machine"}
        # A figure that was unsteady when the baseline was taken gets the room it took then.
        limit = stored["relative"] * (1 + max(band, 1.5 * stored["spread"]))
        tried: list[Attempt] = []
        for _ in range(attempts):
            tried.append(attempt())
            if tried[-1].relative <= limit:
                return {"relative": tried[-1].relative, "baseline": stored["relative"], "attempts": len(tried)}
        best = min(one.relative for one in tried)
        if all(one.is_disturbed for one in tried):
            change = best / stored["relative"] - 1
            return {"relative": best, "baseline": f"{change:+.1%}, not judged: the machine is busy"}
        raise Regression(
            f"{key}: {best:.4g} times the reference at best of {attempts}, baseline {stored['relative']:.4g}, "
            f"limit {limit:.4g}; if it is meant: make bench ARGS=--save-baseline"
        )

    def save(self) -> None:
        if not self._found:
            return
        self.path.parent.mkdir(exist_ok=True)
        merged = dict(sorted({**self._stored, **self._found}.items()))
        self.path.write_text(json.dumps(merged, indent=1) + "\n")
