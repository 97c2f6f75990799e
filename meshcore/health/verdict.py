"""When checks make an endpoint healthy or not: counts in a row. Pure; asks nobody, tells nobody."""

from __future__ import annotations


class Verdict:
    """Healthy until `fall` checks in a row failed; then not, until `rise` in a row passed."""

    __slots__ = ("healthy", "streak")

    def __init__(self) -> None:
        self.healthy = True
        self.streak = 0  # checks in a row that spoke against the verdict

    def count(self, passed: bool, *, rise: int, fall: int) -> bool:
        """Count one check. True when it turns the verdict."""
        if passed == self.healthy:
            self.streak = 0
            return False
        self.streak += 1
        if self.streak < (rise if passed else fall):
            return False
        self.healthy = passed
        self.streak = 0
        return True
