"""What a store can do: the interface, its operations and bounds. Stores nothing; knows bytes, not what they mean.

Entries are bytes under (kind, key). Every transaction that changes something gets the next revision. Whoever returns
from `apply` has it on disk (SQLite) or on a majority (etcd): nothing acknowledged is lost by a crash.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Self

import msgspec

from meshcore.errors import Problem

from ..errors import Invalid
from ..model.change import Entry, Position, Snapshot
from .watching import MAX_PENDING, Watch

MAX_OPERATIONS = 100  # etcd refuses transactions of more than 128 operations unless told otherwise
MAX_VALUE_BYTES = 262_144  # far above any policy; a record is copied to each watcher
MAX_TRANSACTION_BYTES = 1_048_576  # etcd refuses requests above 1.5 MiB unless told otherwise
MAX_KEY_CHARS = 600  # namespace/service/name at their longest
MIN_LEASE_S = 1
MAX_LEASE_S = 86_400

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY = re.compile(r"[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*")
_PREFIX = re.compile(r"(?:[A-Za-z0-9._~-]+/?)*")


class Put(msgspec.Struct, frozen=True):
    """Write an entry. `expected`: only if its revision is still this one; 0 only if there is none; None in any case."""

    kind: str
    key: str
    value: bytes
    expected: int | None = None
    lease: int = 0
    """Deleted when this lease ends; 0 stays."""


class Delete(msgspec.Struct, frozen=True):
    """Remove an entry; nothing happens when there is none, unless a revision is expected."""

    kind: str
    key: str
    expected: int | None = None


class Expect(msgspec.Struct, frozen=True):
    """Change nothing, but do the rest only if this entry still has this revision (0: does not exist)."""

    kind: str
    key: str
    expected: int


Operation = Put | Delete | Expect


class Lease(msgspec.Struct, frozen=True):
    """The right to be remembered for `ttl_s` seconds after the last sign of life."""

    id: int
    ttl_s: int


class Store(ABC):
    """One store. `async with` opens and closes it."""

    @abstractmethod
    async def open(self) -> None:
        """Makes it usable; StoreUnavailable when it cannot be."""

    @abstractmethod
    async def close(self) -> None:
        """Ends watches and lets go of everything. Calls after it fail."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def get(self, kind: str, key: str) -> Entry[bytes] | None:
        """The entry as it stands now, behind every write that was acknowledged before the call."""

    @abstractmethod
    async def list(self, kinds: Collection[str] | None = None, prefix: str = "") -> Snapshot[bytes]:
        """The entries of these kinds (None: all) whose key begins with `prefix`, at one position, ordered by kind and
        key."""

    @abstractmethod
    async def apply(self, *operations: Operation) -> Position:
        """All of them or none, as one revision. Conflict, LeaseExpired, Invalid: nothing was done.

        A transaction that turns out to change nothing may or may not use up a revision.
        """

    async def put(self, kind: str, key: str, value: bytes, *, expected: int | None = None, lease: int = 0) -> Position:
        """A transaction of one write."""
        return await self.apply(Put(kind, key, value, expected, lease))

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> Position:
        """A transaction of one removal."""
        return await self.apply(Delete(kind, key, expected))

    @abstractmethod
    async def grant(self, ttl_s: int) -> Lease:
        """A new lease; the store may make it longer than asked for."""

    @abstractmethod
    async def keep_alive(self, lease: int) -> Lease:
        """Its full time again, from now on; LeaseExpired when it is over."""

    @abstractmethod
    async def revoke(self, lease: int) -> None:
        """Ends it at once, with all that was written under it; nothing happens when it is over already."""

    @abstractmethod
    async def watch(
        self, since: Position | None = None, kinds: Collection[str] | None = None, max_pending: int = MAX_PENDING
    ) -> Watch:
        """Everything that happens after `since`, in order and without a gap.

        A position this store's history does not hold (None, of another life, lost by a restore, too old) begins with a
        snapshot. A reader that is more than `max_pending` changes behind gets a snapshot instead of what it missed.
        """

    @abstractmethod
    async def compact(self, keep: int) -> None:
        """Forgets history except about the last `keep` revisions; entries stay."""

    @abstractmethod
    async def begin_epoch(self) -> None:
        """Begins a new life with the same entries: every reader gets a snapshot. For use after a restore."""


