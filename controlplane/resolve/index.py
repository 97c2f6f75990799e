"""The model in memory, ordered by what a lookup needs. Knows no watcher, and makes no message.

Feeding it an event costs work in proportion to what changed, and tells which services and addresses may look different
now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..model import Changes, Drain, Endpoint, Event, Named, RoutePolicy, Service, Snapshot, TrafficPolicy, Workload

ServiceKey = tuple[str, str]  # namespace, service
Dirty = tuple[set[ServiceKey], set[str]]


class ServiceEntry:
    """All that concerns one service, whether it exists or something only points to it."""

    __slots__ = ("endpoints", "routes", "selected", "service", "traffic")

    def __init__(self) -> None:
        self.service: Service | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.selected: dict[str, Workload] = {}
        self.routes: dict[str, RoutePolicy] = {}
        self.traffic: dict[str, TrafficPolicy] = {}

    @property
    def is_empty(self) -> bool:
        return self.service is None and not (self.endpoints or self.routes or self.traffic)

    @property
    def exists(self) -> bool:
        """Endpoints make a service exist too: who registers one by hand need not write the other."""
        return self.service is not None or bool(self.endpoints)


class Index:
    """Everything there is, by service and by address."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, ServiceEntry] = {}
        self.workloads: dict[str, dict[str, Workload]] = {}
        self.drained: dict[str, set[str]] = {}
        """Names of workloads that take no new requests, by namespace."""
        self._values: dict[tuple[str, str], Named] = {}
        self._addresses: dict[str, dict[tuple[str, str], Named]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def service(self, key: ServiceKey) -> ServiceEntry | None:
        """What is known of a service."""
        return self.services.get(key)

    def at(self, ip: str) -> Iterator[Named]:
        """Endpoints, workloads and services that have this address, in the order of their keys."""
        for _, value in sorted(self._addresses.get(ip, {}).items()):
            yield value

    def feed(self, event: Event[Named]) -> Dirty:
        """Takes an event in, and tells what it touched."""
        dirty: Dirty = (set(), set())
        if isinstance(event, Snapshot):
            fresh = {(entry.kind, entry.key): entry.value for entry in event.entries}
            for place in [place for place in self._values if place not in fresh]:
                self._set(place, None, dirty)
            for place, value in fresh.items():
                self._set(place, value, dirty)
        else:
            assert isinstance(event, Changes)
            for change in event.changes:
                self._set((change.kind, change.key), change.value, dirty)
        return dirty

    def _set(self, place: tuple[str, str], value: Named | None, dirty: Dirty) -> None:
        old = self._values.get(place)
        if old == value:
            return
        if value is None:
            self._values.pop(place, None)
        else:
            self._values[place] = value
        for ip in _addresses_of(old):
            self._addresses[ip].pop(place, None)
            if not self._addresses[ip]:
                del self._addresses[ip]
            dirty[1].add(ip)
        for ip in _addresses_of(value):
            assert value is not None
            self._addresses.setdefault(ip, {})[place] = value
            dirty[1].add(ip)
        either = value if value is not None else old
        if isinstance(either, Drain):
            self._set_drain(either, value is not None, dirty[0])
        elif isinstance(either, Workload):
            self._set_workload(either, value if isinstance(value, Workload) else None, dirty[0])
        else:
            for key in {_service_of(one) for one in (old, value) if one is not None}:
                self._set_in(key, either, old, value)
                dirty[0].add(key)

    def _set_drain(self, drain: Drain, is_drained: bool, dirty: set[ServiceKey]) -> None:
        names = self.drained.setdefault(drain.namespace, set())
        if is_drained:
            names.add(drain.name)
        else:
            names.discard(drain.name)
            if not names:
                del self.drained[drain.namespace]
        for key, entry in self.services.items():
            if key[0] == drain.namespace and (
                drain.name in entry.selected or any(one.workload == drain.name for one in entry.endpoints.values())
            ):
                dirty.add(key)

    def _set_in(self, key: ServiceKey, either: Named | None, old: Named | None, value: Named | None) -> None:
        entry = self.services.setdefault(key, ServiceEntry())
        is_here = value is not None and _service_of(value) == key
        if isinstance(either, Service):
            entry.service = value if is_here and isinstance(value, Service) else None
            self._select(key, entry)
        else:
            assert either is not None
            kept: dict[str, Named] = {  # type: ignore[assignment]
                "endpoint": entry.endpoints,
                "route_policy": entry.routes,
                "traffic_policy": entry.traffic,
            }[either.kind]
            if is_here and value is not None:
                kept[value.name] = value
            elif old is not None:
                kept.pop(old.name, None)
        if entry.is_empty:
            del self.services[key]

    def _select(self, key: ServiceKey, entry: ServiceEntry) -> None:
        selector = entry.service.selector if entry.service is not None else {}
        there = self.workloads.get(key[0], {}) if selector else {}
        entry.selected = {name: one for name, one in there.items() if _takes(selector, one)}

    def _set_workload(self, either: Workload, value: Workload | None, dirty: set[ServiceKey]) -> None:
        there = self.workloads.setdefault(either.namespace, {})
        if value is None:
            there.pop(either.name, None)
        else:
            there[value.name] = value
        for key, entry in self.services.items():
            if key[0] != either.namespace or entry.service is None or not entry.service.selector:
                continue
            was = entry.selected.pop(either.name, None)
            if value is not None and _takes(entry.service.selector, value):
                entry.selected[value.name] = value
            if was is not None or either.name in entry.selected:
                dirty.add(key)


def _takes(selector: dict[str, str], workload: Workload) -> bool:
    return all(workload.labels.get(name) == wanted for name, wanted in selector.items())


def _service_of(value: Named) -> ServiceKey:
    return (value.namespace, value.name if isinstance(value, Service) else value.service)  # type: ignore[attr-defined]


def _addresses_of(value: Named | None) -> Iterable[str]:
    if isinstance(value, Endpoint):
        return (value.address,)
    if isinstance(value, (Workload, Service)):
        return value.addresses
    return ()
