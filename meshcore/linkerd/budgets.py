"""Budgets of retries: `minRetriesPerSec`, `percentCanRetry`, `ttlSecs`, in words of our clusters."""

from __future__ import annotations

from typing import Any

from .place import Place


def read_budget(place: Place) -> dict[str, Any]:
    least = place.number("minRetriesPerSec", 10, 0, 1_000_000)
    share = place.number("percentCanRetry", 0.2, 0, 10)
    ttl = place.whole("ttlSecs", 10, 1, 60)
    place.end()
    return {"min_per_second": round(least), "ratio_percent": round(share * 100), "ttl": f"{ttl}s"}