def check_operations(operations: Sequence[Operation]) -> None:
    """Bounds and syntax, the same for every store, before it is asked."""
    problems: list[Problem] = []

    def wrong(index: int, field: str, message: str, expected: str) -> None:
        problems.append(Problem(message=message, path=(index, field), expected=expected))

    if not 1 <= len(operations) <= MAX_OPERATIONS:
        problems.append(Problem(message=f"got {len(operations)} operations", expected=f"1 to {MAX_OPERATIONS}"))
    seen: set[tuple[str, str]] = set()
    total = 0
    for index, operation in enumerate(operations[:MAX_OPERATIONS]):
        if not is_kind(operation.kind):
            wrong(index, "kind", f"got {operation.kind[:40]!r}", "a-z, 0-9 and '_', at most 32")
        if not is_key(operation.key):
            wrong(
                index,
                "key",
                f"got {operation.key[:80]!r}",
                f"segments of A-Z a-z 0-9 . _ ~ - joined by '/', at most {MAX_KEY_CHARS}",
            )
        if (operation.kind, operation.key) in seen:
            wrong(
                index, "key", f"{operation.kind} {operation.key!r} stands there twice", "each key once in a transaction"
            )
        seen.add((operation.kind, operation.key))
        if operation.expected is not None and not 0 <= operation.expected < 2**63:
            wrong(index, "expected", f"got {operation.expected}", "a revision, or 0")
        if isinstance(operation, Put):
            if len(operation.value) > MAX_VALUE_BYTES:
                wrong(index, "value", f"got {len(operation.value)} bytes", f"at most {MAX_VALUE_BYTES}")
            if not 0 <= operation.lease < 2**63:
                wrong(index, "lease", f"got {operation.lease}", "the id of a lease, or 0")
            total += len(operation.value)
    if total > MAX_TRANSACTION_BYTES:
        problems.append(Problem(message=f"got {total} bytes of values", expected=f"at most {MAX_TRANSACTION_BYTES}"))
    if problems:
        raise Invalid("transaction", problems)


def is_kind(text: str) -> bool:
    """Whether it can name a kind."""
    return _KIND.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether it can be a key."""
    return len(text) <= MAX_KEY_CHARS and _KEY.fullmatch(text) is not None


def check_query(kinds: Collection[str] | None, prefix: str = "") -> None:
    """What `list`, `get` and `watch` may be asked for."""
    problems = [
        Problem(message=f"got {kind[:40]!r}", path=("kinds",), expected="a-z, 0-9 and '_', at most 32")
        for kind in kinds or ()
        if not is_kind(kind)
    ]
    if kinds is not None and len(kinds) > MAX_OPERATIONS:
        problems.append(
            Problem(message=f"got {len(kinds)} kinds", path=("kinds",), expected=f"at most {MAX_OPERATIONS}")
        )
    if len(prefix) > MAX_KEY_CHARS or _PREFIX.fullmatch(prefix) is None:
        problems.append(Problem(message=f"got {prefix[:80]!r}", path=("prefix",), expected="the beginning of a key"))
    if problems:
        raise Invalid("query", problems)


def check_ttl(ttl_s: int) -> None:
    """How long a lease may last."""
    if not MIN_LEASE_S <= ttl_s <= MAX_LEASE_S:
        raise Invalid(
            "lease", [Problem(message=f"got {ttl_s} s", path=("ttl_s",), expected=f"{MIN_LEASE_S} to {MAX_LEASE_S}")]
        )
