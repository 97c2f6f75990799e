"""Policies on a service: which requests go where, and how its endpoints are treated. Applies nothing."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from . import names
from .checks import MAX_DAY_MS, Found
from .members import MAX_WEIGHT, Named

BALANCERS = ("round_robin", "random", "least_request", "peak_ewma")
RETRY_ON = ("502", "503", "504", "429", "unsent", "unavailable", "cancelled", "deadline_exceeded", "resource_exhausted")
WHEN_EMPTY = ("keep", "drain")
MTLS = ("permissive", "strict", "off")
MAX_RULES = 128
MAX_MATCHES = 16
MAX_HEADERS = 16
MAX_SPLITS = 64
MAX_HOSTS = 64


class Retries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sending again. Only what is provably unsent or idempotent is ever repeated, whatever stands here."""

    attempts: int = 1
    """How often in addition to the first time; 0 is never."""
    on: tuple[str, ...] = ("unsent",)
    per_try_timeout_ms: int = 0
    backoff_ms: int = 25
    max_backoff_ms: int = 250

    def check(self, found: Found) -> None:
        found.number("attempts", self.attempts, 0, 10)
        found.at("on").count(self.on, len(RETRY_ON))
        for index, word in enumerate(self.on):
            found.at("on").at(index).unless(word in RETRY_ON, word, "one of " + ", ".join(RETRY_ON))
        found.at("on").unique(self.on, "condition")
        found.number("per_try_timeout_ms", self.per_try_timeout_ms, 0, MAX_DAY_MS)
        found.number("backoff_ms", self.backoff_ms, 0, MAX_DAY_MS)
        found.number("max_backoff_ms", self.max_backoff_ms, self.backoff_ms, MAX_DAY_MS)


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which requests. What is left out matches everything; all that is there must match."""

    path: str = ""
    prefix: str = ""
    """Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`."""
    methods: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    """Field name in lower case to its exact value."""

    def check(self, found: Found) -> None:
        if self.path and self.prefix:
            found.at("prefix").wrong("path and prefix exclude each other", "one of them", self.prefix)
        for field in ("path", "prefix"):
            text = getattr(self, field)
            sound = text == "" or (text.startswith("/") and len(text) <= 2048 and text.isascii() and text.isprintable())
            found.at(field).unless(
                sound and "?" not in text and "#" not in text, text, "an absolute path without query"
            )
        found.at("methods").count(self.methods, 16)
        for index, method in enumerate(self.methods):
            found.at("methods").at(index).unless(names.is_token(method), method, "a method, as in RFC 9110 9")
        headers = found.at("headers")
        headers.count(self.headers, MAX_HEADERS)
        for name, value in self.headers.items():
            headers.at(name).unless(names.is_token(name) and name == name.lower(), name, "a field name in lower case")
            headers.text(name, value, 1024)


class Split(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One share of the requests, for one service."""

    service: str
    namespace: str = ""
    """Empty: that of the policy."""
    port: int = 0
    """0: the port that was called."""
    weight: int = 1

    def check(self, found: Found) -> None:
        found.label("service", self.service)
        if self.namespace:
            found.label("namespace", self.namespace)
        found.number("port", self.port, 0, 65_535)
        found.number("weight", self.weight, 0, MAX_WEIGHT)


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests that any of `matches` takes (all requests when there is none), and where they go."""

    matches: tuple[Match, ...] = ()
    splits: tuple[Split, ...] = ()
    """Empty: the service the policy points to."""
    timeout_ms: int = 0
    """From the head of the request to the end of the response; 0 is none."""
    retries: Retries = Retries()

    def check(self, found: Found) -> None:
        found.at("matches").count(self.matches, MAX_MATCHES)
        for index, match in enumerate(self.matches):
            match.check(found.at("matches", index))
        splits = found.at("splits")
        splits.count(self.splits, MAX_SPLITS)
        for index, split in enumerate(self.splits):
            split.check(splits.at(index))
        splits.unique(((split.namespace, split.service, split.port) for split in self.splits), "the service")
        if self.splits and not any(split.weight > 0 for split in self.splits):
            splits.wrong("every weight is 0", "at least one above 0", 0)
        found.number("timeout_ms", self.timeout_ms, 0, MAX_DAY_MS)
        self.retries.check(found.at("retries"))
        if self.timeout_ms and self.retries.per_try_timeout_ms > self.timeout_ms:
            found.at("retries", "per_try_timeout_ms").wrong(
                f"got {self.retries.per_try_timeout_ms}, longer than the whole request may take",
                f"at most timeout_ms, {self.timeout_ms}",
                self.retries.per_try_timeout_ms,
            )


class RoutePolicy(Named, frozen=True, kw_only=True, omit_defaults=True):
    """Where requests to a service go. Rules are tried in order, and the first that matches decides."""

    kind: ClassVar[str] = "route_policy"

    service: str
    hosts: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def check(self, found: Found) -> None:
        Named.check(self, found)
        found.label("service", self.service)
        found.at("hosts").count(self.hosts, MAX_HOSTS)
        for index, host in enumerate(self.hosts):
            found.at("hosts", index).unless(names.is_host(host, wildcard=True), host, "a host name, or '*.' and one")
        found.at("rules").count(self.rules, MAX_RULES)
        for index, rule in enumerate(self.rules):
            rule.check(found.at("rules", index))


class Breaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When an endpoint is left alone for a while. What clients did wrong never counts."""

    consecutive_failures: int = 5
    """0: never."""
    backoff_ms: int = 1_000
    max_backoff_ms: int = 60_000
    panic_percent: int = 50
    """At least this share of the endpoints is always used."""

    def check(self, found: Found) -> None:
        found.number("consecutive_failures", self.consecutive_failures, 0, 1_000_000)
        found.number("backoff_ms", self.backoff_ms, 1, MAX_DAY_MS)
        found.number("max_backoff_ms", self.max_backoff_ms, self.backoff_ms, MAX_DAY_MS)
        found.number("panic_percent", self.panic_percent, 0, 100)


class TrafficPolicy(Named, frozen=True, kw_only=True, omit_defaults=True):
    """How the endpoints of a service are chosen, connected to and spared."""

    kind: ClassVar[str] = "traffic_policy"

    service: str
    balancer: str = "peak_ewma"
    connect_timeout_ms: int = 1_000
    idle_timeout_ms: int = 60_000
    max_connections: int = 1_024
    """Per proxy and endpoint."""
    max_pending: int = 100
    queue_timeout_ms: int = 3_000
    retry_budget: float = 0.2
    """Retries over requests; above it nothing is sent again."""
    min_retries_per_s: int = 10
    breaker: Breaker = Breaker()
    when_empty: str = "keep"
    """Told of no endpoint at all: keep those known until others come, or answer 503 at once."""
    mtls: str = "permissive"

    def check(self, found: Found) -> None:
        Named.check(self, found)
        found.label("service", self.service)
        found.word("balancer", self.balancer, BALANCERS)
        found.number("connect_timeout_ms", self.connect_timeout_ms, 1, MAX_DAY_MS)
        found.number("idle_timeout_ms", self.idle_timeout_ms, 0, MAX_DAY_MS)
        found.number("max_connections", self.max_connections, 1, 1_000_000)
        found.number("max_pending", self.max_pending, 0, 1_000_000)
        found.number("queue_timeout_ms", self.queue_timeout_ms, 0, MAX_DAY_MS)
        found.share("retry_budget", self.retry_budget)
        found.number("min_retries_per_s", self.min_retries_per_s, 0, 1_000_000)
        self.breaker.check(found.at("breaker"))
        found.word("when_empty", self.when_empty, WHEN_EMPTY)
        found.word("mtls", self.mtls, MTLS)
