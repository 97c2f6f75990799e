"""What the mesh counted lately: ten minutes by the second, a day by the minute. Sans-I/O: time is an argument.

Time goes in slots, and a slot holds only what had traffic in it, so a quiet mesh costs nothing and the oldest goes at once. A
second is written once and read as it is; each full minute becomes one more compact slot. Three bounds: how long, how many
series, how many bytes: where the bytes are the tightest, the oldest slots go early, and that is counted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import msgspec

from meshcore.api.statistics_frame import Row
from meshcore.stats import Histogram

from .directory import Member

SECONDS_KEPT = 600
MINUTES_KEPT = 1_440
MAX_SERIES = 20_000
MAX_BYTES = 268_435_456
# A slot's place for one series beside its histogram, as CPython has it.
CELL_BYTES = 280


class SeriesKey(msgspec.Struct, frozen=True):
    """Who counted what: a proxy's workload, its side, and the other side."""

    owner: str
    direction: str
    route: str
    service: str
    labels: tuple[tuple[str, str], ...]


class Series(msgspec.Struct, frozen=True, eq=False):
    """One of them, with the owner as it was when it last reported."""

    key: SeriesKey
    owner: Member
    labels: dict[str, str]
    """Of the other side."""

    @property
    def direction(self) -> str:
        return self.key.direction


class Cell(msgspec.Struct, frozen=True):
    """What one series counted in one slot."""

    requests: int = 0
    successes: int = 0
    failures: int = 0
    secure: int = 0
    latency: bytes = b""
    """See `Histogram.changes`; several joined are their sum."""
    tcp_opened: int = 0
    tcp_read: int = 0
    """Octets from the other side: of what came in that is the client, of what went out the server."""
    tcp_written: int = 0

    def plus(self, other: Cell) -> Cell:
        return Cell(
            self.requests + other.requests,
            self.successes + other.successes,
            self.failures + other.failures,
            self.secure + other.secure,
            self.latency + other.latency,
            self.tcp_opened + other.tcp_opened,
            self.tcp_read + other.tcp_read,
            self.tcp_written + other.tcp_written,
        )


class Sums(msgspec.Struct):
    """What a group of series counted over a span."""

    requests: int = 0
    successes: int = 0
    failures: int = 0
    secure: int = 0
    tcp_opened: int = 0
    tcp_read: int = 0
    tcp_written: int = 0
    tcp_open: int = 0
    """Now, whatever the span."""
    parts: list[bytes] = msgspec.field(default_factory=list)

    @property
    def latency(self) -> Histogram:
        return Histogram.of_changes(self.parts)

    def add(self, cell: Cell) -> None:
        self.requests += cell.requests
        self.successes += cell.successes
        self.failures += cell.failures
        self.secure += cell.secure
        self.tcp_opened += cell.tcp_opened
        self.tcp_read += cell.tcp_read
        self.tcp_written += cell.tcp_written
        if cell.latency:
            self.parts.append(cell.latency)


Slot = dict[int, Cell]
G = TypeVar("G", bound=Hashable)


