"""One tap over many proxies: who is asked, what is shown, what is hidden. Sans-I/O: time is an argument, events are values.

The ceiling is the whole session's. At first each proxy gets as large a share of it as any other, and each second anew by what there is to
see at each; of what comes only so many requests a second are shown. What is hidden, here and at the proxies, is counted, as is what was lost. The response and the
end of a shown request follow it.
"""

from __future__ import annotations

import collections
import math

import msgspec

from meshcore.taps import HIGHEST_MAX_RPS, TapEvent, TapFilter

from .directory import Directory, Member
from .resources import Resource

# What proxies are told of endpoints; other labels are the model's.
SHARE_S = 0.9  # proxies tell their counts with what they show, and at least so every second or two while they change
SILENT_S = 4.0  # a proxy that has told nothing for so long has nothing to show
TOLD_LABELS = frozenset({"namespace", "service", "workload"})
LEAST_TO_CHOOSE_FROM = 200.0
MAX_QUEUED = 10_000  # events that wait for a reader: a minute's worth of a lively tap
MAX_OPEN = 65_536  # requests whose end has not been seen


class Progress(msgspec.Struct, frozen=True):
    """How a session stands."""

    proxies: int = 0
    unmeshed: int = 0
    hidden: int = 0
    dropped: int = 0


class Shown(msgspec.Struct, frozen=True):
    """One event, and the workload whose proxy saw it."""

    event: TapEvent
    workload: str


