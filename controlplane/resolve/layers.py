"""What the store holds, and what sources of discovery tell, as one model. Owns the order in which they count; reads nothing.

A value that stands in the store counts before one that a source tells, and sources count in their order: what somebody
wrote by hand is not undone by a file or by Kubernetes. Sources are not written into the store: each replica sees them
itself, so no replica has to be the one that writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..model import Change, Changes, Event, Named, Position, Snapshot

Place = tuple[str, str]  # kind, key
Values = Mapping[Place, Named]


class Layers:
    """Several models, one over the other."""

    def __init__(self, sources: Iterable[str] = ()) -> None:
        self._store: dict[Place, Named] = {}
        self._groups: dict[str, dict[str, dict[Place, Named]]] = {name: {} for name in sources}
        self._places: dict[str, dict[Place, Named]] = {name: {} for name in self._groups}

    def from_store(self, event: Event[Named]) -> Changes[Named]:
        """What an event of the store changes in the whole."""
        places: set[Place] = set()
        if isinstance(event, Snapshot):
            fresh = {(entry.kind, entry.key): entry.value for entry in event.entries}
            places = self._store.keys() | fresh.keys()
            self._store = fresh
        else:
            for change in event.changes:
                place = (change.kind, change.key)
                places.add(place)
                if change.value is None:
                    self._store.pop(place, None)
                else:
                    self._store[place] = change.value
        return self._changes(event.position, places)

    def from_source(self, source: str, groups: Mapping[str, Iterable[Named]], *, is_whole: bool) -> Changes[Named]:
        """What a source tells: all it has, or the groups named here, an empty one being gone."""
        known, flat = self._groups[source], self._places[source]
        touched = {**dict.fromkeys(known, ()), **groups} if is_whole else groups
        places: set[Place] = set()
        # First all that goes, then all that comes: a value may move from one group to another.
        for name in touched:
            for place in known.pop(name, {}):
                places.add(place)
                flat.pop(place, None)
        for name, values in touched.items():
            fresh = {(value.kind, value.key): value for value in values}
            if fresh:
                known[name] = fresh
                flat.update(fresh)
                places |= fresh.keys()
        return self._changes(Position("", 0), places)

    def origin(self, place: Place) -> str:
        """Who tells the value that counts: the name of a source; empty for the store."""
        if place in self._store:
            return ""
        return next((name for name, flat in self._places.items() if place in flat), "")

    def told_by(self, source: str) -> Values:
        """All that a source tells."""
        return self._places[source]

    def sourced(self) -> Iterator[tuple[str, Named]]:
        """Each value that counts and is not the store's, with the source that tells it."""
        for name, flat in self._places.items():
            for place, value in flat.items():
                if self.origin(place) == name:
                    yield name, value

    def _changes(self, position: Position, places: set[Place]) -> Changes[Named]:
        return Changes(position, tuple(Change(position.revision, *place, self._value(place)) for place in sorted(places)))

    def _value(self, place: Place) -> Named | None:
        if place in self._store:
            return self._store[place]
        return next((flat[place] for flat in self._places.values() if place in flat), None)
