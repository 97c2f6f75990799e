"""The sections of a configuration with every key, default and reason. Reads no file, resolves no name.

All are frozen and built by keyword. Values are canonical after construction: durations are `Duration`, sizes are
bytes, addresses have a host. A wrong value raises ConfigError where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from msgspec.structs import force_setattr, replace

from ..errors import ConfigError
from .section import HOMES, Section, SectionKind, specs
from .values import (
    NAME,
    AddressKind,
    Bad,
    BoolKind,
    Duration,
    DurationKind,
    HeaderNameKind,
    HeaderValueKind,
    HostKind,
    IntKind,
    Key,
    ListKind,
    MapKind,
    MethodKind,
    PathKind,
    SizeKind,
    TextKind,
    WordKind,
)

DurationLike = Duration | str | timedelta
"""What a duration may be given as: "15s", a timedelta, a Duration. Read back it is a Duration."""
SizeLike = int | str
"""What a size may be given as: bytes, or "32KiB". Read back it is bytes."""

MAX_ROUTES = 100_000
MAX_CLUSTERS = 10_000
MAX_ENDPOINTS = 10_000
MAX_LISTENERS = 256
MAX_WEIGHT = 65_535  # 10,000 endpoints of it still sum up below 2^32
MAX_ATTEMPTS = 10

_BOOL = BoolKind()
_HEADERS = MapKind(HeaderNameKind(), HeaderValueKind(), most=64)
_HEADER_NAMES = ListKind(HeaderNameKind(), most=64, unique=True)
_NAMES = ListKind(NAME, most=MAX_ROUTES, unique=True)


class Listener(Section, frozen=True, kw_only=True):
    """One address where clients connect."""

    noun: ClassVar[str] = "listener"

    name: Annotated[str, Key(NAME, "Name in statistics and in `Proxy.addresses`.", "`listener-<index>` when left out.")] = ""
    address: Annotated[
        str,
        Key(
            AddressKind(any_host=True, port_zero=True),
            "Where to listen. `:8080` means 0.0.0.0, every IPv4 interface; write `[::]:8080` for IPv6. "
            "Port 0 takes a free port.",
        ),
    ]
    routes: Annotated[
        Sequence[str] | None,
        Key(_NAMES, "Names of the routes served here, first match in this order.", "All routes when left out."),
    ] = None
    trust_mesh_headers: Annotated[
        bool,
        Key(
            _BOOL,
            "Keep `l5d-*` and `x-forwarded-client-cert` fields that callers send.",
            "Off: a stranger could claim an identity or change timeouts with them.",
        ),
    ] = False
    deferred_accept: Annotated[
        bool,
        Key(
            _BOOL,
            "Let the kernel hold a connection back until its first byte (TCP_DEFER_ACCEPT).",
            "Off: it saves a wake-up per connection, but hides clients that connect and wait.",
        ),
    ] = False


class Match(Section, frozen=True, kw_only=True):
    """Which requests a route takes. Keys left out match everything."""

    noun: ClassVar[str] = "match"

    host: Annotated[
        str | None,
        Key(
            HostKind(wildcard=True),
            "Host of the request without port; `*.a.test` matches every host below a.test, not a.test itself. "
            "An exact host wins over a wildcard, a longer wildcard over a shorter one.",
        ),
    ] = None
    path: Annotated[str | None, Key(PathKind(), "The whole path, byte for byte. Wins over every prefix.")] = None
    prefix: Annotated[
        str | None,
        Key(PathKind(), "A prefix of whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. The longest wins."),
    ] = None
    methods: Annotated[
        Sequence[str],
        Key(ListKind(MethodKind(), most=16, unique=True), "Request methods.", "Every method when left out."),
    ] = ()

    def rules(self) -> Iterator[Bad]:
        if self.path is not None and self.prefix is not None:
            yield Bad("path and prefix exclude each other", "keep one of them", path=("prefix",))


class Split(Section, frozen=True, kw_only=True):
    """One share of a split."""

    noun: ClassVar[str] = "split"

    cluster: Annotated[str, Key(NAME, "Name of the cluster.")]
    weight: Annotated[
        int,
        Key(IntKind(0, MAX_WEIGHT), "Share of the requests, relative to the other weights. 0 sends none.", "Equal shares."),
    ] = 1


class Respond(Section, frozen=True, kw_only=True):
    """An answer that the route gives itself."""

    noun: ClassVar[str] = "respond"

    status: Annotated[int, Key(IntKind(200, 599), "Status code.", "What a health check expects.")] = 200
    body: Annotated[
        str,
        Key(TextKind("text", r".*", most=65_536, empty=True), "Body, sent as UTF-8.", "Most such answers need none."),
    ] = ""
    headers: Annotated[
        Mapping[str, str],
        Key(_HEADERS, "Header fields. Content-Length is added.", "`content-type: text/plain; charset=utf-8` is added to a body."),
    ] = {}

    def rules(self) -> Iterator[Bad]:
        if self.body and self.status in (204, 205, 304):
            yield Bad(f"a {self.status} response has no body", "leave body out (RFC 9110 15)", path=("body",))


class Rewrite(Section, frozen=True, kw_only=True):
    """What changes in the request target."""

    noun: ClassVar[str] = "rewrite"

    prefix: Annotated[
        str | None,
        Key(PathKind(), "Put in the place of the matched prefix or path. The query is kept."),
    ] = None
    host: Annotated[str | None, Key(HostKind(port=True), "Put in the place of Host.")] = None


class HeaderEdits(Section, frozen=True, kw_only=True):
    """Edits of a message head. Hop-by-hop, framing fields and Host cannot be edited."""

    noun: ClassVar[str] = "header edits"

    set: Annotated[Mapping[str, str], Key(_HEADERS, "Replace all fields of that name by this one.")] = {}
    add: Annotated[Mapping[str, str], Key(_HEADERS, "Add a field, whatever is there already.")] = {}
    remove: Annotated[Sequence[str], Key(_HEADER_NAMES, "Remove all fields of that name.")] = ()

    def rules(self) -> Iterator[Bad]:
        for index, name in enumerate(self.remove):
            for verb, edits in (("set", self.set), ("add", self.add)):
                if name in edits:
                    yield Bad(f"'{name}' is also in '{verb}'", "set alone replaces what is there", path=("remove", index))


class Retries(Section, frozen=True, kw_only=True):
    """When a failed try is repeated, on another endpoint if there is one. Bounded by the cluster's retry_budget."""

    noun: ClassVar[str] = "retries"

    max_attempts: Annotated[
        int,
        Key(
            IntKind(1, MAX_ATTEMPTS),
            "Tries per request, the first included. 1 = no retries.",
            "2: one retry hides a single bad endpoint, more would multiply load when many are bad.",
        ),
    ] = 2
    on: Annotated[
        Sequence[str],
        Key(
            ListKind(WordKind("connect_failure", "reset", "502", "503", "504"), most=5, unique=True),
            "`connect_failure`: nothing was sent, any method. `reset`: closed before a response byte, idempotent methods "
            "only. A status: that response, idempotent methods only.",
            "Statuses are left out: an endpoint's answer is an answer.",
        ),
    ] = ("connect_failure", "reset")