class StatisticsStore:
    """All series of one control plane."""

    def __init__(
        self, started_s: float, *, max_series: int = MAX_SERIES, max_bytes: int = MAX_BYTES,
        seconds_kept: int = SECONDS_KEPT, minutes_kept: int = MINUTES_KEPT,
    ) -> None:  # fmt: skip
        self.started_s = started_s
        self.refused_rows = 0
        """Rows of series above the bound: not counted."""
        self.evicted_slots = 0
        """Slots that went before their time, for the bytes' sake."""
        self.bytes = 0
        self._max_series, self._max_bytes = max_series, max_bytes
        self._seconds_kept, self._minutes_kept = seconds_kept, minutes_kept
        self._seconds: collections.OrderedDict[int, Slot] = collections.OrderedDict()
        self._minutes: collections.OrderedDict[int, Slot] = collections.OrderedDict()
        self._rolled_to = int(started_s) // 60  # minutes before this one are closed
        self._ids: dict[SeriesKey, int] = {}
        self._series: dict[int, Series] = {}
        self._used: dict[int, int] = {}
        """In how many slots each is."""
        self._tcp_open: dict[int, int] = {}
        """Connections of each, as its proxy told last; who has none is left out."""
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._series)

    def add(self, now_s: float, owner: Member, rows: Iterable[Row]) -> None:
        """Count what a proxy reported now."""
        second = int(now_s)
        self.expire(now_s)
        if not self._seconds or second > next(reversed(self._seconds)):
            self._seconds[second] = {}
        else:
            second = next(reversed(self._seconds))  # a clock that was set back goes on where it was
        slot = self._seconds[second]
        for row in rows:
            key = SeriesKey(owner.key, row.direction, row.route, row.service, tuple(sorted(row.labels.items())))
            number = self._number(key, owner, row.labels)
            if number is None:
                self.refused_rows += 1
                continue
            read, written = (row.bytes_out, row.bytes_in) if row.direction == "in" else (row.bytes_in, row.bytes_out)
            cell = Cell(row.requests, row.successes, row.failures, row.secure, row.latency, row.tcp_opened, read, written)
            if row.tcp_open:
                self._tcp_open[number] = row.tcp_open
            else:
                self._tcp_open.pop(number, None)
            self._put(slot, number, slot[number].plus(cell) if number in slot else cell)
        while self.bytes > self._max_bytes and len(self._seconds) + len(self._minutes) > 1:
            self.evicted_slots += 1
            self._drop(self._minutes if self._minutes and len(self._seconds) <= 1 or self._is_older_minute() else self._seconds)

    def expire(self, now_s: float) -> None:
        """Let go of what is too old, and close the minutes that are over."""
        minute = int(now_s) // 60
        while self._rolled_to < minute:
            self._roll(self._rolled_to, minute)
        while self._seconds and next(iter(self._seconds)) <= now_s - self._seconds_kept:
            self._drop(self._seconds)
        while self._minutes and next(iter(self._minutes)) <= minute - self._minutes_kept:
            self._drop(self._minutes)

    def sums(self, now_s: float, window_s: float, group_of: Callable[[Series], G | None]) -> tuple[dict[G, Sums], float]:
        """What each group counted in the time before now, and how long that time is: less than asked for when this store is
        younger. group_of: None leaves a series out."""
        self.expire(now_s)
        groups: dict[int, G | None] = {}
        found: dict[G, Sums] = {}
        for slot in self._slots(now_s, window_s):
            for number, cell in slot.items():
                if number not in groups:
                    groups[number] = group_of(self._series[number])
                group = groups[number]
                if group is not None:
                    found.setdefault(group, Sums()).add(cell)
        return found, max(1.0, min(window_s, now_s - self.started_s))

    def close_all(self, owner: str) -> None:
        """A proxy began anew: connections of its life before are gone."""
        for number in [number for number in self._tcp_open if self._series[number].owner.key == owner]:
            del self._tcp_open[number]

    def tcp_open(self) -> Iterator[tuple[Series, int]]:
        """Who has connections open, and how many, as told last."""
        return ((self._series[number], count) for number, count in self._tcp_open.items())

    def _slots(self, now_s: float, window_s: float) -> Iterator[Slot]:
        begin_s = now_s - window_s
        if window_s <= self._seconds_kept:
            yield from (slot for second, slot in self._seconds.items() if second >= begin_s)
            return
        yield from (slot for minute, slot in self._minutes.items() if minute * 60 >= begin_s)
        yield from (slot for second, slot in self._seconds.items() if second // 60 >= self._rolled_to)

    def _number(self, key: SeriesKey, owner: Member, labels: dict[str, str]) -> int | None:
        number = self._ids.get(key)
        if number is None:
            if len(self._series) >= self._max_series:
                return None
            number = self._ids[key] = self._next_id
            self._next_id += 1
        if number not in self._series or self._series[number].owner != owner:
            self._series[number] = Series(key, owner, labels)
        return number

    def _roll(self, minute: int, present: int) -> None:
        """Close a minute that is over: its seconds as one slot. Minutes without any are passed over at once."""
        seconds = [slot for second, slot in self._seconds.items() if second // 60 == minute]
        if not seconds:
            later = [second // 60 for second in self._seconds if second // 60 > minute]
            self._rolled_to = min(later, default=present)
            return
        gathered: dict[int, Sums] = {}
        for slot in seconds:
            for number, cell in slot.items():
                gathered.setdefault(number, Sums()).add(cell)
        whole = self._minutes[minute] = {}
        for number, sums in gathered.items():
            compact = sums.latency.changes(Histogram())
            tcp = (sums.tcp_opened, sums.tcp_read, sums.tcp_written)
            self._put(whole, number, Cell(sums.requests, sums.successes, sums.failures, sums.secure, compact, *tcp))
        self._rolled_to = minute + 1

    def _put(self, slot: Slot, number: int, cell: Cell) -> None:
        if number in slot:
            self.bytes -= _bytes_of(slot[number])
        else:
            self._used[number] = self._used.get(number, 0) + 1
        slot[number] = cell
        self.bytes += _bytes_of(cell)

    def _is_older_minute(self) -> bool:
        # The day goes first, as it costs more than the ten minutes when it is that long.
        return len(self._minutes) > self._seconds_kept // 60

    def _drop(self, slots: collections.OrderedDict[int, Slot]) -> None:
        _, slot = slots.popitem(last=False)
        for number, cell in slot.items():
            self.bytes -= _bytes_of(cell)
            self._used[number] -= 1
            if not self._used[number]:
                del self._used[number]
                self._tcp_open.pop(number, None)
                del self._ids[self._series.pop(number).key]


def _bytes_of(cell: Cell) -> int:
    return CELL_BYTES + len(cell.latency)
