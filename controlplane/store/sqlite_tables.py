"""The tables of a SQLite store, and what each transaction does to them. Opens no file and knows no thread.

Each function runs within a transaction of the thread that owns the connection.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from ..errors import Conflict, LeaseExpired, StoreUnavailable
from ..model.change import NO_MARK, Change, Changes, Entry, Position, Snapshot
from .interface import Delete, Expect, Operation, Put

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D657368  # "mesh", so that `file` and a stray path tell what it is
PREFIX_END = "\x7f"  # behind every byte a key may have

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL,
                      lease INTEGER NOT NULL, PRIMARY KEY (kind, key));
CREATE INDEX entries_lease ON entries (lease) WHERE lease != 0;
CREATE TABLE history (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, mark TEXT NOT NULL, kind TEXT NOT NULL,
                      key TEXT NOT NULL, value BLOB);
CREATE INDEX history_revision ON history (revision);
CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL);
"""


class Outcome(msgspec.Struct, frozen=True):
    """What a transaction came to: where history now ends, and what readers are to be told."""

    position: Position
    batch: Changes[bytes] | None = None


def create(db: sqlite3.Connection, path: Path) -> None:
    """The tables of a new store; StoreUnavailable when the file is something else."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreUnavailable(f"{path} is a database of something else", is_unsent=True)
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    values = {"epoch": secrets.token_hex(8), "revision": 0, "mark": NO_MARK, "floor": 0, "floor_mark": NO_MARK}
    db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute("COMMIT")


def meta(db: sqlite3.Connection) -> dict[str, Any]:
    return dict(db.execute("SELECT name, value FROM meta").fetchall())


def put_meta(db: sqlite3.Connection, **values: Any) -> None:
    db.executemany("UPDATE meta SET value=? WHERE name=?", [(value, name) for name, value in values.items()])


def position_of(db: sqlite3.Connection) -> Position:
    known = meta(db)
    return Position(known["epoch"], known["revision"], known["mark"])


def read(db: sqlite3.Connection, kinds: Collection[str] | None, prefix: str) -> Snapshot[bytes]:
    """The entries of these kinds below a prefix, and where history stands."""
    query = "SELECT kind, key, value, revision, lease FROM entries WHERE key >= ? AND key < ?"
    values: list[Any] = [prefix, prefix + PREFIX_END]
    if kinds is not None:
        query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        values += kinds
    rows = db.execute(query + " ORDER BY kind, key", values)
    return Snapshot(position_of(db), tuple(Entry(*row) for row in rows))


def write(db: sqlite3.Connection, operations: Collection[Operation]) -> Outcome:
    """All operations, or an exception."""
    for operation in operations:
        if operation.expected is not None:
            row = db.execute(
                "SELECT revision FROM entries WHERE kind=? AND key=?", (operation.kind, operation.key)
            ).fetchone()
            actual = row[0] if row else 0
            if actual != operation.expected:
                raise Conflict(operation.kind, operation.key, operation.expected, actual)
    before = position_of(db)
    revision = before.revision + 1
    changes: list[Change[bytes]] = []
    for operation in operations:
        if isinstance(operation, Put):
            if operation.lease and not db.execute("SELECT 1 FROM leases WHERE id=?", (operation.lease,)).fetchone():
                raise LeaseExpired(operation.lease)
            row = (operation.kind, operation.key, operation.value, revision, operation.lease)
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", row)
            changes.append(Change(revision, operation.kind, operation.key, operation.value))
        elif isinstance(operation, Delete):
            done = db.execute("DELETE FROM entries WHERE kind=? AND key=?", (operation.kind, operation.key))
            if done.rowcount:
                changes.append(Change(revision, operation.kind, operation.key, None))
        else:
            assert isinstance(operation, Expect)
    return record(db, before, changes)


def end_lease(db: sqlite3.Connection, lease: int) -> Outcome:
    """Deletes a lease with its entries."""
    before = position_of(db)
    rows = db.execute("SELECT kind, key FROM entries WHERE lease=? ORDER BY kind, key", (lease,)).fetchall()
    db.execute("DELETE FROM entries WHERE lease=?", (lease,))
    db.execute("DELETE FROM leases WHERE id=?", (lease,))
    return record(db, before, [Change(before.revision + 1, kind, key, None) for kind, key in rows])


def record(db: sqlite3.Connection, before: Position, changes: list[Change[bytes]]) -> Outcome:
    """Puts changes into history as the next revision."""
    if not changes:
        return Outcome(before)
    after = Position(before.epoch, before.revision + 1, secrets.token_hex(8))
    db.executemany(
        "INSERT INTO history (revision, mark, kind, key, value) VALUES (?, ?, ?, ?, ?)",
        [(after.revision, after.mark, change.kind, change.key, change.value) for change in changes],
    )
    put_meta(db, revision=after.revision, mark=after.mark)
    return Outcome(after, Changes(after, tuple(changes)))


def changes_since(db: sqlite3.Connection, since: Position, most: int) -> Changes[bytes] | None:
    """What followed a position; None when history does not hold it, or holds more than `most` changes since."""
    known = meta(db)
    if since.epoch != known["epoch"] or not known["floor"] <= since.revision <= known["revision"]:
        return None
    if since.revision == known["floor"]:
        mark = known["floor_mark"]
    else:
        row = db.execute("SELECT mark FROM history WHERE revision=? LIMIT 1", (since.revision,)).fetchone()
        mark = row[0] if row else None
    if mark != since.mark:
        return None
    rows = db.execute(
        "SELECT revision, kind, key, value FROM history WHERE revision > ? ORDER BY id LIMIT ?",
        (since.revision, most + 1),
    ).fetchall()
    if len(rows) > most:
        return None
    return Changes(Position(known["epoch"], known["revision"], known["mark"]), tuple(Change(*row) for row in rows))


def forget(db: sqlite3.Connection, keep: int) -> None:
    """Cuts history to the last `keep` revisions."""
    known = meta(db)
    floor = min(max(known["floor"], known["revision"] - max(0, keep)), known["revision"])
    if floor <= known["floor"]:
        return
    mark = db.execute("SELECT mark FROM history WHERE revision=? LIMIT 1", (floor,)).fetchone()[0]
    db.execute("DELETE FROM history WHERE revision <= ?", (floor,))
    put_meta(db, floor=floor, floor_mark=mark)


def bound(db: sqlite3.Connection, most_changes: int, most_bytes: int) -> None:
    """Cuts history so that neither many small nor a few huge changes fill the disk."""
    sizes = (
        "SELECT revision, count(*), sum(length(coalesce(value, ''))) FROM history "
        "GROUP BY revision ORDER BY revision DESC"
    )
    kept = changes = size = 0
    for _, count, length in db.execute(sizes).fetchall():
        changes, size = changes + count, size + length
        if changes > most_changes or size > most_bytes:
            break
        kept += 1
    forget(db, kept)