class Route(Section, frozen=True, kw_only=True):
    """Requests of one kind and what happens to them. Exactly one of `to`, `split`, `respond`."""

    noun: ClassVar[str] = "route"

    name: Annotated[str, Key(NAME, "Name in statistics, tap and filters.", "`route-<index>` when left out.")] = ""
    match: Annotated[Match, Key(SectionKind(Match), "Which requests. All when left out.")] = Match()
    to: Annotated[str | None, Key(NAME, "Name of the cluster that answers.")] = None
    split: Annotated[
        Sequence[Split],
        Key(ListKind(SectionKind(Split), least=1, most=100), "Several clusters by weight."),
    ] = ()
    respond: Annotated[Respond | None, Key(SectionKind(Respond), "Answer here, without a cluster.")] = None
    rewrite: Annotated[Rewrite, Key(SectionKind(Rewrite), "Changes of the request target.")] = Rewrite()
    request_headers: Annotated[HeaderEdits, Key(SectionKind(HeaderEdits), "Edits of the request head.")] = HeaderEdits()
    response_headers: Annotated[HeaderEdits, Key(SectionKind(HeaderEdits), "Edits of the response head.")] = HeaderEdits()
    timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "1d", off=True),
            "From the request being sent to the response head.",
            "15s: longer than nearly every answer, shorter than a user's patience.",
        ),
    ] = Duration("15s")
    total_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "30d", off=True),
            "From the request head to the end of the response, retries included.",
            "Off: a long download is no failure; idle_timeout ends a dead one.",
        ),
    ] = Duration(0)
    idle_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1d", off=True),
            "No byte in either direction while bodies are sent.",
            "60s: shorter would cut long polls, longer would hold dead peers.",
        ),
    ] = Duration("60s")
    tunnel_idle_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "30d", off=True),
            "No byte in either direction in an Upgrade or CONNECT tunnel.",
            "1h: WebSockets are quiet for long and by design.",
        ),
    ] = Duration("1h")
    max_body: Annotated[
        SizeLike,
        Key(
            SizeKind("1B", "1TiB", off=True),
            "Largest request body; more answers 413.",
            "No limit: bodies are streamed and cost the proxy no memory.",
        ),
    ] = 0
    retries: Annotated[Retries, Key(SectionKind(Retries), "When a failed try is repeated.")] = Retries()
    upgrade: Annotated[
        bool,
        Key(_BOOL, "Allow Upgrade tunnels such as WebSocket. h2c and TLS upgrades never are.", "On: WebSockets work untold."),
    ] = True
    connect: Annotated[
        bool,
        Key(_BOOL, "Allow CONNECT.", "Off: it makes of a gateway a tunnel to what lies behind."),
    ] = False

    def rules(self) -> Iterator[Bad]:
        chosen = [key for key, on in (("to", self.to), ("split", self.split), ("respond", self.respond)) if on is not None and on != ()]
        if not chosen:
            yield Bad("nothing says where requests go", "set one of to, split, respond")
        elif len(chosen) > 1:
            yield Bad(f"'{chosen[0]}' and '{chosen[1]}' exclude each other", "keep one of them", path=(chosen[1],))
        if self.split and not any(share.weight for share in self.split):
            yield Bad("all weights are 0", "give at least one cluster a weight", path=("split",))
        seen: dict[str, int] = {}
        for index, share in enumerate(self.split):
            if share.cluster in seen:
                yield Bad(f"cluster '{share.cluster}' is listed twice", "add up its weights", path=("split", index))
            seen[share.cluster] = index
        if self.rewrite.prefix is not None and self.match.prefix is None and self.match.path is None:
            yield Bad("there is no matched prefix to rewrite", "add match.prefix: /", path=("rewrite", "prefix"))


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
            "Share of the cluster's requests, relative to the other weights. 0 keeps running requests and gets no new ones.",
            "Equal shares.",
        ),
    ] = 1


