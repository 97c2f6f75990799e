"""What the control plane said about one name, as plain values: endpoints and policy. Knows neither gRPC nor the engine.

Messages of the wire are read into these once, checked and bounded; bindings are made of these, and these lie on disk.
"""

from __future__ import annotations

import msgspec

MAX_ENDPOINTS = 10_000  # as in a proxy's configuration
MAX_RULES = 128
MAX_MATCHES = 16
MAX_SPLITS = 64
MAX_WEIGHT = 65_535


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address of a name."""

    host: str
    port: int
    weight: int = 1
    labels: dict[str, str] = {}
    identity: str = ""
    """SPIFFE id it must prove; empty: it is spoken to without TLS."""
    is_opaque: bool = False
    speaks_http2: bool = False

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Endpoints(msgspec.Struct, frozen=True, omit_defaults=True):
    """All addresses of a name at one moment. `exists` false: the control plane knows no such name."""

    endpoints: tuple[Endpoint, ...] = ()
    exists: bool = True


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests by one path or prefix, methods and fields; empty matches all."""

    path: str = ""
    prefix: str = ""
    methods: tuple[str, ...] = ()
    headers: dict[str, str] = {}


class Split(msgspec.Struct, frozen=True):
    """One share of the requests: another name, and its weight."""

    path: str
    weight: int


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests of one kind, and what is allowed for them."""

    name: str = ""
    hosts: tuple[str, ...] = ()
    matches: tuple[Match, ...] = ()
    splits: tuple[Split, ...] = ()
    timeout_ms: int = 0
    attempts: int = 1
    """How often in addition to the first time."""
    retry_on: tuple[str, ...] = ("unsent",)
    per_try_timeout_ms: int = 0


class Traffic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the endpoints of a name are chosen and spared; the defaults are those of the control plane's model."""

    balancer: str = "peak_ewma"
    connect_timeout_ms: int = 1_000
    idle_timeout_ms: int = 60_000
    max_connections: int = 1_024
    max_pending: int = 100
    queue_timeout_ms: int = 3_000
    retry_budget: float = 0.2
    min_retries_per_s: int = 10
    consecutive_failures: int = 5
    backoff_ms: int = 1_000
    max_backoff_ms: int = 60_000
    panic_percent: int = 50
    mtls: str = "permissive"


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How requests to a name are treated; the default treats them as if nobody had said anything."""

    name: str = ""
    port: int = 0
    protocol: str = "detect"
    rules: tuple[Rule, ...] = ()
    traffic: Traffic = Traffic()
    identities: tuple[str, ...] = ()
    is_endpoint: bool = False


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Both, for one path, and the word by which the control plane knows again that we hold them."""

    endpoints: Endpoints = Endpoints()
    policy: Policy = Policy()
    digest: bytes = b""
