"""Joins a tap's reader to the engine: what the engine is asked, and its records as events. Formats nothing: see taps.

The engine matches and limits what it can by comparing bytes. What it can not (an address without its port, a network,
a method it has no number for) is chosen here, and then the limit is held here as well, so that it counts what is shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from meshcore.redaction import Fields, shown_body, shown_fields
from meshcore.tap_bell import Bell
from meshcore.taps import Kind, TapEvent, TapFilter, TapFilterError, TapSession, identity_needle

# engine/head's numbers; any other method shares the last.
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_NO_GRPC_STATUS = 255  # the engine's word for: not a call, or it ended without one
_KINDS: tuple[Kind, ...] = ("req", "rsp", "end")
_SCHEMES = {"http": 1, "https": 2, "tcp": 3}  # state.TapSession.scheme
# An exchange whose end got lost in a full ring would be remembered for ever.
MAX_REMEMBERED = 65_536
NO_LABELS: Mapping[int, dict[str, str]] = {}


def open_session(engine: Any, hub: Any, asked: TapFilter) -> TapSession:
    """A session on a running engine. Raises TapFilterError for a route or cluster that is not configured.

    engine, hub: the door's Engine and TapHub; as many sessions as the hub allows, its error says so.
    """
    from meshcore._fastpath import reasons

    routes, clusters = _slots(engine, "routes"), _slots(engine, "clusters")
    exact, chosen_here = plan(asked, routes, clusters)
    bell = Bell()
    index = hub.open(**exact, bell_fd=bell.fd)
    lost_before = hub.counts(index)[2]
    names = [name if number else "" for number, (name, *_) in enumerate(reasons())]
    choice = Choice(asked) if chosen_here else None
    capture = Capture(asked) if asked.headers or asked.body else None

    numbered = {kind: Numbered(engine, kind) for kind in ("routes", "clusters", "labels")}
    judged: dict[int, dict[str, str]] = {}

    def judge_labels() -> None:
        """Tell the engine of endpoints that are new which of them are asked for."""
        nonlocal judged
        labels: dict[int, dict[str, str]] = numbered["labels"].all()
        if labels is judged:
            return
        news = {number: one for number, one in labels.items() if judged.get(number) != one}
        hub.judge_labels(index, [(number, wants_labels(asked, one)) for number, one in news.items()])
        judged = labels

    if exact.get("by_labels"):
        judge_labels()

    def drain() -> list[TapEvent]:
        if exact.get("by_labels"):
            judge_labels()
        records = hub.read(index)
        if not records:
            return []
        known = (numbered["routes"].all(), numbered["clusters"].all(), numbered["labels"].all())
        events = [event_of(record, names, *known) for record in records]
        if capture is not None:
            events = [capture.put(event, record[-1]) for event, record in zip(events, records, strict=True)]
        if choice is not None:
            events = choice.select(events, time.monotonic())
        lost = hub.counts(index)[2] - lost_before
        if lost and events:
            events[-1] = msgspec.structs.replace(events[-1], dropped=lost)
        return events

    def hidden() -> int:
        return int(hub.counts(index)[1]) + (choice.hidden if choice is not None else 0)

    def limit(max_rps: float) -> None:
        if exact["max_rps"]:
            hub.limit(index, max_rps)
        if choice is not None:
            choice.max_rps = max_rps

    return TapSession(drain, lambda: hub.close(index), hidden, limit, bell, lambda: hub.arm(index))


def plan(asked: TapFilter, routes: Mapping[str, int], clusters: Mapping[str, int]) -> tuple[dict[str, Any], bool]:
    """What to ask of the engine, and whether that is more than was asked, so that a choice is left to make."""
    exact: dict[str, Any] = {"authority": asked.authority, "path": asked.path}
    chosen_here = False
    if asked.method:
        known = asked.method in METHODS
        exact["method_bit"] = method_number(asked.method)
        chosen_here |= not known
    if asked.scheme:
        exact["scheme"] = _SCHEMES[asked.scheme]
    if asked.route:
        exact["route_slot"] = _slot(routes, asked.route, "--route", "route")
    if asked.to_is_address:
        # The engine compares an endpoint's address as it is configured: with its port.
        if asked.to.startswith("unix:") or asked.to_port:
            exact["to"] = asked.to
        else:
            chosen_here = True
    elif asked.to:
        exact["cluster_slot"] = _slot(clusters, asked.to, "--to", "cluster")
    if asked.from_:
        # IPv4 alone is kept as text; a port or a network is not compared at all.
        if asked.from_is_identity:
            exact["peer"], exact["peer_is_end"] = identity_needle(asked.from_)
        elif asked.from_is_ipv4:
            exact["source"] = asked.from_
        else:
            chosen_here = True
    if asked.status:
        exact["status_low"], exact["status_high"] = asked.statuses
    if asked.min_latency_us:
        exact["min_latency_ns"] = asked.min_latency_us * 1000
    if asked.reason:
        exact["reason"] = reason_number(asked.reason)
    if asked.headers or asked.body:
        # A body is shown by what its fields say of it.
        exact["fields"], exact["body_bytes"] = True, asked.body
    exact["max_rps"] = 0.0 if chosen_here else asked.max_rps
    if asked.to_labels:
        # What became known a moment ago is let through, and chosen from here.
        exact["by_labels"] = chosen_here = True
    return exact, chosen_here


def event_of(
    record: tuple[Any, ...], reasons: list[str], routes: Mapping[int, str], clusters: Mapping[int, str],
    labels: Mapping[int, dict[str, str]] = NO_LABELS,
) -> TapEvent:  # fmt: skip
    """A record of the engine, with numbers turned to names. A route or cluster gone by reload has none."""
    (kind, worker, stream, wall_ns, host, port, dst, method, authority, path, status, latency_ns, duration_ns,
     request_bytes, response_bytes, reason, route_slot, cluster_slot, grpc_status, reset_error, tcp, secure, src_id,
     label_set, _) = record  # fmt: skip
    return TapEvent(
        kind="open" if tcp and kind == 0 else _KINDS[kind],
        worker=worker,
        stream=stream,
        time_unix_ns=wall_ns,
        src=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        dst=dst,
        method=method,
        scheme="tcp" if tcp else ("https" if secure else "http") if kind == 0 else "",
        tls=secure,
        src_id=src_id,
        authority=authority,
        path=path,
        status=status,
        latency_us=latency_ns // 1000,
        duration_us=duration_ns // 1000,
        request_bytes=request_bytes if tcp else 0,
        response_bytes=response_bytes,
        reason=reasons[reason],
        route=routes.get(route_slot, ""),
        cluster=clusters.get(cluster_slot, ""),
        dst_labels=labels.get(label_set, {}),
        reset_error=reset_error,
        grpc_status=grpc_status if kind == 2 and grpc_status != _NO_GRPC_STATUS else None,
    )


def reason_number(name: str) -> int:
    from meshcore._fastpath import reasons

    return [known for known, *_ in reasons()].index(name)


class Capture:
    """Puts what was captured into events, with secrets hidden. Remembers the fields of open exchanges: they say how to read
    the bodies that come with the end."""

    def __init__(self, asked: TapFilter) -> None:
        self._asked = asked
        self._open: dict[tuple[int, int], tuple[Fields, Fields]] = {}

    def put(self, event: TapEvent, parts: tuple[bytes, bytes, bytes] | None) -> TapEvent:
        exchange = (event.worker, event.stream)
        request, response = self._open.pop(exchange, ((), ()))
        raw_fields, request_body, response_body = parts or (b"", b"", b"")
        if event.kind == "end":
            return msgspec.structs.replace(
                event,
                request_body=shown_body(request_body[: self._asked.body], request),
                response_body=shown_body(response_body[: self._asked.body], response),
            )
        fields = shown_fields(raw_fields)
        if len(self._open) >= MAX_REMEMBERED:
            del self._open[next(iter(self._open))]
        self._open[exchange] = (fields, ()) if event.kind == "req" else (request, fields)
        return msgspec.structs.replace(event, fields=fields) if self._asked.headers else event


def method_number(method: str) -> int:
    """The engine's number of a method."""
    return METHODS.index(method) if method in METHODS else len(METHODS)


