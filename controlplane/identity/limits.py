"""How often one peer may try. Token buckets per peer, bounded in number; the clock is an argument."""

from __future__ import annotations

from collections import OrderedDict

MAX_PEERS = 10_000  # buckets kept; beyond it the ones used longest ago begin anew


class Attempts:
    """At most `burst` at once, `per_s` in the long run, for each peer; `all_factor` times that for all together."""

    def __init__(
        self, per_s: float = 1.0, burst: int = 20, *, all_factor: float = 100.0, most_peers: int = MAX_PEERS
    ) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._all_factor = all_factor
        self._most_peers = most_peers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._everybody = (self._burst * all_factor, 0.0)

    def wait_s(self, peer: str, now_s: float) -> float:
        """0.0, and one attempt is used up; or the seconds until there is one again."""
        level, wait = _taken(self._buckets.get(peer, (self._burst, now_s)), now_s, self._per_s, self._burst)
        if wait == 0.0:
            # A peer that is throttled already does not use up what all share.
            everybody, wait = _taken(
                self._everybody, now_s, self._per_s * self._all_factor, self._burst * self._all_factor
            )
            self._everybody = (everybody, now_s)
            if wait > 0.0:
                level += 1.0
        self._buckets[peer] = (level, now_s)
        self._buckets.move_to_end(peer)
        while len(self._buckets) > self._most_peers:
            self._buckets.popitem(last=False)
        return wait


def _taken(bucket: tuple[float, float], now_s: float, per_s: float, burst: float) -> tuple[float, float]:
    level = min(burst, bucket[0] + max(0.0, now_s - bucket[1]) * per_s)
    if level >= 1.0:
        return level - 1.0, 0.0
    return level, (1.0 - level) / per_s
