"""Stores: one small interface, SQLite and etcd behind it."""

from .interface import Delete, Expect, Lease, Operation, Put, Store
from .sqlite import SqliteStore
from .watching import Watch

__all__ = ["Delete", "Expect", "Lease", "Operation", "Put", "SqliteStore", "Store", "Watch"]