class Pool(Section, frozen=True, kw_only=True):
    """Idle connections to endpoints, kept for reuse. Numbers are per worker and endpoint."""

    noun: ClassVar[str] = "pool"

    max_idle: Annotated[
        int, Key(IntKind(0, 1_000_000), "Idle connections kept. 0 = a new one for each request.", "1024: a burst's worth.")
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
        int, Key(IntKind(1, 2**31 - 1, zero="no limit"), "Requests after which a connection is closed.", "The server decides.")
    ] = 0


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
        Key(DurationKind("1ms", "1h"), "First ejection; doubles each time the probe fails.", "1s: a restart takes about as long."),
    ] = Duration("1s")
    max_backoff: Annotated[
        DurationLike, Key(DurationKind("1ms", "1d"), "Longest ejection.", "60s: a repaired endpoint is back within a minute.")
    ] = Duration("60s")
    jitter_percent: Annotated[
        int,
        Key(IntKind(0, 100), "Random share added to each ejection.", "50: the workers and proxies do not probe in step."),
    ] = 50
    panic_percent: Annotated[
        int,
        Key(
            IntKind(0, 100),
            "With a smaller share of endpoints admitted, ejections are ignored. 0 = never.",
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
        int, Key(IntKind(0, 1_000_000), "Retries per second always allowed, per worker.", "3: a quiet cluster can retry at all.")
    ] = 3
    ttl: Annotated[
        DurationLike, Key(DurationKind("1s", "60s"), "How long a request counts for the ratio.", "10s: a burst is forgotten soon.")
    ] = Duration("10s")


class Cluster(Section, frozen=True, kw_only=True):
    """A named set of endpoints that answer alike."""

    noun: ClassVar[str] = "cluster"

    name: Annotated[str, Key(NAME, "Name that routes use.")]
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
        Key(DurationKind("100ms", "10m"), "How fast peak_ewma forgets a slow answer.", "10s: one slow answer is soon forgiven."),
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
        Key(DurationKind("1ms", "10m"), "Longest wait for a connection, then 503.", "1s: a client that waits longer retries."),
    ] = Duration("1s")
    pool: Annotated[Pool, Key(SectionKind(Pool), "Idle connections.")] = Pool()
    breaker: Annotated[Breaker, Key(SectionKind(Breaker), "Ejection of failing endpoints.")] = Breaker()
    retry_budget: Annotated[RetryBudget, Key(SectionKind(RetryBudget), "Bound on retries.")] = RetryBudget()

    def rules(self) -> Iterator[Bad]:
        seen: set[str] = set()
        for index, endpoint in enumerate(self.endpoints):
            address = endpoint.address  # type: ignore[union-attr]
            if address in seen:
                yield Bad(f"endpoint '{address}' is listed twice", "use weight for a larger share", path=("endpoints", index))
            seen.add(address)


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what one client can make the proxy hold or wait for."""

    noun: ClassVar[str] = "limits"

    head_size: Annotated[
        SizeLike,
        Key(SizeKind("1KiB", "1MiB"), "Request or response head; more answers 431.", "32KiB: four times what browsers send at worst."),
    ] = 32_768
    field_size: Annotated[
        SizeLike,
        Key(SizeKind("256B", "1MiB"), "One header field; more answers 431.", "16KiB: the longest cookies and tokens fit."),
    ] = 16_384
    target_size: Annotated[
        SizeLike,
        Key(SizeKind("256B", "1MiB"), "Request target; more answers 414.", "8KiB: RFC 9112 3 asks for at least 8000."),
    ] = 8_192
    max_fields: Annotated[
        int, Key(IntKind(8, 127), "Header fields of a message; more answers 431.", "100: what the usual servers accept.")
    ] = 100
    trailer_size: Annotated[
        SizeLike, Key(SizeKind("256B", "64KiB"), "Trailer section of a chunked body.", "8KiB: trailers are few and small.")
    ] = 8_192
    chunk_line: Annotated[
        SizeLike,
        Key(SizeKind("32B", "16KiB"), "One chunk-size line with extensions.", "256B: nobody uses extensions but attackers."),
    ] = 256
    chunk_extension_total: Annotated[
        SizeLike,
        Key(SizeKind("0B", "1MiB"), "Extensions of all chunks of a body.", "16KiB: tiny chunks cannot hide a flood."),
    ] = 16_384
    max_interim_responses: Annotated[
        int, Key(IntKind(0, 100), "1xx responses before the final one.", "8: a server that sends more is broken.")
    ] = 8
    max_requests_per_connection: Annotated[
        int,
        Key(
            IntKind(1, 2**31 - 1, zero="no limit"),
            "Requests after which a client connection is closed.",
            "10000: clients spread over new workers and proxies in time.",
        ),
    ] = 10_000
    max_connections: Annotated[
        int | str,
        Key(
            IntKind(1, 10_000_000, words=("auto",)),
            "Client connections per worker; more wait in the kernel.",
            "auto: 0.45 of the process's open files limit, shared by the workers; each request may need two descriptors.",
        ),
    ] = "auto"
    max_in_flight: Annotated[
        int,
        Key(IntKind(1, 10_000_000), "Requests in flight per worker; more answer 503.", "100000: a fuse against runaway memory."),
    ] = 100_000
    buffer: Annotated[
        SizeLike,
        Key(
            SizeKind("4KiB", "64MiB"),
            "Output that may wait per connection before the other side is no longer read.",
            "256KiB: fills a fast link for a round trip of a few milliseconds.",
        ),
    ] = 262_144
    body_min_rate: Annotated[
        int,
        Key(
            IntKind(0, 2**31 - 1, unit="bytes/s"),
            "Slowest request body in bytes per second, after the grace. 0 = any.",
            "240: a modem is faster, a slow-body attack is not.",
        ),
    ] = 240
    body_min_rate_grace: Annotated[
        DurationLike,
        Key(DurationKind("0", "1h"), "How long a body may be slower than that.", "10s: a mobile network's pause."),
    ] = Duration("10s")
    linger_size: Annotated[
        SizeLike,
        Key(
            SizeKind("0B", "16MiB"),
            "Bytes read and thrown away after a refusal, so that the client gets to read the answer.",
            "64KiB: what a client has on its way when it is refused.",
        ),
    ] = 65_536


class Timeouts(Section, frozen=True, kw_only=True):
    """Waits on client connections and at the end of the process."""

    noun: ClassVar[str] = "timeouts"

    head: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1h"),
            "From the first byte of a head to its last; then 408.",
            "10s: absolute, so that a byte now and then does not extend it.",
        ),
    ] = Duration("10s")
    keep_alive: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1d", off=True),
            "Silence between two requests on a client connection.",
            "65s: longer than the 60s of load balancers in front, so that they close first.",
        ),
    ] = Duration("65s")
    linger: Annotated[
        DurationLike,
        Key(DurationKind("0", "60s"), "How long a refused client may still send.", "2s: a few round trips."),
    ] = Duration("2s")
    drain: Annotated[
        DurationLike,
        Key(
            DurationKind("0", "1h"),
            "How long running requests may take after SIGTERM.",
            "30s: what orchestrators wait before they kill.",
        ),
    ] = Duration("30s")


class Forwarding(Section, frozen=True, kw_only=True):
    """What the proxy tells the upstream about the request's way."""

    noun: ClassVar[str] = "forwarding"

    via: Annotated[
        str,
        Key(
            TextKind("a token, or '' for no Via", r"[!#$%&'*+.^_`|~0-9A-Za-z-]*", most=64, empty=True),
            "Name in Via (RFC 9110 7.6.3). Empty sends none.",
            "Loops become visible.",
        ),
    ] = "meshcore"
    x_forwarded: Annotated[
        str,
        Key(
            WordKind("append", "replace", "off"),
            "X-Forwarded-For, -Proto and -Host: append to what came, replace it, or leave it alone.",
            "append: the convention. Use replace on the outermost proxy: clients can write what they like.",
        ),
    ] = "append"
    request_id: Annotated[
        bool, Key(_BOOL, "Keep a valid X-Request-Id, make one (UUIDv7) otherwise.", "On: logs of all hops join on it.")
    ] = True
    traceparent: Annotated[
        bool, Key(_BOOL, "Keep a valid W3C traceparent, start one otherwise.", "On: traces start at the edge.")
    ] = True


