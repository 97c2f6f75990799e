"""The sections of a route: which requests, where they go, what is changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

from .http_parts import FieldNameKind, HeaderNameKind, HeaderValueKind, HostKind, MethodKind, PathKind
from .lookup import RouteLookup
from .section import Section, SectionKind
from .units import Duration, DurationKind, DurationLike, SizeKind, SizeLike
from .values import JITTER, JITTER_TEXT, NAME, Bad, BoolKind, IntKind, Key, ListKind, MapKind, TextKind, WordKind

MAX_WEIGHT = 65_535  # 10,000 shares of it still sum up below 2^32
MAX_ATTEMPTS = 10

_BOOL = BoolKind()
_GRPC_STATUSES = ("cancelled", "deadline_exceeded", "resource_exhausted", "unavailable")
_HEADERS = MapKind(HeaderNameKind(), HeaderValueKind(), most=64)
_HEADER_NAMES = ListKind(HeaderNameKind(), most=64, unique=True)


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
    sni: Annotated[
        str | None,
        Key(
            HostKind(wildcard=True),
            "Of a route in `tls_routes`: the name a TLS client asks for in its ClientHello, exact or `*.a.test`, as host.",
        ),
    ] = None
    methods: Annotated[
        Sequence[str],
        Key(ListKind(MethodKind(), most=16, unique=True), "Request methods.", "Every method when left out."),
    ] = ()
    headers: Annotated[
        Mapping[str, str],
        Key(
            MapKind(FieldNameKind(), HeaderValueKind(), most=16),
            "Header fields the request must have, all of them, each with just this value on one of its lines. Of routes for the "
            "same host and path the first listed that takes the request wins: list those with fields first.",
            "Fields are not looked at when left out.",
        ),
    ] = {}

    def rules(self) -> Iterator[Bad]:
        if self.path is not None and self.prefix is not None:
            yield Bad("path and prefix exclude each other", "keep one of them", path=("prefix",))
        if self.sni is not None:
            for key in ("host", "path", "prefix", "methods", "headers"):
                if getattr(self, key):
                    yield Bad(f"'{key}' is of requests, which nobody reads where sni counts", "leave it out", path=(key,))


class Split(Section, frozen=True, kw_only=True):
    """One share of a split."""

    noun: ClassVar[str] = "split"

    cluster: Annotated[str, Key(NAME, "Name of the cluster.")]
    weight: Annotated[
        int,
        Key(
            IntKind(0, MAX_WEIGHT),
            "Share of the requests, relative to the other weights. 0 sends none.",
            "Equal shares.",
        ),
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
        Key(
            _HEADERS,
            "Header fields. Content-Length is added.",
            "`content-type: text/plain; charset=utf-8` is added to a body.",
        ),
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
                    yield Bad(
                        f"'{name}' is also in '{verb}'", "set alone replaces what is there", path=("remove", index)
                    )


class Retries(Section, frozen=True, kw_only=True):
    """When a failed try is repeated, on another endpoint if there is one. Bounded by the cluster's retry_budget."""

    noun: ClassVar[str] = "retries"

    max_attempts: Annotated[
        int,
        Key(
            IntKind(1, MAX_ATTEMPTS),
            "Tries per request, the first included. 1 = no retries. With more, endpoints that cannot be connected to are passed by "
            "besides, while others are left: that uses up neither tries nor the budget.",
            "2: one retry hides a single bad endpoint, more would multiply load when many are bad.",
        ),
    ] = 2
    on: Annotated[
        Sequence[str],
        Key(
            ListKind(WordKind("connect_failure", "reset", "502", "503", "504", *_GRPC_STATUSES), most=9, unique=True),
            "`connect_failure`: nothing was sent, any method. `reset`: closed before a response byte, idempotent "
            "methods only. A status: that response, idempotent methods only. A gRPC status (`cancelled`, `deadline_exceeded`, "
            "`resource_exhausted`, `unavailable`): a call that ended with it and no message (trailers-only), unless the server's "
            "`grpc-retry-pushback-ms` asks for more than 0.",
            "Statuses are left out: an endpoint's answer is an answer, and whether a call may be repeated only its owner knows.",
        ),
    ] = ("connect_failure", "reset")
    backoff: Annotated[
        DurationLike,
        Key(
            DurationKind("2ms", "1m", off=True),
            "Wait before the first retry; doubles with each further one. The request holds nothing upstream meanwhile, and total_timeout runs on.",
            "0: at once; the next endpoint is another, and has done nothing wrong.",
        ),
    ] = Duration(0)
    max_backoff: Annotated[
        DurationLike, Key(DurationKind("2ms", "10m"), "Longest wait before a retry.", "10s: few clients wait for longer.")
    ] = Duration("10s")
    jitter_percent: Annotated[
        int, Key(IntKind(0, 100), "Random share added to each wait.", "50: requests that failed together do not come back together.")
    ] = 50
    jitter: Annotated[str, Key(JITTER, JITTER_TEXT, "added: as a breaker's.")] = "added"

    def rules(self) -> Iterator[Bad]:
        if self.backoff > self.max_backoff:  # type: ignore[operator]
            yield Bad(f"backoff {self.backoff} is longer than max_backoff {self.max_backoff}", "", path=("backoff",))


