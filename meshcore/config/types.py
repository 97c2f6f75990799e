"""The whole configuration and its smaller sections. The larger ones have a file each. Reads no file, resolves no name.

All sections are frozen and built by keyword. Values are canonical after construction: durations are `Duration`, sizes
are bytes, addresses have a host. A wrong value raises ConfigError where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec.structs import force_setattr, replace

from ..errors import ConfigError
from .addresses import AddressKind
from .bounds import Limits, Timeouts
from .clusters import Breaker, Cluster, Endpoint, Pool, RetryBudget, SuccessRate
from .health_checks import HealthCheck
from .listeners import Listener
from .lookup import RouteLookup
from .routes import HeaderEdits, Match, Respond, Retries, Rewrite, Route, Split
from .section import HOMES, Section, SectionKind, specs
from .tls import Certificate, ClusterTls, ListenerTls
from .values import BoolKind, IntKind, Key, ListKind, TextKind, WordKind

MAX_LISTENERS = 256
MAX_ROUTES = 100_000
MAX_CLUSTERS = 10_000

_BOOL = BoolKind()


class Forwarding(Section, frozen=True, kw_only=True):
    """What the proxy tells the upstream about the request's way."""

    noun: ClassVar[str] = "forwarding"

    via: Annotated[
        str,
        Key(
            TextKind("a token, or '' for no Via", r"[!#$%&'*+.^_`|~0-9A-Za-z-]*", most=64, empty=True),
            "Name in Via (RFC 9110 7.6.3), behind the version that was received: 1.0, 1.1, 2.0. Empty sends none.",
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
    io_uring: Annotated[
        str,
        Key(
            WordKind("auto", "off"),
            "Make the reads and sends of busy connections together; auto = where the kernel (6.1 or newer) allows it.",
            "auto: up to a tenth less CPU per request; where it is not allowed (many containers) plain calls do the same.",
        ),
    ] = "auto"
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
    Config, Listener, Route, Match, Split, Respond, RouteLookup, Rewrite, HeaderEdits, Retries, Cluster, Endpoint, Pool, Breaker,
    SuccessRate, RetryBudget, HealthCheck, Certificate, ListenerTls, ClusterTls, Limits, Timeouts, Forwarding, Admin,
)  # fmt: skip

_PLACES: dict[type[Section], str] = {
    Config: "the top level", Listener: "a listener", Route: "a route", Match: "match of a route",
    Respond: "respond of a route", Rewrite: "rewrite of a route", Retries: "retries of a route",
    RouteLookup: "lookup of a route",
    Cluster: "a cluster", Pool: "pool of a cluster", Breaker: "breaker of a cluster",
    SuccessRate: "success_rate of a breaker", RetryBudget: "retry_budget of a cluster", HealthCheck: "health_check of a cluster",
    Limits: "limits", Timeouts: "timeouts", Forwarding: "forwarding",
    ListenerTls: "tls of a listener", ClusterTls: "tls of a cluster", Certificate: "certificates of a listener's tls",
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