class Admin(Section, frozen=True, kw_only=True):
    """The admin server: metrics, health, statistics, tap, reload."""

    noun: ClassVar[str] = "admin"

    address: Annotated[
        str | None,
        Key(
            AddressKind(unix=True, loopback=True, port_zero=True),
            "`unix:/path`, or a loopback `host:port`. Others are refused: there is no authentication.",
            "None: no admin server unless asked for.",
        ),
    ] = None


class Config(Section, frozen=True, kw_only=True, dict=True):
    """A whole configuration. Names of listeners and routes that are left out become `listener-0`, `route-0`, …"""

    noun: ClassVar[str] = "the configuration"

    workers: Annotated[
        int | str,
        Key(
            IntKind(1, 256, words=("auto",)),
            "Engine threads; auto = one per usable CPU. MESHCORE_WORKERS sets it too.",
            "1: one worker carries tens of thousands of requests per second, and leaves the CPUs to the application.",
        ),
    ] = 1
    listeners: Annotated[
        Sequence[Listener],
        Key(ListKind(SectionKind(Listener), least=1, most=MAX_LISTENERS), "Where clients connect. At least one."),
    ]
    routes: Annotated[
        Sequence[Route],
        Key(ListKind(SectionKind(Route), most=MAX_ROUTES), "Which requests go where. None answers 404 to all."),
    ] = ()
    clusters: Annotated[
        Sequence[Cluster],
        Key(ListKind(SectionKind(Cluster), most=MAX_CLUSTERS), "Sets of endpoints."),
    ] = ()
    limits: Annotated[Limits, Key(SectionKind(Limits), "Bounds on clients.")] = Limits()
    timeouts: Annotated[Timeouts, Key(SectionKind(Timeouts), "Waits on clients.")] = Timeouts()
    forwarding: Annotated[Forwarding, Key(SectionKind(Forwarding), "What upstreams are told.")] = Forwarding()
    admin: Annotated[Admin, Key(SectionKind(Admin), "The admin server.")] = Admin()

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        force_setattr(self, "listeners", _named(self.listeners, "listener"))
        force_setattr(self, "routes", _named(self.routes, "route"))

        from .references import problems_between

        problems = problems_between(self.listeners, self.routes, self.clusters, self.admin)
        if problems:
            raise ConfigError(problems)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Config:
        """From plain dicts and lists, as a YAML file would hold them. Raises ConfigError with all problems."""
        from .loader import from_dict

        return from_dict(value)


