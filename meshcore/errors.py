"""The exceptions of meshcore and the one table that maps a reason of the engine to its class. Raises nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import msgspec

__all__ = [
    "ConfigError",
    "DeadlineExceeded",
    "DownstreamError",
    "EngineError",
    "MeshError",
    "Problem",
    "ProtocolError",
    "UpstreamError",
    "error_for_reason",
]


class MeshError(Exception):
    """Base of everything meshcore raises on purpose.

    source     whose fault it was: "downstream", "upstream", "internal" or "config"
    retryable  True only when it is certain that no server has seen the request
    reason     the engine's word for it, as in `x-mesh-reason`, metrics and tap; "" when there is none
    values     what was involved: addresses, limits, names
    """

    default_source: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        retryable: bool = False,
        reason: str = "",
        **values: Any,
    ) -> None:
        super().__init__(message)
        self.source = source or self.default_source
        self.retryable = retryable
        self.reason = reason
        self.values = values


class ProtocolError(MeshError):
    """A peer broke HTTP; `source` says which one."""

    default_source = "downstream"


class DownstreamError(MeshError):
    """The client went away, stalled or exceeded a limit."""

    default_source = "downstream"


class UpstreamError(MeshError):
    """No endpoint could answer, or the chosen one failed."""

    default_source = "upstream"


class DeadlineExceeded(MeshError):
    """A timeout ended the wait; `source` says who was waited for."""

    default_source = "upstream"


class EngineError(MeshError):
    """The proxy itself could not go on: overload, drain, a filter, memory, a system call."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a configuration, with its place."""

    message: str
    hint: str = ""
    path: tuple[str | int, ...] = ()
    """Keys and indices from the root: ("routes", 3, "timeout")."""
    at_key: bool = False
    """The place is the key's own, not its value's."""
    got: Any = None
    expected: str = ""
    source: str = ""
    """File name, or "" for a configuration that comes from Python."""
    line: int = 0
    """1-based; 0 when unknown, -1 when there is none (a value of the environment)."""
    column: int = 0

    @property
    def place(self) -> str:
        """`mesh.yaml:12:7`, `mesh.yaml`, or `routes[3].timeout` when there is no file."""
        if self.line > 0:
            return f"{self.source or '<config>'}:{self.line}:{self.column}"
        # A path with an index tells which of many; without one the message has said it already.
        where = ""
        if any(isinstance(step, int) for step in self.path):
            where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).lstrip(".")
        return f"{self.source}: {where}" if self.source and where else self.source or where

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return f"{self.place}: {text}" if self.place else text


# More than a screenful helps nobody; the count of the rest is still told.
SHOWN_PROBLEMS = 50


class ConfigError(MeshError):
    """A configuration cannot be used. `problems` holds all that is wrong, in file order.

    `path` (the file), `line`, `column`, `got`, `expected` and `hint` are those of the first problem.
    """

    default_source = "config"

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = (Problem(message=problems),)
        elif isinstance(problems, Problem):
            problems = (problems,)
        self.problems: Sequence[Problem] = tuple(sorted(problems, key=lambda p: (p.line, p.column)))
        lines = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"… and {len(self.problems) - SHOWN_PROBLEMS} more problems")
        super().__init__("\n".join(lines))
        first = self.problems[0] if self.problems else Problem(message="")
        self.path = first.source
        self.line = first.line
        self.column = first.column
        self.got = first.got
        self.expected = first.expected
        self.hint = first.hint


# Reasons whose class does not follow from their fault alone.
_PROTOCOL = frozenset(
    {
        "MALFORMED_HEAD",
        "BAD_METHOD",
        "BAD_TARGET",
        "BAD_VERSION",
        "BAD_HOST",
        "BAD_FRAMING",
        "BAD_CHUNK",
        "BAD_TRAILER",
        "BAD_UPGRADE",
        "BODY_INCOMPLETE",
        "EXPECTATION_FAILED",
        "UNSUPPORTED_CODING",
        "UPSTREAM_MALFORMED",
        "UPSTREAM_HEAD_TOO_LARGE",
        "UPSTREAM_UNASKED_UPGRADE",
        "UPSTREAM_TRUNCATED",
    }
)

# Nothing of the request had left the proxy when these happened, whatever its method.
_UNSENT = frozenset(
    {
        "LOAD_SHED",
        "DRAINING",
        "OUT_OF_MEMORY",
        "FILTER_OVERLOADED",
        "NO_ENDPOINT",
        "ALL_EJECTED",
        "QUEUE_FULL",
        "QUEUE_TIMEOUT",
        "UPSTREAM_CONNECT_FAILED",
        "UPSTREAM_CONNECT_TIMEOUT",
    }
)

_BY_FAULT: dict[int, tuple[str, type[MeshError]]] = {
    0: ("internal", EngineError),
    1: ("downstream", DownstreamError),
    2: ("internal", EngineError),
    3: ("upstream", UpstreamError),
}


def error_class(reason: str, fault: int) -> type[MeshError]:
    """The class for a reason and its fault number (see engine/reasons.pxd)."""
    if reason in _PROTOCOL:
        return ProtocolError
    if reason.endswith("_TIMEOUT"):
        return DeadlineExceeded
    return _BY_FAULT[fault][1]


def error_for_reason(reason: str, fault: int, text: str, **values: Any) -> MeshError:
    """An exception for one line of `meshcore._fastpath.reasons()`: (name, status, fault, text)."""
    return error_class(reason, fault)(
        text, source=_BY_FAULT[fault][0], retryable=reason in _UNSENT, reason=reason.lower(), **values
    )
