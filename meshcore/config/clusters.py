"""The sections of a cluster: its endpoints, how one is chosen, pooled, ejected, retried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from .addresses import AddressKind
from .health_checks import HealthCheck
from .section import Section, SectionKind
from .tls import ClusterTls
from .units import Duration, DurationKind, DurationLike
from .values import JITTER, JITTER_TEXT, NAME, Bad, IntKind, Key, ListKind, PercentKind, WordKind

MAX_ENDPOINTS = 10_000
MAX_WEIGHT = 65_535  # 10,000 endpoints of it still sum up below 2^32


class Endpoint(Section, frozen=True, kw_only=True):
    """One address of a cluster."""

    noun: ClassVar[str] = "endpoint"

    address: Annotated[
        str,
        Key(
            AddressKind(unix=True),
            "`host:port` or `unix:/path`. A name is resolved when the configuration is loaded; each of its addresses "
            "becomes an endpoint.",
        ),
    ]
    weight: Annotated[
        int,
        Key(
            IntKind(0, MAX_WEIGHT),
            "Share of the requests, relative to the other weights. 0 keeps running requests and gets no new ones.",
            "Equal shares.",
        ),
    ] = 1


class Pool(Section, frozen=True, kw_only=True):
    """Idle connections to endpoints, kept for reuse. Numbers are per worker and endpoint."""

    noun: ClassVar[str] = "pool"

    max_idle: Annotated[
        int,
        Key(IntKind(0, 1_000_000), "Idle connections kept. 0 = a new one for each request.", "1024: a burst's worth."),
    ] = 1024
    idle_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1d", off=True),
            "An idle connection is closed after this.",
            "3s: shorter than the 5s after which many servers close theirs, so that we are rarely the one surprised. "
            "Raise it to one second less than your servers' keep-alive.",
        ),
    ] = Duration("3s")
    max_requests_per_connection: Annotated[
        int,
        Key(
            IntKind(1, 2**31 - 1, zero="no limit"),
            "Requests after which a connection is closed.",
            "The server decides.",
        ),
    ] = 0


class SuccessRate(Section, frozen=True, kw_only=True):
    """Ejects an endpoint when too few of its latest requests succeed: an average in which the latest count most."""

    noun: ClassVar[str] = "success_rate"

    least_percent: Annotated[int | float, Key(PercentKind(), "Share of the requests that must succeed.")]
    requests: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "Requests that an endpoint must have had before it is judged. Without `window` also how many the latest are: after so many "
            "more, a request counts for a third of what it did.",
            "100: one failure is one percent.",
        ),
    ] = 100
    window: Annotated[
        DurationLike,
        Key(
            DurationKind("1s", "1d", off=True),
            "The latest are those of so long, in place of a number. An endpoint is judged once it has had requests for that long.",
            "0: by number; an endpoint with little traffic would be judged by a request or two.",
        ),
    ] = Duration(0)


class Breaker(Section, frozen=True, kw_only=True):
    """Ejects endpoints that fail again and again. Errors that a client caused never count."""

    noun: ClassVar[str] = "breaker"

    consecutive_failures: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000, zero="never eject"),
            "Failures in a row that eject an endpoint.",
            "5: a rare error never reaches it, a dead endpoint does within milliseconds.",
        ),
    ] = 5
    backoff: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "1h"),
            "First ejection; doubles each time the probe fails. An endpoint that cannot be connected to is passed over for as long.",
            "1s: a restart takes about as long.",
        ),
    ] = Duration("1s")
    max_backoff: Annotated[
        DurationLike,
        Key(DurationKind("1ms", "1d"), "Longest ejection.", "60s: a repaired endpoint is back within a minute."),
    ] = Duration("60s")
    jitter_percent: Annotated[
        int,
        Key(
            IntKind(0, 100), "Random share added to each ejection.", "50: the workers and proxies do not probe in step."
        ),
    ] = 50
    jitter: Annotated[str, Key(JITTER, JITTER_TEXT, "added: the first backoff is a promise, its double the worst.")] = "added"
    success_rate: Annotated[
        SuccessRate | None,
        Key(
            SectionKind(SuccessRate),
            "Eject when too few of the latest requests succeed, besides failures in a row.",
            "None: what that share should be, only its owner knows.",
        ),
    ] = None
    panic_percent: Annotated[
        int,
        Key(
            IntKind(0, 100),
            "With a smaller share of endpoints admitted, ejections and health checks are ignored. 0 = never. Endpoints that cannot be "
            "connected to count as absent.",
            "50: when half of them fail it is not them, and the rest could not carry the load.",
        ),
    ] = 50

    def rules(self) -> Iterator[Bad]:
        if self.backoff > self.max_backoff:  # type: ignore[operator]
            yield Bad(f"backoff {self.backoff} is longer than max_backoff {self.max_backoff}", "", path=("backoff",))


class RetryBudget(Section, frozen=True, kw_only=True):
    """Bounds retries by the cluster's own traffic, so that they cannot become an overload of their own."""

    noun: ClassVar[str] = "retry_budget"

    ratio_percent: Annotated[
        int, Key(IntKind(0, 1000), "Retries per 100 requests.", "20: at worst one fifth more load.")
    ] = 20
    min_per_second: Annotated[
        int,
        Key(
            IntKind(0, 1_000_000),
            "Retries per second always allowed, per worker.",
            "3: a quiet cluster can retry at all.",
        ),
    ] = 3
    ttl: Annotated[
        DurationLike,
        Key(DurationKind("1s", "60s"), "How long a request counts for the ratio.", "10s: a burst is forgotten soon."),
    ] = Duration("10s")


