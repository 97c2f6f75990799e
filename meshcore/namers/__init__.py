"""Live namers: what names are bound to now, and the addresses behind them, as values that change. One asyncio loop.

`naming` has the language and binds by the present answers; here are the namers that watch the world (files, DNS, Consul,
ZooKeeper, etcd, Kubernetes), and the interpreter that binds again whenever an answer changes. Clients of others are
imported only by the kind that needs them.
"""

from __future__ import annotations

from .interpreter import Interpreter, LocalInterpreter, Resolution
from .live import Cell, Derived, Live, Stale, fixed
from .namer import CatalogueNamer, LiveNamer, LiveNamers, NamerHealth, PureLiveNamer
from .source import Source, SourceError, SourceHealth
from .states import Address, Replicas, State, has_addresses

__all__ = [
    "Address",
    "CatalogueNamer",
    "Cell",
    "Derived",
    "Interpreter",
    "Live",
    "LiveNamer",
    "LiveNamers",
    "LocalInterpreter",
    "NamerHealth",
    "PureLiveNamer",
    "Replicas",
    "Resolution",
    "Source",
    "SourceError",
    "SourceHealth",
    "Stale",
    "State",
    "fixed",
    "has_addresses",
]