class TapSession:
    """What one operator asked for."""

    def __init__(
        self, number: int, target: Resource, to: Resource | None, origin: Resource | None, asked: TapFilter, directory: Directory
    ) -> None:
        self.number = number
        self.target, self.to, self.origin = target, to, origin
        self.asked = asked
        self.requests = 0
        """That were shown."""
        self._directory = directory
        self._queue: collections.deque[Shown] = collections.deque()
        self._bases: dict[tuple[int, int], int] = {}
        self._open: collections.OrderedDict[tuple[int, int], None] = collections.OrderedDict()
        self._window = -1
        self._in_window = 0
        self._hidden_here = 0
        self._dropped_here = 0
        self._told: dict[int, tuple[int, int]] = {}
        self._gone = (0, 0)
        self._shared_s = -math.inf  # never
        self._seen: dict[int, int] = {}
        self._counted: dict[int, tuple[float, int]] = {}
        """When shares were counted last, and what each had seen by then."""
        self._heard_s: dict[int, float] = {}
        self._wants: dict[int, float] = {}
        self._levels: dict[int, float] = {}
        self.tapped: set[int] = set()
        """Proxies that were asked to begin."""

    def wants(self, member: Member) -> bool:
        """Whether its proxy is to be asked."""
        return self.target.covers(member.labels)

    def ask(self) -> TapFilter:
        """What each proxy is asked: as much of it as a proxy can judge. What it cannot is chosen from more than is shown."""
        asked = self.asked
        is_left = False
        if self.to is not None:
            if self.to.label == "authority":
                asked = msgspec.structs.replace(asked, authority=self.to.name)
            elif self.to.label in TOLD_LABELS:
                asked = msgspec.structs.replace(asked, to_labels=self.to.conditions())
            else:
                is_left = True
        if self.origin is not None:
            if self.origin.label == "namespace":
                asked = msgspec.structs.replace(asked, from_=f"ns/{self.origin.name}")
            elif self.origin.label == "serviceaccount" and self.origin.namespace and self.origin.name:
                asked = msgspec.structs.replace(asked, from_=f"ns/{self.origin.namespace}/sa/{self.origin.name}")
            else:
                is_left = True
        if is_left:
            asked = msgspec.structs.replace(asked, max_rps=min(HIGHEST_MAX_RPS, max(LEAST_TO_CHOOSE_FROM, asked.max_rps * 10)))
        return asked

    def first_share(self, newcomers: int) -> float:
        """Of the ceiling, for each of so many more proxies, before it is known how much there is to see."""
        return self.ask().max_rps / max(1, len(self.tapped) + newcomers)

    def begun(self, proxy: int, share: float) -> None:
        """A proxy was asked, for so many requests a second."""
        self.tapped.add(proxy)
        self._levels[proxy] = share

    def shares(self, now_s: float) -> dict[int, float]:
        """Each proxy's share of the ceiling, where it should be another one than it was told: those with little traffic keep
        what they use, the others get as much as each other. Asked about once a second."""
        if now_s - self._shared_s < SHARE_S:
            return {}
        is_first, self._shared_s = self._shared_s < 0, now_s
        wants = {proxy: self._want(proxy, now_s) for proxy in self.tapped}
        if is_first:
            return {}
        ceiling = self.ask().max_rps
        level = ceiling
        if sum(wants.values()) > ceiling:
            left, waiting = ceiling, sorted(wants.values())
            while waiting and waiting[0] <= left / len(waiting):
                left -= waiting.pop(0)
            level = left / len(waiting) if waiting else ceiling
        found = {}
        for proxy in self.tapped:
            if abs(level - self._levels.get(proxy, ceiling)) > level / 10:
                found[proxy] = self._levels[proxy] = level
        return found

    def _want(self, proxy: int, now_s: float) -> float:
        """Requests a second that there are to see at a proxy. Between two of its counts, what the last one said: who tells once
        a second would else seem to have nothing, and the others be given its share, in each span that it is not heard in."""
        total = self._seen.get(proxy, 0) + self._told.get(proxy, (0, 0))[0]
        before_s, before = self._counted.setdefault(proxy, (now_s, total))
        heard_s = self._heard_s.get(proxy, -math.inf)
        if heard_s > before_s:
            self._wants[proxy] = (total - before) / max(heard_s - before_s, SHARE_S / 2)
            self._counted[proxy] = (heard_s, total)
        elif now_s - heard_s > SILENT_S:
            self._wants[proxy] = 0.0
        return self._wants.get(proxy, 0.0)

    def take(self, proxy: int, member: Member, events: list[TapEvent], hidden: int, dropped: int, now_s: float) -> bool:
        """Events of one proxy, and its counts so far. Whether there is something to read."""
        self._told[proxy] = (hidden, dropped)
        self._heard_s[proxy] = now_s
        for event in events:
            number = self._bases.setdefault((proxy, event.worker), len(self._bases))
            exchange = (number, event.stream)
            if event.kind in ("req", "open"):
                self._seen[proxy] = self._seen.get(proxy, 0) + 1
                event = self._named(event, member)
                if not self._is_wanted(event):
                    continue
                if not self._admits(now_s):
                    self._hidden_here += 1
                    continue
                if len(self._open) >= MAX_OPEN:
                    self._open.popitem(last=False)
                self._open[exchange] = None
                self.requests += 1
            elif exchange not in self._open:
                continue
            else:
                event = self._named(event, member)
                if event.kind == "end":
                    del self._open[exchange]
            if len(self._queue) >= MAX_QUEUED:
                self._dropped_here += 1
            else:
                self._queue.append(Shown(msgspec.structs.replace(event, worker=number), member.key))
        return bool(self._queue)

    def left(self, proxy: int) -> None:
        """A proxy went away: its counts stay."""
        hidden, dropped = self._told.pop(proxy, (0, 0))
        self._gone = (self._gone[0] + hidden, self._gone[1] + dropped)
        self.tapped.discard(proxy)
        for known in (self._seen, self._counted, self._heard_s, self._wants, self._levels):
            known.pop(proxy, None)

    def read(self, most: int = 500) -> list[Shown]:
        """What waits, oldest first."""
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]

    def progress(self, unmeshed: int = 0) -> Progress:
        hidden = self._hidden_here + self._gone[0] + sum(hidden for hidden, _ in self._told.values())
        dropped = self._dropped_here + self._gone[1] + sum(dropped for _, dropped in self._told.values())
        return Progress(len(self.tapped), unmeshed, hidden, dropped)

    def _named(self, event: TapEvent, member: Member) -> TapEvent:
        """With what is known of both sides: of the proxy's own from its membership, of the other from what it was told, or
        from the model."""
        source, destination = event.src_labels, self._directory.enriched(event.dst_labels)
        if event.direction == "out":
            source = member.labels
        elif event.direction == "in":
            destination = {**destination, **member.labels}
        source = source or self._directory.labels_of_client(event.src_id, event.src)
        destination = destination or self._directory.labels_at(event.dst)
        return msgspec.structs.replace(event, src_labels=source, dst_labels=destination)

    def _is_wanted(self, event: TapEvent) -> bool:
        """What a proxy cannot judge: who the other side is."""
        if self.to is not None and not self.to.covers({"authority": event.authority, **event.dst_labels}):
            return False
        return self.origin is None or self.origin.covers(event.src_labels)

    def _admits(self, now_s: float) -> bool:
        # Below one a second the window grows, not the share: 0.1 is one request in ten seconds.
        rate = self.asked.max_rps
        window = int(now_s) if rate >= 1 else int(now_s * rate)
        if window != self._window:
            self._window, self._in_window = window, 0
        self._in_window += 1
        return self._in_window <= max(1, int(rate))
