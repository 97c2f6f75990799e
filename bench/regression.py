"""The stored baseline of this machine, and whether a figure has grown beyond its noise. Measures nothing.

Facts: on a small virtual machine the same code differs by 10 % and more from one minute to the next, and a
disturbance only ever makes it slower. Consequence: absolute times cannot be compared, and one slow run
proves nothing. Decision: every figure is divided by a reference measured beside it (a fixed piece of work,
or the raw forwarder); the stored value is the median of several attempts, the judged one the best of up
to as many; only what stays beyond the band in all of them fails. Cost: a slowdown smaller than the band
passes; `python -m bench.compare` sees finer ones.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machine

FOLDER = Path(__file__).parent / "baseline"
ATTEMPTS = 5
_REFERENCE_BLOCK = bytes(range(256)) * 64


def reference_ns() -> float:
    """Time of a fixed piece of work that shares nothing with the engine: BLAKE2b of 16 KiB, best of 20."""
    return min(timeit.repeat(lambda: hashlib.blake2b(_REFERENCE_BLOCK).digest(), number=5, repeat=20)) / 5 * 1e9


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
        self, key: str, attempt: Callable[[], float], *, band: float, attempts: int = ATTEMPTS
    ) -> dict[str, Any]:
        """Runs `attempt` (a relative figure, lower is better) until it is within `band` of the baseline.

        Returns what to note beside the result. Raises Regression when no attempt gets there.
        """
        if self.is_saving:
            values = [attempt() for _ in range(attempts)]
            middle = statistics.median(values)
            self._found[key] = {"relative": middle, "spread": (max(values) - min(values)) / middle}
            return {"relative": middle, "baseline": "saved"}
        stored = self._stored.get(key)
        if stored is None:
            return {"relative": attempt(), "baseline": "none for this machine"}
        # A figure that was unsteady when the baseline was taken gets the room it took then.
        limit = stored["relative"] * (1 + max(band, 1.5 * stored["spread"]))
        values: list[float] = []
        for _ in range(attempts):
            values.append(attempt())
            if values[-1] <= limit:
                return {"relative": min(values), "baseline": stored["relative"], "attempts": len(values)}
        raise Regression(
            f"{key}: {min(values):.4g} times the reference at best of {attempts}, baseline "
            f"{stored['relative']:.4g}, limit {limit:.4g}; if it is meant: make bench ARGS=--save-baseline"
        )

    def save(self) -> None:
        if not self._found:
            return
        self.path.parent.mkdir(exist_ok=True)
        merged = dict(sorted({**self._stored, **self._found}.items()))
        self.path.write_text(json.dumps(merged, indent=1) + "\n")
