"""Prometheus text exposition of a proxy's statistics. Counts nothing itself, serves nothing: see stats, admin.

Names follow the conventions: base units, `_total` on counters, `le` in seconds. No label holds a path, a client or
anything else a caller can choose, so the number of series is that of the configuration.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshcore.stats import BUCKET_ENDS_NS, EndpointStats, Histogram, Stats, bucket_index

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# 1 to 5 in each decade from 100 us to 50 s: Conduit's buckets, continued below the millisecond where a mesh hop lives.
BOUNDS_SECONDS = tuple(f"{step}e{exponent}" for exponent in range(-4, 2) for step in range(1, 6))


def _cut(bound_seconds: float) -> int:
    """The first of our buckets that is not `le` the bound, by its middle: half a bucket (1 %) from the truth."""
    bound_ns = round(bound_seconds * 1e9)
    index = bucket_index(bound_ns)
    return index + (BUCKET_ENDS_NS[index - 1] + BUCKET_ENDS_NS[index] <= 2 * bound_ns)


_CUTS = tuple(_cut(float(bound)) for bound in BOUNDS_SECONDS)
_LE = tuple(f"{float(bound):g}" for bound in BOUNDS_SECONDS)

Labels = Mapping[str, Any]


def render(stats: Stats, *, version: str = "", reloads: Mapping[str, int] | None = None) -> str:
    """The whole page. reloads: how many ended in each result, when somebody counts them."""
    page = _Page()
    page.gauge(
        "mesh_build_info",
        "Version of the proxy; always 1.",
        [({"version": version, "python": platform.python_version()}, 1)],
    )
    page.gauge("mesh_config_version", "Configurations applied since the start.", [({}, stats.version)])
    page.gauge("mesh_config_snapshots", "Configurations some exchange still runs under.", [({}, stats.snapshots)])
    page.counter(
        "mesh_config_reloads_total",
        "Reloads asked for, by result.",
        [({"result": result}, count) for result, count in sorted((reloads or {}).items())],
    )
    _listeners(page, stats)
    _routes(page, stats)
    _clusters(page, stats)
    _endpoints(page, stats)
    page.counter(
        "mesh_rejections_total",
        "Exchanges the proxy answered, cut or refused itself, by reason.",
        [({"reason": reason.lower()}, count) for reason, count in sorted(stats.reasons.items())],
    )
    page.histogram(
        "mesh_folded_duration_seconds",
        "As the durations of routes, clusters and endpoints, of all that have no histogram of their own.",
        [({}, stats.folded_latency)],
    )
    _workers(page, stats)
    _process(page)
    return page.text()


class _Page:
    """Lines of a page, family by family: HELP, TYPE, then the samples. A family without samples is left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def counter(self, name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        self._family(name, "counter", text, (f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples))

    def gauge(self, name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        self._family(name, "gauge", text, (f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples))

    def histogram(self, name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> None:
        self._family(name, "histogram", text, _buckets_of_used(name, samples))

    def _family(self, name: str, kind: str, text: str, lines: Iterable[str]) -> None:
        samples = list(lines)
        if samples:
            self._lines += [f"# HELP {name} {_escape_help(text)}", f"# TYPE {name} {kind}", *samples]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _buckets_of_used(name: str, samples: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    # Thirty lines for each of 10,000 routes that nobody asks for would be most of the page.
    for labels, histogram in samples:
        if histogram.count:
            yield from _buckets(name, labels, histogram)


def _buckets(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    start = _labels(labels)[:-1]
    start = f"{start}," if start else "{"
    *counts, total = histogram.cumulative((*_CUTS, 1 << 31))
    for le, count in zip(_LE, counts, strict=True):
        yield f'{name}_bucket{start}le="{le}"}} {count}'
    # Not histogram.count: read while the workers write, it may be a sample ahead, and the two must agree.
    yield f'{name}_bucket{start}le="+Inf"}} {total}'
    yield f"{name}_sum{_labels(labels)} {_number(histogram.sum_seconds)}"
    yield f"{name}_count{_labels(labels)} {total}"


def _listeners(page: _Page, stats: Stats) -> None:
    rows = [({"listener": row.name}, row) for row in stats.listeners]
    page.counter("mesh_listener_connections_total", "Connections accepted.", _column(rows, "accepted"))
    page.gauge("mesh_listener_connections", "Downstream connections open now.", _column(rows, "active"))
    page.counter("mesh_listener_refused_total", "Connections closed unserved.", _column(rows, "refused"))
    page.counter("mesh_listener_requests_total", "Requests begun.", _column(rows, "requests"))
    page.counter("mesh_listener_received_bytes_total", "Bytes read from clients.", _column(rows, "bytes_in"))
    page.counter("mesh_listener_sent_bytes_total", "Bytes written to clients.", _column(rows, "bytes_out"))
    _handshakes(page, "listener", "with clients", rows)
    page.counter(
        "mesh_listener_tls_plaintext_total",
        "Connections let in without TLS where it is optional.",
        _column(rows, "tls_plaintext"),
    )


def _handshakes(page: _Page, noun: str, whom: str, rows: list[tuple[Labels, Any]]) -> None:
    page.counter(
        f"mesh_{noun}_tls_handshakes_total",
        f"TLS handshakes {whom} by result: full, resumed, failed (why: mesh_rejections_total).",
        (
            ({**labels, "result": result}, count)
            for labels, row in rows
            for result, count in (
                ("full", row.tls_handshakes - row.tls_resumed),
                ("resumed", row.tls_resumed),
                ("failed", row.tls_failures),
            )
        ),
    )


def _routes(page: _Page, stats: Stats) -> None:
    page.counter(
        "mesh_requests_total",
        "Exchanges ended, by route and class of the status answered; none: ended without an answer.",
        _by_class((({"route": row.name}, row.status_class) for row in stats.routes)),
    )
    page.counter(
        "mesh_grpc_calls_total",
        "gRPC calls ended, by route and status, for the statuses seen.",
        (
            ({"route": row.name, "grpc_status": str(status)}, calls)
            for row in stats.routes
            for status, calls in enumerate(row.grpc_status)
            if calls
        ),
    )
    page.counter(
        "mesh_filter_errors_total",
        "Exchanges a Python filter ended by raising.",
        (({"route": row.name}, row.filter_errors) for row in stats.routes),
    )
    page.histogram(
        "mesh_request_duration_seconds",
        "Request head to response end, by route.",
        (({"route": row.name}, row.latency) for row in stats.routes),
    )


def _clusters(page: _Page, stats: Stats) -> None:
    rows = [({"cluster": row.name}, row) for row in stats.clusters]
    page.counter(
        "mesh_cluster_responses_total",
        "Answers of a cluster's endpoints by class of status; none: no answer came.",
        _by_class((({"cluster": row.name}, row.status_class) for row in stats.clusters)),
    )
    page.histogram(
        "mesh_cluster_duration_seconds",
        "Request head to response end, by cluster.",
        ((labels, row.latency) for labels, row in rows),
    )
    page.counter("mesh_cluster_requests_total", "Requests sent towards a cluster.", _column(rows, "requests"))
    page.counter("mesh_cluster_successes_total", "Requests the cluster served.", _column(rows, "successes"))
    page.counter(
        "mesh_cluster_failures_total",
        "Requests the cluster failed; a client's fault is none.",
        _column(rows, "failures"),
    )
    page.gauge("mesh_cluster_requests_in_flight", "Exchanges now.", _column(rows, "in_flight"))
    page.gauge("mesh_cluster_queue_length", "Exchanges waiting for a connection now.", _column(rows, "queue_len"))
    page.counter(
        "mesh_cluster_queue_overflows_total",
        "Exchanges refused because the queue was full.",
        _column(rows, "queue_overflow"),
    )
    page.counter(
        "mesh_cluster_queue_timeouts_total",
        "Exchanges that waited in the queue for too long.",
        _column(rows, "queue_timeouts"),
    )
    page.counter("mesh_cluster_retries_total", "Requests sent again.", _column(rows, "retries"))
    page.counter(
        "mesh_cluster_retry_budget_exhausted_total",
        "Retries not made for want of budget.",
        _column(rows, "budget_exhausted"),
    )
    page.counter(
        "mesh_cluster_stale_replays_total",
        "Requests sent again because a pooled connection had been closed.",
        _column(rows, "stale_replays"),
    )


def _endpoints(page: _Page, stats: Stats) -> None:
    rows = [({"cluster": row.cluster, "endpoint": row.address, **_told(row)}, row) for row in stats.endpoints]
    page.counter("mesh_endpoint_requests_total", "Requests sent to an endpoint.", _column(rows, "requests"))
    page.counter("mesh_endpoint_successes_total", "Requests the endpoint served.", _column(rows, "successes"))
    page.counter("mesh_endpoint_failures_total", "Requests the endpoint failed.", _column(rows, "failures"))
    page.counter("mesh_endpoint_retries_total", "Requests sent to this endpoint as a retry.", _column(rows, "retries"))
    page.histogram(
        "mesh_endpoint_duration_seconds",
        "Request head to response end, by the endpoint that answered.",
        ((labels, row.latency) for labels, row in rows),
    )
    page.gauge("mesh_endpoint_requests_in_flight", "Exchanges now.", _column(rows, "active"))
    page.gauge("mesh_endpoint_weight", "Configured weight.", _column(rows, "weight"))
    page.gauge("mesh_endpoint_connections", "Upstream connections open now.", _column(rows, "open_connections"))
    page.gauge("mesh_endpoint_pool_idle_connections", "Open connections waiting in the pool.", _column(rows, "idle"))
    page.counter("mesh_endpoint_connects_total", "Connections opened.", _column(rows, "connects"))
    page.counter(
        "mesh_endpoint_connect_failures_total",
        "Connections that could not be opened.",
        _column(rows, "connect_failures"),
    )
    page.counter("mesh_endpoint_ejections_total", "Times the breaker opened.", _column(rows, "ejections"))
    page.gauge("mesh_endpoint_ejected", "1 while the breaker keeps the endpoint out.", _column(rows, "ejected"))
    checked = [(labels, row) for labels, row in rows if row.checked]
    page.gauge("mesh_endpoint_healthy", "0 while its health checks keep it out.", _column(checked, "healthy"))
    page.counter(
        "mesh_endpoint_health_checks_total",
        "Health checks by what came of them; unasked: this machine could not make it.",
        (
            ({**labels, "result": result}, getattr(row, f"checks_{result}"))
            for labels, row in checked
            for result in ("passed", "unreachable", "timeout", "bad_answer", "unasked")
        ),
    )
    page.gauge(
        "mesh_endpoint_ewma_seconds",
        "Peak EWMA latency the balancer sees.",
        ((labels, row.ewma_ms / 1e3) for labels, row in rows),
    )
    page.gauge(
        "mesh_endpoint_original_destinations",
        "Addresses behind the one row of a cluster of original destinations now.",
        _column(rows, "destinations"),
    )
    page.counter("mesh_endpoint_received_bytes_total", "Body bytes read from the endpoint.", _column(rows, "bytes_in"))
    page.counter("mesh_endpoint_sent_bytes_total", "Body bytes written to the endpoint.", _column(rows, "bytes_out"))
    _handshakes(page, "endpoint", "with an endpoint", rows)


def _told(row: EndpointStats) -> dict[str, str]:
    # Of what a binding says of its endpoint, the part whose number of values is that of the mesh's members.
    return {f"dst_{name}": row.labels[name] for name in ("namespace", "service", "workload") if name in row.labels}


def _workers(page: _Page, stats: Stats) -> None:
    rows = [({"worker": row.index}, row) for row in stats.workers]
    page.gauge("mesh_worker_connections", "Downstream connections of a worker now.", _column(rows, "connections"))
    page.gauge("mesh_worker_upstream_connections", "Upstream ones now.", _column(rows, "upstream_connections"))
    page.counter("mesh_worker_accepted_total", "Connections a worker accepted.", _column(rows, "accepted"))
    page.counter(
        "mesh_worker_refused_connections_total",
        "Connections a worker closed unserved for want of room.",
        _column(rows, "refused_connections"),
    )
    page.counter("mesh_worker_requests_total", "Requests a worker began.", _column(rows, "requests"))
    page.counter("mesh_worker_wakeups_total", "Returns of epoll_wait.", _column(rows, "wakeups"))
    page.counter(
        "mesh_worker_batched_calls_total", "Reads and sends made through io_uring.", _column(rows, "batched_calls")
    )
    page.gauge("mesh_worker_tls_handshakes", "TLS handshakes of a worker under way now.", _column(rows, "tls_handshaking"))
    page.gauge("mesh_worker_requests_in_flight", "Exchanges of a worker now.", _column(rows, "in_flight"))
    page.gauge("mesh_worker_filters_waiting", "Exchanges that wait for a filter now.", _column(rows, "filters_waiting"))
    page.gauge("mesh_worker_latency_histograms", "Histograms of routes, clusters and endpoints.", _column(rows, "histograms"))
    page.counter(
        "mesh_worker_folded_samples_total",
        "Durations of routes, clusters and endpoints that have no histogram: limits.max_latency_histograms were there already.",
        _column(rows, "folded"),
    )
    page.gauge("mesh_worker_buffers_bytes", "Buffers lent to connections now.", _column(rows, "buffers_bytes"))
    page.gauge("mesh_worker_memory_bytes", "Memory of a worker's slabs and buffers.", _column(rows, "memory_bytes"))
    page.counter("mesh_worker_tap_dropped_total", "Tap records lost to slow readers.", _column(rows, "tap_dropped"))


def _process(page: _Page) -> None:
    """The process_* family every Prometheus client has, from /proc."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    page.counter("process_cpu_seconds_total", "User and system CPU time.", [({}, usage.ru_utime + usage.ru_stime)])
    try:
        page.gauge("process_open_fds", "Open file descriptors.", [({}, len(os.listdir("/proc/self/fd")))])
        # The command's name is in parentheses and may hold blanks: fields are counted from behind it.
        fields = _read("/proc/self/stat").rpartition(")")[2].split()
        boot = time.time() - float(_read("/proc/uptime").split()[0])
        page.gauge(
            "process_start_time_seconds",
            "Start of the process, Unix time.",
            [({}, boot + int(fields[19]) / os.sysconf("SC_CLK_TCK"))],
        )
        page.gauge("process_threads", "Threads of the process.", [({}, int(fields[17]))])
        page.gauge("process_virtual_memory_bytes", "Virtual memory size.", [({}, int(fields[20]))])
        page.gauge(
            "process_resident_memory_bytes", "Resident memory size.", [({}, int(fields[21]) * resource.getpagesize())]
        )
    except OSError:
        pass  # no /proc, as in some sandboxes: the page is still good without these
    page.gauge(
        "process_max_fds", "Limit on open file descriptors.", [({}, resource.getrlimit(resource.RLIMIT_NOFILE)[0])]
    )


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _column(rows: Iterable[tuple[Labels, Any]], field: str) -> Iterator[tuple[Labels, float]]:
    return ((labels, getattr(row, field)) for labels, row in rows)


def _by_class(rows: Iterable[tuple[Labels, tuple[int, ...]]]) -> Iterator[tuple[Labels, float]]:
    for labels, counts in rows:
        for hundreds, count in enumerate(counts):
            # All five classes from the start: a rate over a series that appears with its first sample misses that one.
            if hundreds or count:
                yield {**labels, "code_class": f"{hundreds}xx" if hundreds else "none"}, count


def _labels(labels: Labels) -> str:
    return (
        "{" + ",".join(f'{name}="{escape_label(str(value))}"' for name, value in labels.items()) + "}" if labels else ""
    )


def escape_label(text: str) -> str:
    """A label's value as the text format wants it: backslash, quote and newline escaped, lone surrogates replaced."""
    text = text.encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))
