"""The model followed from the store, and the names that somebody watches kept up to date. Owns no stream.

One computation per change and name, however many watch it; names that nobody watches cost nothing but their entry in
the index. When the store does not answer, everything stays as it was last known, and its age is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from ..catalogue import Catalogue
from ..errors import StoreUnavailable
from ..model import Changes, Named, Position
from . import endpoints, policy, wire
from .index import Index, ServiceKey
from .layers import Layers
from .names import Address, Foreign, Name, Target
from .subject import Seen, Subject, Watcher

RETRY_S = (0.1, 1.0)  # from, to: what changed in an outage is told within two seconds of its end, however long it was

K = TypeVar("K")

_log = logging.getLogger("controlplane.view")


class View:
    """All names of one mesh, as of one position."""

    def __init__(
        self,
        catalogue: Catalogue,
        trust_domain: str,
        cluster_domain: str,
        sources: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.position: Position | None = None
        self.refreshed = 0
        """How often a name was looked at again."""
        self.told = 0
        """How often it had something new to tell."""
        self._catalogue = catalogue
        self._trust_domain = trust_domain
        self._cluster_domain = cluster_domain
        self._clock = clock
        self.index = Index()
        self.layers = Layers(sources)
        self._unheard = set(sources)
        self.subjects: dict[Target, Subject] = {}
        self._by_service: dict[ServiceKey, set[Subject]] = {}
        self._by_address: dict[str, set[Subject]] = {}
        self._services_of: dict[Target, set[ServiceKey]] = {}
        self._failing_since: float | None = None
        self._moved = asyncio.Event()

    # -- following --------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Until cancelled. Never fails: what cannot be read now is tried again."""
        wait_s = RETRY_S[0]
        while True:
            try:
                async for event in self._catalogue.watch(self.position):
                    self.position = event.position
                    self._take(self.layers.from_store(event))
                    self._failing_since = None
                    wait_s = RETRY_S[0]
            except StoreUnavailable as error:
                if self._failing_since is None:
                    self._failing_since = self._clock()
                    _log.warning("the store does not answer, serving what is known: %s", error)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_S[1])

    def hear(self, source: str, groups: Mapping[str, Iterable[Named]], *, is_whole: bool) -> None:
        """What a source of discovery tells: all it has, or some groups of it."""
        if is_whole:
            self._unheard.discard(source)
        self._take(self.layers.from_source(source, groups, is_whole=is_whole))

    @property
    def unheard(self) -> frozenset[str]:
        """Sources that have told nothing yet: until they do, nobody can say that a name does not exist."""
        return frozenset(self._unheard)

    def _take(self, changes: Changes[Named]) -> None:
        dirty = self.index.feed(changes)
        touched: set[Subject] = set()
        for key in dirty[0]:
            touched |= self._by_service.get(key, set())
        for ip in dirty[1]:
            touched |= self._by_address.get(ip, set())
        for subject in touched:
            self.refreshed += 1
            self.told += subject.refresh()
            self._link(subject)
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def stale_s(self) -> float:
        """For how long the store has not answered; 0 when it does."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    async def reached(self, position: Position | None, timeout_s: float) -> bool:
        """Whether what we know is whole, and as new as this position, waiting for it if need be.

        Positions of another life of the store cannot be compared: after a restore, older is what counts.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._is_at(position):
                    await self._moved.wait()
        return self._is_at(position)

    async def read(self, timeout_s: float) -> bool:
        """Whether the store has been read once, waiting for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.position is None:
                    await self._moved.wait()
        return self.position is not None

    def _is_at(self, position: Position | None) -> bool:
        if self.position is None or self._unheard:
            return False
        return position is None or not self.position.is_before(position)

    # -- watching ---------------------------------------------------------------------------------------------------

    def begin(self, target: Target, watcher: Watcher) -> Subject:
        """The subject of a name, and from now on `watcher.changed` for each new state."""
        subject = self.subjects.get(target)
        if subject is None:
            subject = Subject(target, lambda: self._look(target))
            self.subjects[target] = subject
            if isinstance(target, Address):
                self._by_address.setdefault(target.ip, set()).add(subject)
            self._link(subject)
        subject.watchers.add(watcher)
        return subject

    def end(self, subject: Subject, watcher: Watcher) -> None:
        """The watcher is told no more; a name nobody watches is forgotten."""
        subject.watchers.discard(watcher)
        if subject.watchers or self.subjects.get(subject.target) is not subject:
            return
        del self.subjects[subject.target]
        if isinstance(subject.target, Address):
            _drop(self._by_address, subject.target.ip, subject)
        for key in self._services_of.pop(subject.target, set()):
            _drop(self._by_service, key, subject)

    def look(self, target: Target) -> Subject:
        """A subject as it stands, that nobody watches: for a single answer."""
        return self.subjects.get(target) or Subject(target, lambda: self._look(target))

    def _link(self, subject: Subject) -> None:
        """Which service a name depends on; for an address this changes with who has it."""
        old, new = self._services_of.get(subject.target, set()), self._depends(subject.target)
        for key in old - new:
            _drop(self._by_service, key, subject)
        for key in new - old:
            self._by_service.setdefault(key, set()).add(subject)
        self._services_of[subject.target] = new

    def _depends(self, target: Target) -> set[ServiceKey]:
        if isinstance(target, Name):
            return {(target.namespace, target.service)}
        if isinstance(target, Foreign):
            return set()
        service = self._service_at(target)
        if service is not None:
            return {(service.namespace, service.service)}
        endpoint = endpoints.endpoint_at(target, self.index, self._trust_domain)
        return set() if endpoint is None else {(endpoint.namespace, endpoint.service)}

    def _service_at(self, address: Address) -> Name | None:
        found = next((one for one in self.index.at(address.ip) if one.kind == "service"), None)
        return None if found is None else Name(found.namespace, found.name, address.port)

    def _look(self, target: Target) -> Seen:
        if isinstance(target, Foreign):
            return Seen((), False, b"", b"", False)
        if isinstance(target, Address):
            service = self._service_at(target)
            if service is None:
                return self._look_at(target)
            target = service
        entry = self.index.service((target.namespace, target.service))
        there = endpoints.endpoints_of(target, entry, self._trust_domain)
        keeps_last = not there and entry is not None and entry.exists
        made = policy.policy_of(target, entry, self._trust_domain, self._cluster_domain)
        return Seen(
            endpoints.live(there, self.index.drained.get(target.namespace, ())),
            entry is not None and entry.exists,
            wire.set_labels(target.namespace, target.service),
            made.SerializeToString(deterministic=True),
            keeps_last and policy.traffic_of(entry).when_empty == "keep",
        )

    def _look_at(self, address: Address) -> Seen:
        endpoint = endpoints.endpoint_at(address, self.index, self._trust_domain)
        if endpoint is None:
            return Seen((), False, b"", b"", False)
        entry = self.index.service((endpoint.namespace, endpoint.service))
        made = policy.policy_of(
            Name(endpoint.namespace, endpoint.service, endpoint.service_port or address.port),
            entry,
            self._trust_domain,
            self._cluster_domain,
        )
        made.is_endpoint = True
        del made.rules[:]
        return Seen(
            [endpoint],
            True,
            wire.set_labels(endpoint.namespace, endpoint.service),
            made.SerializeToString(deterministic=True),
            False,
        )


def _drop(places: dict[K, set[Subject]], key: K, subject: Subject) -> None:
    places[key].discard(subject)
    if not places[key]:
        del places[key]
