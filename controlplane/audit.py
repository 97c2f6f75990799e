"""The audit: one record for each decision about identity and each change of the model. Writes lines; decides nothing.

A record never holds a secret: callers pass names, serial numbers and hashes, and fields whose name says that they are
secrets are refused here. A record that cannot be written is an error of the operation it belongs to: no log, no
certificate.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

SECRETS = re.compile(r"(?i)secret|password|private|(?:^|_)(?:token|key|csr)$")
MAX_TEXT_CHARS = 1_000


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did what, and how it ended."""

    time: str
    event: str
    outcome: str
    """`done`, `denied` or `failed`."""
    actor: str
    fields: dict[str, Any] = {}


class Audit(Protocol):
    """Where records go."""

    def record(self, event: str, *, outcome: str, actor: str, **fields: Any) -> None:
        """Keeps one record. Returns when it is kept."""


def record_of(now_s: float, event: str, outcome: str, actor: str, fields: dict[str, Any]) -> Record:
    """A record with everything cut to a bound, and no control byte that could forge another line."""
    for name in fields:
        if SECRETS.search(name):
            raise ValueError(f"an audit record has no field {name!r}: it would hold a secret")
    whole_s = int(now_s)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_s)) + f".{int((now_s - whole_s) * 1000):03}Z"
    return Record(stamp, event, outcome, _bounded(actor), {name: _bounded(value) for name, value in fields.items()})


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT_CHARS else value[: MAX_TEXT_CHARS - 1] + "…"
    if isinstance(value, (list, tuple)):
        return [_bounded(item) for item in value[:100]]
    return value if value is None or isinstance(value, (bool, int, float)) else _bounded(str(value))


class AuditFile:
    """Records as JSON lines at the end of a file, mode 0600. Each line is one write, so several processes may share
    it."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def record(self, event: str, *, outcome: str, actor: str, **fields: Any) -> None:
        line = msgspec.json.encode(record_of(self._clock(), event, outcome, actor, fields)) + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self._path}: only a part of an audit record could be written")

    def reopen(self) -> None:
        """After the file was rotated away."""
        old, self._file = self._file, os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(old)

    def close(self) -> None:
        os.close(self._file)


class AuditMemory:
    """The last records, in memory: for a mesh inside a test, and for a page that shows them."""

    def __init__(self, most: int = 1_000, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self.records: list[Record] = []

    def record(self, event: str, *, outcome: str, actor: str, **fields: Any) -> None:
        self.records.append(record_of(self._clock(), event, outcome, actor, fields))
        del self.records[: -self._most]
