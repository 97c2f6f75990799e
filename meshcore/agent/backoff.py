"""How long to wait before the next try: doubling, jittered, bounded. Waits for nothing itself."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits of `least_s`, twice that, … up to `most_s`, each shortened by a random share of up to half.

    Half and not all of it: a fleet that lost its control plane in one moment must not come back in one, and nobody may
    come back at once.
    """

    def __init__(self, least_s: float, most_s: float, random_share: Callable[[], float] = random.random) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._random_share = random_share
        self._next_s = least_s

    def next_s(self) -> float:
        """The wait before the next try."""
        wait_s = self._next_s * (1.0 - self._random_share() / 2)
        self._next_s = min(self._next_s * 2, self._most_s)
        return wait_s

    def reset(self) -> None:
        """A try went well."""
        self._next_s = self._least_s
