"""What a live namer can say of a bound name: its addresses, or why there are none. Plain values; watches nothing."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from ..naming import Failed, Neg, Pending


class Address(msgspec.Struct, frozen=True, order=True):
    """Where an instance listens. `host` is an IP address, or a DNS name where the source knows no more."""

    host: str
    port: int
    weight: float = 1.0
    metadata: tuple[tuple[str, str], ...] = ()
    """Sorted by key; known keys are `nodeName`, `authority` and `zone`."""

    def meta(self, key: str) -> str | None:
        return dict(self.metadata).get(key)


class Replicas(msgspec.Struct, frozen=True):
    """The addresses of one bound name, sorted, each once. None: the name exists, and nobody serves it now."""

    addresses: tuple[Address, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, addresses: Iterable[Address], metadata: Mapping[str, str] | None = None) -> Replicas:
        return cls(tuple(sorted(set(addresses))), pairs(metadata or {}))


State: TypeAlias = Replicas | Neg[Any] | Pending | Failed
"""Of a bound name. `Pending`: nobody has answered yet. `Neg`: there is no such name. `Failed`: nobody has ever answered,
and the source cannot be reached. After the first answer a failing source changes nothing: the last good answer stays."""


def pairs(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Metadata as a value that can be compared and hashed."""
    return tuple(sorted((str(key), str(value)) for key, value in metadata.items()))


@functools.lru_cache(maxsize=8_192)
def ip_of(host: str) -> str | None:
    """A host that is an IP address, in its canonical form; None for a name. The same few are asked again and again."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def has_addresses(state: State) -> bool:
    return isinstance(state, Replicas) and bool(state.addresses)
