"""How entries lie in etcd, as keys and as the gateway's JSON. Builds questions and reads answers; asks nobody.

Keys: `<prefix>/v/<kind>/<key>` are the entries, `<prefix>/head` holds the mark of the last transaction, and
`<prefix>/epoch` names the life.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from meshcore.clients.etcd import decoded, encoded

from ..errors import Conflict, StoreUnavailable
from ..model.change import Change, Entry
from .interface import Operation


class Told(msgspec.Struct, frozen=True):
    """What one result of a stream says: (revision, changes, mark or "") in order, and a new epoch or ""."""

    batches: tuple[tuple[int, tuple[Change[bytes], ...], str], ...]
    epoch: str


class Layout:
    """The keys of one mesh."""

    def __init__(self, prefix: str) -> None:
        self.root = prefix.strip("/") + "/"
        self.entries = self.root + "v/"
        self.head_key = self.root + "head"
        self.epoch_key = self.root + "epoch"

    def key(self, kind: str, key: str) -> str:
        """Where an entry lies."""
        return f"{self.entries}{kind}/{key}"

    def name(self, key: str) -> tuple[str, str]:
        """Kind and key of an entry, from where it lies."""
        kind, _, key = key[len(self.entries) :].partition("/")
        return kind, key

    def put_head(self, mark: str) -> dict[str, Any]:
        """The operation that is part of every transaction."""
        return {"request_put": {"key": encoded(self.head_key), "value": encoded(mark)}}

    def read(self, answer: dict[str, Any]) -> Iterator[Entry[bytes]]:
        """The entries of a range."""
        for item in answer.get("kvs", ()):
            kind, key = self.name(decoded(item["key"]).decode(errors="replace"))
            yield Entry(kind, key, decoded(item.get("value")), int(item["mod_revision"]), int(item.get("lease", 0)))

    def read_events(self, result: dict[str, Any]) -> Told:
        """The events of one result, by revision: etcd never splits a revision over two results."""
        if result.get("canceled") or int(result.get("compact_revision", 0)):
            raise StoreUnavailable("history is compacted beyond this revision", is_unsent=True)
        changes: dict[int, list[Change[bytes]]] = {}
        marks: dict[int, str] = {}
        epoch = ""
        for event in result.get("events", ()):
            item = event["kv"]
            # Somebody else's key below our prefix may be any bytes.
            name, revision = decoded(item["key"]).decode(errors="replace"), int(item["mod_revision"])
            batch = changes.setdefault(revision, [])
            is_deleted = event.get("type") == "DELETE"
            if name.startswith(self.entries):
                batch.append(Change(revision, *self.name(name), None if is_deleted else decoded(item.get("value"))))
            elif name == self.head_key:
                marks[revision] = decoded(item.get("value")).decode()
            elif name == self.epoch_key:
                epoch = decoded(item.get("value")).decode()
        return Told(
            tuple((revision, tuple(batch), marks.get(revision, "")) for revision, batch in changes.items()), epoch
        )


def conflict_of(conditions: Sequence[Operation], answer: dict[str, Any]) -> Conflict:
    """Which condition of a refused transaction does not hold, from what its other branch read."""
    for operation, found in zip(conditions, answer["responses"], strict=True):
        items = found["response_range"].get("kvs", ())
        actual = int(items[0]["mod_revision"]) if items else 0
        if actual != operation.expected:
            return Conflict(operation.kind, operation.key, operation.expected or 0, actual)
    raise StoreUnavailable("etcd refused a transaction all of whose conditions hold")


def range_of(prefix: str) -> dict[str, str]:
    """Every key that begins with a prefix; ours end in a byte that has a next one."""
    return {"key": encoded(prefix), "range_end": encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def value_of(answer: dict[str, Any]) -> bytes:
    """The value of a range over one key; b"" when there is none."""
    items = answer.get("kvs", ())
    return decoded(items[0].get("value")) if items else b""