class Route(Section, frozen=True, kw_only=True):
    """Requests of one kind and what happens to them. Exactly one of `to`, `split`, `respond`; with `lookup`, at most one of
    `to` and `split`."""

    noun: ClassVar[str] = "route"

    name: Annotated[str, Key(NAME, "Name in statistics, tap and filters.", "`route-<index>` when left out.")] = ""
    match: Annotated[Match, Key(SectionKind(Match), "Which requests. All when left out.")] = Match()
    to: Annotated[str | None, Key(NAME, "Name of the cluster that answers.")] = None
    split: Annotated[
        Sequence[Split],
        Key(ListKind(SectionKind(Split), least=1, most=100), "Several clusters by weight."),
    ] = ()
    respond: Annotated[Respond | None, Key(SectionKind(Respond), "Answer here, without a cluster.")] = None
    lookup: Annotated[
        RouteLookup | None,
        Key(
            SectionKind(RouteLookup),
            "Ask by name, at run time, where requests go. `to` or `split` beside it take those without a name, and names that "
            "are bound to fall back; the other keys of this route count for these alone.",
        ),
    ] = None
    rewrite: Annotated[Rewrite, Key(SectionKind(Rewrite), "Changes of the request target.")] = Rewrite()
    request_headers: Annotated[HeaderEdits, Key(SectionKind(HeaderEdits), "Edits of the request head.")] = HeaderEdits()
    response_headers: Annotated[HeaderEdits, Key(SectionKind(HeaderEdits), "Edits of the response head.")] = (
        HeaderEdits()
    )
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
        Key(
            _BOOL,
            "Allow Upgrade tunnels such as WebSocket. h2c and TLS upgrades never are.",
            "On: WebSockets work untold.",
        ),
    ] = True
    grpc_web: Annotated[
        bool,
        Key(
            _BOOL,
            "Calls of gRPC-Web (`application/grpc-web`, `-text`) go on as gRPC, in HTTP/2 whatever the cluster's protocol, and come back "
            "with their trailers in the body.",
            "Off: servers that speak gRPC-Web themselves are told what was said.",
        ),
    ] = False
    connect: Annotated[
        bool,
        Key(_BOOL, "Allow CONNECT.", "Off: it makes of a gateway a tunnel to what lies behind."),
    ] = False

    def rules(self) -> Iterator[Bad]:
        ways = {"to": self.to is not None, "split": bool(self.split), "respond": self.respond is not None}
        chosen = [key for key, is_set in ways.items() if is_set]
        if not chosen and self.lookup is None:
            yield Bad("nothing says where requests go", "set one of to, split, respond, lookup")
        elif self.lookup is not None and self.respond is not None:
            yield Bad("'lookup' and 'respond' exclude each other", "keep one of them", path=("respond",))
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
