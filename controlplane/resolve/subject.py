"""One name as it stands, and what to say to whoever knew an earlier state of it. Owns no model and no stream.

A state is immutable. A watcher keeps the state it was told last, and nothing else: no queue grows behind a slow one, and
what it missed is never more than the difference to the newest state. Messages are made once per pair of states, whoever
asks for them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from meshcore.api.octets import field

from ..model import Endpoint
from . import wire
from .names import Target

MAX_MESSAGES = 16  # pairs of states whose message is kept: watchers in step need one, a few are behind

Place = tuple[str, int]


class Watcher(Protocol):
    """Whoever watches a name."""

    def changed(self, subject: Subject) -> None:
        """There is a newer state. Called in the event loop; returns at once."""


class State(msgspec.Struct, frozen=True, eq=False):
    """What can be told of a name."""

    version: int
    exists: bool
    endpoints: Mapping[Place, bytes]
    """Each as an entry of WeightedAddrSet."""
    labels: bytes
    """Of all of them, as the last fields of WeightedAddrSet."""
    policy: bytes
    """A serialized Policy."""
    digest: bytes


class Seen(msgspec.Struct, frozen=True):
    """What a name has: endpoints that take requests, whether it exists, how it is called."""

    endpoints: Iterable[Endpoint]
    exists: bool
    labels: bytes
    policy: bytes
    keeps_last: bool
    """When no endpoint is left, the ones known before are kept until others come."""


class Subject:
    """A name somebody watches."""

    def __init__(self, target: Target, look: Callable[[], Seen]) -> None:
        self.target = target
        self.watchers: set[Watcher] = set()
        self.is_holding = False
        """It has no endpoint left, and those it had are kept."""
        self._look = look
        self._encoded: dict[Place, tuple[Endpoint, bytes]] = {}
        self._messages: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self.state = State(0, False, {}, b"", b"", b"")
        self.refresh()

    def refresh(self) -> bool:
        """Looks again. True when there is something new to tell; watchers are told."""
        state = self._looked()
        if state.digest == self.state.digest:
            return False
        self.state = state
        self._messages.clear()
        for watcher in tuple(self.watchers):
            watcher.changed(self)
        return True

    def _looked(self) -> State:
        seen = self._look()
        encoded: dict[Place, tuple[Endpoint, bytes]] = {}
        for endpoint in seen.endpoints:
            place = (endpoint.address, endpoint.port)
            known = self._encoded.get(place)
            encoded[place] = known if known is not None and known[0] == endpoint else (endpoint, wire.added(endpoint))
        self.is_holding = seen.keeps_last and not encoded and bool(self._encoded)
        if self.is_holding:
            encoded = self._encoded
        self._encoded = encoded
        endpoints = {place: octets for place, (_, octets) in encoded.items()}
        digest = hashlib.blake2b(digest_size=16)
        for part in (b"\x01" if seen.exists else b"\x00", seen.labels, seen.policy, *sorted(endpoints.values())):
            digest.update(len(part).to_bytes(4, "little"))
            digest.update(part)
        return State(
            self.state.version + 1, seen.exists, endpoints, seen.labels, seen.policy, digest.digest()
        )

    # -- what to say ------------------------------------------------------------------------------------------------

    def updates(self, known: State | None) -> tuple[bytes, ...]:
        """Serialized Updates that lead from what is known to the newest state; None: from nothing.

        What is new comes before what is gone: nobody is without endpoints in between.
        """
        new = self.state
        if not new.endpoints:
            was_told = known is not None and not known.endpoints and known.exists == new.exists
            return () if was_told else (wire.NO_ENDPOINTS[new.exists],)
        old: Mapping[Place, bytes] = {} if known is None else known.endpoints
        fresh = [octets for place, octets in new.endpoints.items() if old.get(place) != octets]
        gone = [wire.removed(*place) for place in old if place not in new.endpoints]
        out = []
        if fresh:
            out.append(wire.update_add(fresh, new.labels))
        if gone:
            out.append(wire.update_remove(gone))
        return tuple(out)

    def change(self, known: State | None) -> bytes:
        """The fields of a Change (discovery.proto) without its id; empty when nothing is new."""
        new = self.state
        pair = (known.version if known is not None else 0, new.version)
        made = self._messages.get(pair)
        if made is None:
            made = self._messages[pair] = _change(known, new, self.updates(known))
            while len(self._messages) > MAX_MESSAGES:
                self._messages.popitem(last=False)
        return made


def _change(known: State | None, new: State, updates: Iterable[bytes]) -> bytes:
    parts = [b"\x10\x01"] if known is None else []  # is_whole = 2
    parts += [field(3, update) for update in updates]
    if known is None or known.policy != new.policy:
        parts.append(field(4, new.policy))
    if not parts:
        return b""
    parts.append(field(5, new.digest))
    return b"".join(parts)
