"""Rows of `stat`, `routes` and `edges` from the store: which series count for whom. Owns no storage and no form of output.

As in Conduit: what a resource's own proxies saw come in, unless `to` is asked for: then what they saw go out there; with
`from`, what its proxies saw go out to the resource. Whoever is both gets its figures from the side that was asked about.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .attached import Attached
from .directory import Directory
from .resources import Resource
from .statistics_store import G, Series, StatisticsStore, Sums

DEFAULT_WINDOW_S = 60.0
MAX_WINDOW_S = 86_400.0
MAX_ROWS = 5_000
Name = tuple[str, str]  # namespace, name


class Row(msgspec.Struct, frozen=True):
    """One line. other: of an edge the other side, of a route its service."""

    namespace: str
    name: str
    sums: Sums
    other_namespace: str = ""
    other: str = ""
    meshed: int = 0
    running: int = 0


class StatTables:
    """Questions to one control plane's statistics."""

    def __init__(self, store: StatisticsStore, directory: Directory, attached: Attached, clock: Callable[[], float]) -> None:
        self._store = store
        self._directory = directory
        self._attached = attached
        self._clock = clock

    def resources(self, target: Resource, to: Resource | None, origin: Resource | None, window_s: float) -> tuple[list[Row], float]:
        """A row for each resource of the target's kind, with or without traffic."""

        def group_of(series: Series) -> Name | None:
            own, other = series.owner.labels, series.labels
            if to is not None:
                is_ours = series.direction == "out" and to.covers(self._other(series)) and target.covers(own)
                return _name(target, own) if is_ours else None
            if origin is not None:
                is_ours = series.direction == "out" and origin.covers(own) and target.covers(self._other(series))
                return _name(target, self._other(series)) if is_ours else None
            if target.label in ("service", "authority"):
                # A service runs nothing: who calls it knows how it did.
                labels = self._other(series)
                return _name(target, labels) if series.direction == "out" and target.covers(labels) else None
            return _name(target, own) if series.direction == "in" and target.covers(own) else None

        sums, span_s = self._sums(window_s, group_of)
        counts = self._counted(target)
        rows = []
        for name in sorted({*sums, *counts})[:MAX_ROWS]:
            meshed, running = counts.get(name, (0, 0))
            rows.append(Row(*name, sums.get(name, Sums()), meshed=meshed, running=running))
        return rows, span_s

    def routes(self, target: Resource, to: Resource | None, window_s: float) -> tuple[list[Row], float]:
        """A row for each route by which the target was called, or called `to`."""

        def group_of(series: Series) -> Name | None:
            if target.label in ("service", "authority"):
                labels = self._other(series)
                return (series.key.service, series.key.route) if series.direction == "out" and target.covers(labels) else None
            is_ours = target.covers(series.owner.labels) and (
                series.direction == "in" if to is None else series.direction == "out" and to.covers(self._other(series))
            )
            return (series.key.service, series.key.route) if is_ours else None

        sums, span_s = self._sums(window_s, group_of)
        found = sorted(sums.items(), key=lambda item: item[0])[:MAX_ROWS]
        return [Row("", route, one, other=service) for (service, route), one in found], span_s

    def edges(self, target: Resource, window_s: float) -> tuple[list[Row], float]:
        """Who called whom, both sides by the target's kind."""

        def group_of(series: Series) -> tuple[Name, Name] | None:
            if series.direction != "out":
                return None
            other = self._other(series)
            kind = Resource(target.label)
            if not (target.covers(series.owner.labels) or target.covers(other)) or not kind.covers(series.owner.labels):
                return None
            destination = _name(kind, other) if kind.covers(other) else ("", series.key.service)
            return (_name(kind, series.owner.labels), destination)

        sums, span_s = self._sums(window_s, group_of)
        found = sorted(sums.items(), key=lambda item: item[0])[:MAX_ROWS]
        return [Row(*source, one, *destination) for (source, destination), one in found], span_s

    def _sums(self, window_s: float, group_of: Callable[[Series], G | None]) -> tuple[dict[G, Sums], float]:
        """What the store has, and the connections that are open now."""
        sums, span_s = self._store.sums(self._clock(), window_s, group_of)
        here = {member.key for member in self._attached.members()}
        for series, count in self._store.tcp_open():
            # Of a proxy that is gone nobody tells that its connections are.
            if series.owner.key in here and (group := group_of(series)) is not None:
                sums.setdefault(group, Sums()).tcp_open += count
        return sums, span_s

    def _other(self, series: Series) -> dict[str, str]:
        return {"authority": series.key.service, **self._directory.enriched(series.labels)}

    def _counted(self, target: Resource) -> dict[Name, tuple[int, int]]:
        """Of each resource asked for: how many of its workloads have a proxy attached here, and how many there are."""
        counts: dict[Name, tuple[int, int]] = {}
        if target.label == "service":
            for service in self._directory.services():
                if target.covers({"namespace": service[0], "service": service[1]}):
                    counts[service] = (0, 0)
            return counts
        here = {member.key for member in self._attached.members()}
        known = {member.key: member for member in (*self._attached.members(), *self._directory.members())}
        for key, member in known.items():
            if target.covers(member.labels):
                name = _name(target, member.labels)
                meshed, running = counts.get(name, (0, 0))
                counts[name] = (meshed + (key in here), running + 1)
        return counts


def _name(kind: Resource, labels: dict[str, str]) -> Name:
    if kind.label == "namespace":
        return "", labels.get("namespace", "")
    return labels.get("namespace", ""), labels.get(kind.label, "")
