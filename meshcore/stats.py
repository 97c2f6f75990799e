"""Statistics as frozen values: what the engine counted, per worker, listener, route, cluster and endpoint.

Built from the engine's raw dict; opens nothing, renders nothing. A `Stats` covers a span: the proxy's life, or, from
`later.since(earlier)`, the time between two snapshots. Counters become differences there, gauges stay as they are.
"""

from __future__ import annotations

import bisect
import operator
import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from meshcore._fastpath import histogram_bounds, histogram_changes, histogram_of_changes, histogram_quantiles

# Where each bucket of engine/histogram ends, exclusive; each begins where the one before it ends.
BUCKET_ENDS_NS: tuple[int, ...] = tuple(histogram_bounds())
_HEADER_WORDS = 3  # count, sum_ns, max_ns
_NO_SAMPLES = array("Q", [0] * (_HEADER_WORDS + len(BUCKET_ENDS_NS)))  # shared: nobody writes into a Histogram's words


class Histogram:
    """Latencies of one thing, immutable. The middle of a bucket is at most 1 % off; `max_ms` is exact."""

    __slots__ = ("_words",)

    def __init__(self, raw: bytes | array[int] = b"") -> None:
        """raw: the engine's u64 words: count, sum_ns, max_ns, then one count per bucket. Empty means no sample."""
        words = raw if isinstance(raw, array) else array("Q", bytes(raw))
        self._words = words or _NO_SAMPLES

    @property
    def count(self) -> int:
        return self._words[0]

    @property
    def sum_seconds(self) -> float:
        return self._words[1] / 1e9

    @property
    def mean_ms(self) -> float | None:
        return self._words[1] / self._words[0] / 1e6 if self._words[0] else None

    @property
    def max_ms(self) -> float | None:
        return self._words[2] / 1e6 if self._words[0] else None

    @property
    def p50_ms(self) -> float | None:
        return self.quantiles_ms([0.5])[0]

    @property
    def p90_ms(self) -> float | None:
        return self.quantiles_ms([0.9])[0]

    @property
    def p95_ms(self) -> float | None:
        return self.quantiles_ms([0.95])[0]

    @property
    def p99_ms(self) -> float | None:
        return self.quantiles_ms([0.99])[0]

    @property
    def p999_ms(self) -> float | None:
        return self.quantiles_ms([0.999])[0]

    def quantiles_ms(self, quantiles: Sequence[float]) -> list[float | None]:
        """The value at each quantile (0..1, any order), None when there is no sample."""
        if not self.count:
            return [None] * len(quantiles)
        return [ns / 1e6 for ns in histogram_quantiles(self._words.tobytes(), quantiles)]

    def cumulative(self, cuts: Sequence[int]) -> list[int]:
        """How many samples lie in the buckets below each cut. cuts: bucket indices, ascending."""
        counts, total, at, result = self._words, 0, _HEADER_WORDS, []
        for cut in cuts:
            total += sum(counts[at : cut + _HEADER_WORDS])
            at = cut + _HEADER_WORDS
            result.append(total)
        return result

    def changes(self, earlier: Histogram) -> bytes:
        """The samples recorded after `earlier`, as few bytes as that takes: see histogram_changes of the engine."""
        if self.count == earlier.count:
            return b""
        return histogram_changes(self._words, earlier._words)

    @classmethod
    def of_changes(cls, changes: Iterable[bytes]) -> Histogram:
        """The samples of any number of `changes`. Sum and maximum are those of the buckets' ends. ValueError for other bytes."""
        return cls(histogram_of_changes(changes))

    def since(self, earlier: Histogram) -> Histogram:
        """The samples recorded after `earlier`. The maximum is its highest bucket's end unless it is new."""
        if self.count == earlier.count:
            return Histogram()
        try:
            words = array("Q", map(operator.sub, self._words, earlier._words))
        except OverflowError:
            return self  # a counter that ran backwards was born anew
        if self._words[2] == earlier._words[2]:
            highest = max((i for i, n in enumerate(words[_HEADER_WORDS:]) if n), default=0)
            words[2] = min(self._words[2], BUCKET_ENDS_NS[highest])
        else:
            words[2] = self._words[2]
        return Histogram(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._words == other._words

    def __hash__(self) -> int:
        return hash(self._words.tobytes())

    def __repr__(self) -> str:
        if not self.count:
            return "Histogram(empty)"
        p50, p99 = self.quantiles_ms([0.5, 0.99])
        return f"Histogram(count={self.count}, p50_ms={p50:.3f}, p99_ms={p99:.3f}, max_ms={self.max_ms:.3f})"

    def to_dict(self) -> dict[str, Any]:
        names = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms")
        values = self.quantiles_ms([0.5, 0.9, 0.95, 0.99, 0.999])
        pairs = [("mean_ms", self.mean_ms), *zip(names, values, strict=True), ("max_ms", self.max_ms)]
        return {"count": self.count, **{name: None if ms is None else round(ms, 6) for name, ms in pairs}}


def bucket_index(ns: int) -> int:
    """The bucket that holds `ns`. The last one holds everything beyond it as well."""
    return min(bisect.bisect_right(BUCKET_ENDS_NS, ns), len(BUCKET_ENDS_NS) - 1)


# --- the snapshot types ---------------------------------------------------------------------------------------------
# Each mirrors one table of the raw dict. Fields are what was counted; what follows from them is a property.


class WorkerStats(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    connections: int = 0
    upstream_connections: int = 0
    accepted: int = 0
    refused_connections: int = 0
    tls_handshaking: int = 0
    requests: int = 0
    wakeups: int = 0
    batched_calls: int = 0
    in_flight: int = 0
    filters_waiting: int = 0
    lookups_waiting: int = 0
    names: int = 0
    histograms: int = 0
    """Of latency, of routes, clusters and endpoints: limits.max_latency_histograms bounds them."""
    folded: int = 0
    """Samples of those who have none of their own."""
    buffers_bytes: int = 0
    memory_bytes: int = 0
    tap_dropped: int = 0


class ListenerStats(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str = ""
    accepted: int = 0
    refused: int = 0
    active: int = 0
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0
    tls_failures: int = 0
    tls_plaintext: int = 0


class RouteStats(msgspec.Struct, frozen=True, kw_only=True):
    """status_class[n] counts answers n00 to n99; [0] those that ended without an answer.

    grpc_status[n] counts gRPC calls that ended with status n. grpc_failed: of those, the calls that failed under an HTTP
    status below 500.
    """

    name: str
    requests: int = 0
    filter_errors: int = 0
    secure: int = 0
    """Requests of clients that came over TLS."""
    status_class: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    grpc_status: tuple[int, ...] = (0,) * 17
    grpc_failed: int = 0
    latency: Histogram = Histogram()
    seconds: float = 0.0

    @property
    def success_percent(self) -> float | None:
        """Answers below 500, of gRPC calls those whose status is no failure of the server; None when nothing was answered.
        What the client did wrong is no failure of ours."""
        return _percent(sum(self.status_class[1:5]) - self.grpc_failed, sum(self.status_class))

    @property
    def rps(self) -> float | None:
        return _rate(self.requests, self.seconds)


class EndpointStats(msgspec.Struct, frozen=True, kw_only=True):
    """active: exchanges now. idle: pooled connections. ejected: kept out by its breaker.

    healthy: not kept out by health checks, of which it has none unless `checked`. check_error: why the last one failed.
    checks_unasked: checks that could not be made, and say nothing of the endpoint.
    """

    cluster: str
    address: str
    weight: int = 1
    active: int = 0
    idle: int = 0
    open_connections: int = 0
    requests: int = 0
    successes: int = 0
    failures: int = 0
    connects: int = 0
    connect_failures: int = 0
    retries: int = 0
    ejections: int = 0
    ejected: bool = False
    checked: bool = False
    healthy: bool = True
    check_error: str = ""
    checks_passed: int = 0
    checks_unreachable: int = 0
    checks_timeout: int = 0
    checks_bad_answer: int = 0
    checks_unasked: int = 0
    ewma_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    labels: dict[str, str] = {}
    """What its binding says of it: see BoundEndpoint."""
    destinations: int = 0
    """Addresses behind this row now, of a cluster whose endpoints are original destinations; summed over workers."""
    tls_handshakes: int = 0
    tls_resumed: int = 0
    tls_failures: int = 0
    latency: Histogram = Histogram()
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.cluster}/{self.address}"

    @property
    def success_percent(self) -> float | None:
        return _percent(self.successes, self.successes + self.failures)

    @property
    def rps(self) -> float | None:
        return _rate(self.requests, self.seconds)


class ClusterStats(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    in_flight: int = 0
    queue_len: int = 0
    requests: int = 0
    successes: int = 0
    failures: int = 0
    retries: int = 0
    budget_exhausted: int = 0
    queue_overflow: int = 0
    queue_timeouts: int = 0
    stale_replays: int = 0
    status_class: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    latency: Histogram = Histogram()
    endpoints: tuple[EndpointStats, ...] = ()
    seconds: float = 0.0

    @property
    def success_percent(self) -> float | None:
        return _percent(self.successes, self.successes + self.failures)

    @property
    def rps(self) -> float | None:
        return _rate(self.requests, self.seconds)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Everything counted over `seconds`. reasons: answers the proxy made itself, by reason, never zero.

    version counts the configurations applied; snapshots are those that some exchange still runs under.
    """

    taken_ns: int = 0
    seconds: float = 0.0
    version: int = 0
    snapshots: int = 0
    workers: tuple[WorkerStats, ...] = ()
    listeners: tuple[ListenerStats, ...] = ()
    routes: tuple[RouteStats, ...] = ()
    clusters: tuple[ClusterStats, ...] = ()
    reasons: dict[str, int] = {}
    folded_latency: Histogram = Histogram()
    """Durations of routes, clusters and endpoints that have no histogram of their own, together: see WorkerStats.folded."""

    @property
    def endpoints(self) -> tuple[EndpointStats, ...]:
        return tuple(endpoint for cluster in self.clusters for endpoint in cluster.endpoints)

    @property
    def requests(self) -> int:
        return sum(listener.requests for listener in self.listeners)

    def route(self, name: str) -> RouteStats:
        route: RouteStats = _named(self.routes, name, "route")
        return route

    def cluster(self, name: str) -> ClusterStats:
        cluster: ClusterStats = _named(self.clusters, name, "cluster")
        return cluster

    def since(self, earlier: Stats) -> Stats:
        """What happened between `earlier` and this snapshot. Things that `earlier` did not know count whole."""
        seconds = max(0.0, (self.taken_ns - earlier.taken_ns) / 1e9)
        old_clusters = {cluster.name: cluster for cluster in earlier.clusters}
        return Stats(
            taken_ns=self.taken_ns,
            seconds=seconds,
            version=self.version,
            snapshots=self.snapshots,
            workers=_differences(self.workers, earlier.workers, lambda worker: worker.index, seconds),
            listeners=_differences(self.listeners, earlier.listeners, lambda listener: listener.name, seconds),
            routes=_differences(self.routes, earlier.routes, lambda route: route.name, seconds),
            clusters=tuple(
                msgspec.structs.replace(
                    _difference(cluster, old_clusters.get(cluster.name), seconds),
                    endpoints=_differences(
                        cluster.endpoints,
                        old_clusters[cluster.name].endpoints if cluster.name in old_clusters else (),
                        lambda endpoint: endpoint.address,
                        seconds,
                    ),
                )
                for cluster in self.clusters
            ),
            reasons={
                reason: count - (old if (old := earlier.reasons.get(reason, 0)) <= count else 0)
                for reason, count in self.reasons.items()
                if count != earlier.reasons.get(reason, 0)
            },
            folded_latency=self.folded_latency.since(earlier.folded_latency),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: fields, derived figures, and histograms as quantiles."""
        return {
            "seconds": round(self.seconds, 3),
            "version": self.version,
            "snapshots": self.snapshots,
            "requests": self.requests,
            "workers": [msgspec.structs.asdict(worker) for worker in self.workers],
            "listeners": [msgspec.structs.asdict(listener) for listener in self.listeners],
            "routes": [_to_dict(route) for route in self.routes],
            "clusters": [
                {**_to_dict(cluster), "endpoints": [_to_dict(endpoint) for endpoint in cluster.endpoints]}
                for cluster in self.clusters
            ],
            "reasons": self.reasons,
            "folded_latency": self.folded_latency.to_dict(),
        }


def snapshot(raw: dict[str, Any], *, started_ns: int | None = None, taken_ns: int | None = None) -> Stats:
    """A Stats over the proxy's life from the engine's raw dict.

    started_ns, taken_ns: CLOCK_MONOTONIC. Without a start, raw's `started_unix_s` tells it, else rates are unknown.
    Unknown keys of raw are ignored.
    """
    taken_ns = time.monotonic_ns() if taken_ns is None else taken_ns
    seconds = 0.0
    if started_ns is not None:
        seconds = max(0.0, (taken_ns - started_ns) / 1e9)
    elif started_unix_s := raw.get("started_unix_s"):
        seconds = max(0.0, time.time() - started_unix_s)
    return Stats(
        taken_ns=taken_ns,
        seconds=seconds,
        version=raw.get("version", 0),
        snapshots=raw.get("snapshots", 0),
        workers=tuple(_build(WorkerStats, row) for row in raw.get("workers", ())),
        listeners=tuple(_build(ListenerStats, row) for row in raw.get("listeners", ())),
        routes=tuple(_build(RouteStats, row, seconds=seconds) for row in raw.get("routes", ())),
        clusters=tuple(
            _build(
                ClusterStats,
                row,
                seconds=seconds,
                endpoints=tuple(
                    _build(EndpointStats, endpoint, cluster=row["name"], seconds=seconds)
                    for endpoint in row.get("endpoints", ())
                ),
            )
            for row in raw.get("clusters", ())
        ),
        reasons={reason: count for reason, count in raw.get("reasons", {}).items() if count},
        folded_latency=Histogram(raw.get("folded_latency", b"")),
    )


# --- between rows ---------------------------------------------------------------------------------------------------

# What is true now, not counted: a difference of two of them means nothing.
_GAUGES = frozenset(
    "index name cluster address weight labels destinations active idle open_connections ejected checked healthy check_error ewma_ms"
    " in_flight queue_len connections upstream_connections tls_handshaking filters_waiting lookups_waiting names histograms buffers_bytes memory_bytes seconds endpoints".split()
)


def _build(kind: type[msgspec.Struct], row: dict[str, Any], **more: Any) -> Any:
    known = {name: row[name] for name in kind.__struct_fields__ if name in row and name not in more}
    if "latency" in known:
        known["latency"] = Histogram(known["latency"])
    if "status_class" in known:
        known["status_class"] = tuple(known["status_class"])
    if "grpc_status" in known:
        known["grpc_status"] = tuple(known["grpc_status"])
    if "ejected" in known:
        known["ejected"] = bool(known["ejected"])
    return kind(**known, **more)


def _difference(new: Any, old: Any, seconds: float) -> Any:
    changes: dict[str, Any] = {"seconds": seconds} if "seconds" in new.__struct_fields__ else {}
    for name in new.__struct_fields__ if old is not None else ():
        after, before = getattr(new, name), getattr(old, name)
        if name in _GAUGES:
            continue
        if isinstance(after, Histogram):
            changes[name] = after.since(before)
        elif isinstance(after, tuple):
            changes[name] = tuple(a - b if a >= b else a for a, b in zip(after, before, strict=True))
        else:
            # As Prometheus' rate(): a counter that ran backwards started anew from 0.
            changes[name] = after - before if after >= before else after
    return msgspec.structs.replace(new, **changes)


def _differences(new: Iterable[Any], old: Iterable[Any], key: Any, seconds: float) -> tuple[Any, ...]:
    before = {key(row): row for row in old}
    return tuple(_difference(row, before.get(key(row)), seconds) for row in new)


def _to_dict(row: Any) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("endpoints", "seconds")}
    percent, rps = row.success_percent, row.rps
    fields["success_percent"] = None if percent is None else round(percent, 4)
    fields["rps"] = None if rps is None else round(rps, 3)
    fields["latency"] = row.latency.to_dict()
    return fields


def _named(rows: Iterable[Any], name: str, kind: str) -> Any:
    for row in rows:
        if row.name == name:
            return row
    raise KeyError(f"no {kind} '{name}'; there are: {', '.join(row.name for row in rows) or 'none'}")


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
