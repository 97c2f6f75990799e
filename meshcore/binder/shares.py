"""Weights as the engine takes them: whole numbers in the same proportion. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST = 65_535


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """0.999 and 0.001 are 999 and 1. A weight above zero is never rounded to none; all zero count as equal."""
    if any(math.isinf(one) for one in weights):
        weights = [1.0 if math.isinf(one) else 0.0 for one in weights]
    if not any(weights):
        return (1,) * len(weights)
    largest = max(weights)
    for scale in (1, 10, 100, 1000, 10_000):
        scaled = [one * scale for one in weights]
        if largest * scale > MOST:
            break
        if all(abs(one - round(one)) <= 1e-9 * one for one in scaled):  # none becomes zero that is not
            whole = [round(one) for one in scaled]
            divisor = math.gcd(*whole)
            return tuple(one // divisor for one in whole)
    return tuple(max(1, round(one / largest * MOST)) if one else 0 for one in weights)