def _named(items: Iterable[Any], noun: str) -> tuple[Any, ...]:
    """The items with index-based names where they have none."""
    named = []
    for index, item in enumerate(items):
        if not item.name:
            # A copy: the caller's struct may serve in another place of another configuration.
            item = replace(item, name=f"{noun}-{index}")
        named.append(item)
    return tuple(named)


SECTIONS: tuple[type[Section], ...] = (
    Config, Listener, Route, Match, Split, Respond, Rewrite, HeaderEdits, Retries, Cluster, Endpoint, Pool, Breaker,
    RetryBudget, Limits, Timeouts, Forwarding, Admin,
)  # fmt: skip

_PLACES: dict[type[Section], str] = {
    Config: "the top level", Listener: "a listener", Route: "a route", Match: "match of a route",
    Respond: "respond of a route", Rewrite: "rewrite of a route", Retries: "retries of a route",
    Cluster: "a cluster", Pool: "pool of a cluster", Breaker: "breaker of a cluster",
    RetryBudget: "retry_budget of a cluster", Limits: "limits", Timeouts: "timeouts", Forwarding: "forwarding",
    HeaderEdits: "request_headers or response_headers of a route",
}  # fmt: skip


def _fill_homes() -> None:
    homes: dict[str, list[str]] = {}
    for section, place in _PLACES.items():
        for name in specs(section):
            homes.setdefault(name, []).append(place)
    for name, places in homes.items():
        if len(places) <= 2:
            HOMES[name] = " or ".join(places)


_fill_homes()
