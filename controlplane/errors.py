"""The exceptions of the control plane. Raises nothing itself, and knows neither model nor store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from meshcore.clients.errors import StoreUnavailable
from meshcore.errors import MeshError, Problem

__all__ = [
    "Conflict",
    "Denied",
    "Invalid",
    "LeaseExpired",
    "StoreUnavailable",
    "Throttled",
    "Unreadable",
]


class Invalid(MeshError):
    """A value that may not be written. `problems` holds all that is wrong with it, each with its place."""

    default_source: ClassVar[str] = "downstream"

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{what}: {_told(problem)}" for problem in self.problems) or what)


def _told(problem: Problem) -> str:
    where = path_text(problem.path)
    text = f"{where}: {problem.message}" if where else problem.message
    return f"{text}; expected {problem.expected}" if problem.expected else text


def path_text(path: Iterable[str | int]) -> str:
    """`("ports", 0, "port")` as `ports[0].port`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


class Conflict(MeshError):
    """Another writer was faster: nothing of the transaction was done.

    `actual` is the revision found, 0 when there is no such entry.
    """

    def __init__(self, kind: str, key: str, expected: int, actual: int) -> None:
        self.kind, self.key, self.expected, self.actual = kind, key, expected, actual
        wanted = f"revision {expected}" if expected else "no entry"
        found = f"revision {actual}" if actual else "no entry"
        super().__init__(
            f"{kind} '{key}' was changed by someone else: expected {wanted}, found {found}", retryable=True
        )


class LeaseExpired(MeshError):
    """The lease is gone, and with it all that was written under it: grant a new one and write again."""

    def __init__(self, lease: int) -> None:
        self.lease = lease
        super().__init__(f"lease {lease} has expired or never was")


class Unreadable(MeshError):
    """A stored value that this version cannot read. The entry is told, never silently left out."""

    def __init__(self, kind: str, key: str, why: str) -> None:
        self.kind, self.key = kind, key
        super().__init__(f"{kind} '{key}' cannot be read: {why}")


class Denied(MeshError):
    """A proof of identity that does not hold. `why` is for the audit; the peer is told no more than `reason`."""

    default_source: ClassVar[str] = "downstream"

    def __init__(self, reason: str, why: str = "", **values: Any) -> None:
        self.why = why or reason
        super().__init__(f"denied: {reason}", reason=reason, **values)


class Throttled(Denied):
    """Too many attempts; the next one may come after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("too_many_attempts", f"too many attempts; next in {retry_after_s:.1f} s")