class Cluster(Section, frozen=True, kw_only=True):
    """A named set of endpoints that answer alike."""

    noun: ClassVar[str] = "cluster"

    name: Annotated[str, Key(NAME, "Name that routes use.")]
    type: Annotated[
        str,
        Key(
            WordKind("static", "original_destination"),
            "`original_destination`: the one endpoint of each connection is where its client was going, for listeners "
            "that intercept. Connections are pooled, limited and ejected by address; statistics have one row for all.",
            "static: what `endpoints` lists.",
        ),
    ] = "static"
    to: Annotated[
        str,
        Key(
            WordKind("original", "loopback"),
            "Host of an original destination: as it was, or 127.0.0.1 (::1) for applications that listen nowhere else.",
            "original: with `loopback`, callers reach all that listens on loopback, be it meant for them or not.",
        ),
    ] = "original"
    port: Annotated[
        int,
        Key(
            IntKind(1, 65_535, zero="as it was"),
            "Port of an original destination, when its host is to be spoken to at another.",
            "As it was.",
        ),
    ] = 0
    endpoints: Annotated[
        Sequence[Endpoint | str],
        Key(
            ListKind(SectionKind(Endpoint, short="address"), most=MAX_ENDPOINTS),
            "Addresses, each as text or as `{address, weight}`. None at all answers 503.",
        ),
    ] = ()
    balancer: Annotated[
        str,
        Key(
            WordKind("peak_ewma", "least_request", "round_robin", "random"),
            "How an endpoint is chosen. Weights count in all of them.",
            "peak_ewma: the better of two random endpoints by latency and load; slow ones lose traffic by themselves.",
        ),
    ] = "peak_ewma"
    ewma_decay: Annotated[
        DurationLike,
        Key(
            DurationKind("100ms", "10m"),
            "How fast peak_ewma forgets a slow answer.",
            "10s: one slow answer is soon forgiven.",
        ),
    ] = Duration("10s")
    connect_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "60s"),
            "From connect() to an open connection.",
            "1s: a lost SYN is sent again after 1s; beyond it another endpoint is the better try.",
        ),
    ] = Duration("1s")
    max_connections: Annotated[
        int,
        Key(
            IntKind(1, 10_000_000),
            "Connections per worker and endpoint.",
            "10000: a fuse, not a tuning; one endpoint cannot take all descriptors.",
        ),
    ] = 10_000
    max_requests: Annotated[
        int,
        Key(IntKind(1, 10_000_000), "Requests in flight per worker; more wait in the queue.", "10000: as above."),
    ] = 10_000
    max_queue: Annotated[
        int,
        Key(
            IntKind(0, 10_000_000),
            "Requests per worker that may wait for a connection; more answer 503 at once.",
            "1000: what can be served within queue_timeout, not more.",
        ),
    ] = 1000
    queue_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "10m"),
            "Longest wait for a connection, then 503.",
            "1s: a client that waits longer retries.",
        ),
    ] = Duration("1s")
    pool: Annotated[Pool, Key(SectionKind(Pool), "Idle connections.")] = Pool()
    protocol: Annotated[
        str,
        Key(
            WordKind("auto", "http1", "http2", "same"),
            "What its endpoints are spoken to in. `http2`: by prior knowledge, or ALPN under TLS; the requests of a worker share connections. "
            "`same`: as the client of each request speaks.",
            "auto: http1, which every server speaks; for original destinations same, for their clients know whom they meant.",
        ),
    ] = "auto"
    mesh_hop: Annotated[
        str,
        Key(
            WordKind("off", "on"),
            "Its endpoints are proxies of the mesh: requests of HTTP/1 ride their HTTP/2 connections, marked by `l5d-orig-proto`, and are HTTP/1 "
            "again behind them. Requests of HTTP/2 stay what they are; upgrades and CONNECT of HTTP/1 go in HTTP/1.",
            "Off: an endpoint that is none would be spoken to in HTTP/2. The far side's listener says `mesh_hop: on`.",
        ),
    ] = "off"
    proxy_protocol: Annotated[
        str,
        Key(
            WordKind("off", "v1", "v2"),
            "Begin every connection with a PROXY header of that version, which names the client. For TCP listeners only.",
            "Off: an endpoint that does not expect one takes it for the client's first bytes.",
        ),
    ] = "off"
    tls: Annotated[
        ClusterTls | None, Key(SectionKind(ClusterTls), "TLS towards endpoints.", "None: plaintext.")
    ] = None
    breaker: Annotated[Breaker, Key(SectionKind(Breaker), "Ejection of failing endpoints.")] = Breaker()
    retry_budget: Annotated[RetryBudget, Key(SectionKind(RetryBudget), "Bound on retries.")] = RetryBudget()
    health_check: Annotated[
        HealthCheck | None,
        Key(
            SectionKind(HealthCheck),
            "Ask endpoints whether they are well, traffic or not.",
            "Off: what traffic tells costs nothing; see breaker.",
        ),
    ] = None

    def rules(self) -> Iterator[Bad]:
        if self.health_check is not None:
            yield from self._health_check_rules(self.health_check)
        if self.type == "original_destination":
            if self.endpoints:
                hint = "leave them out, or leave out type: original_destination"
                yield Bad("its endpoint is where each client was going; it lists others", hint, path=("endpoints",))
        else:
            for key in ("to", "port"):
                if getattr(self, key) not in ("original", 0):
                    yield Bad(f"'{key}' changes an original destination", "set type: original_destination", path=(key,))
        if self.mesh_hop == "on" and self.protocol != "auto":
            yield Bad(f"protocol {self.protocol} and mesh_hop exclude each other", "leave one out", path=("mesh_hop",))
        each_by_itself = self.protocol == "same" or self.mesh_hop == "on"
        if self.tls is not None and self.tls.alpn is not None and self.type == "static" and not each_by_itself:
            spoken = "h2" if self.protocol == "http2" else "http/1.1"
            if not {spoken}.issuperset(self.tls.alpn) or (self.protocol == "http2" and not self.tls.alpn):
                yield Bad(f"with protocol {self.protocol} only {spoken} can be agreed on", "leave it out", path=("tls", "alpn"))
        seen: set[str] = set()
        for index, endpoint in enumerate(self.endpoints):
            address = endpoint.address  # type: ignore[union-attr]
            if address in seen:
                yield Bad(
                    f"endpoint '{address}' is listed twice", "use weight for a larger share", path=("endpoints", index)
                )
            seen.add(address)

    def _health_check_rules(self, check: HealthCheck) -> Iterator[Bad]:
        if self.type == "original_destination":
            yield Bad("there is nobody to ask before a client comes", "leave it out", path=("health_check",))
        if check.port and any(endpoint.address.startswith("unix:") for endpoint in self.endpoints):  # type: ignore[union-attr]
            yield Bad("a unix: endpoint has no port", "leave port out", path=("health_check", "port"))
        if check.type == "grpc" and self.proxy_protocol != "off" and not check.port:
            hint = "set type: tcp, or a port where none is expected"
            yield Bad("a grpc check cannot begin with a PROXY header", hint, path=("health_check", "type"))