class Choice:
    """Chooses among events what the engine could not, and holds the rate: a whole number each second, as the engine.

    The response and the end of a chosen request follow it, whatever they look like.
    """

    def __init__(self, asked: TapFilter) -> None:
        self._asked = asked
        self._open: dict[tuple[int, int], None] = {}
        self._window = -1
        self._shown = 0
        self.max_rps = asked.max_rps
        self.hidden = 0

    def select(self, events: list[TapEvent], now_s: float) -> list[TapEvent]:
        return [event for event in events if self._is_shown(event, now_s)]

    def _is_shown(self, event: TapEvent, now_s: float) -> bool:
        exchange = (event.worker, event.stream)
        if event.kind in ("req", "open"):
            if not self._asked.matches(event):
                return False
            if not self._admits(now_s):
                self.hidden += 1
                return False
            if len(self._open) >= MAX_REMEMBERED:
                del self._open[next(iter(self._open))]
            self._open[exchange] = None
            return True
        if event.kind == "end":
            return self._open.pop(exchange, self) is None
        return exchange in self._open

    def _admits(self, now_s: float) -> bool:
        # Below one a second the window grows, not the share: 0.1 is one request in ten seconds.
        rate = self.max_rps
        window = int(now_s) if rate >= 1 else int(now_s * rate)
        if window != self._window:
            self._window, self._shown = window, 0
        self._shown += 1
        return self._shown <= max(1, int(rate))


def _slot(slots: Mapping[str, int], name: str, flag: str, kind: str) -> int:
    if name not in slots:
        known = ", ".join(sorted(slots)[:20]) or "none"
        raise TapFilterError(f"{flag}: no {kind} '{name}'; {kind}s are: {known}")
    return slots[name]


def _slots(engine: Any, kind: str) -> dict[str, int]:
    """By name; what bindings brought is kept apart from what the configuration says, under a pair that ends with the name."""
    return {key if isinstance(key, str) else key[-1]: slot for key, slot in engine.slots_of(kind).items()}


def wants_labels(asked: TapFilter, labels: Mapping[str, str]) -> bool:
    """Whether an endpoint with these labels is asked for."""
    return all(labels.get(name) == value for name, value in asked.to_labels.items())


class Numbered:
    """What the engine's numbers of one kind mean, looked up again when they have changed."""

    def __init__(self, engine: Any, kind: str) -> None:
        self._engine, self._kind = engine, kind
        self._version = -1
        self._meanings: dict[int, Any] = {}

    def all(self) -> dict[int, Any]:
        version = self._engine.slots_version(self._kind)
        if version != self._version:
            self._version = version
            slots = self._engine.slots_of(self._kind)
            if self._kind == "labels":
                self._meanings = {slot + 1: dict(pairs) for pairs, slot in slots.items()}
            else:
                # Those of bindings are kept apart from those of the configuration: their key has a mark before the name.
                self._meanings = {slot: key if isinstance(key, str) else key[-1] for key, slot in slots.items()}
        return self._meanings
