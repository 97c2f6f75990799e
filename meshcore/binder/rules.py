"""How the names of one lookup route are bound. Plain values; binds nothing."""

from __future__ import annotations

import msgspec

from ..naming import Path
from ..namers.interpreter import Interpreter
from .policies import ClientTls, Policies
from .transform import Transformer


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The names of one route: who binds them, and what holds for what they are bound to."""

    route: str
    interpreter: Interpreter
    prefix: Path = Path.of("svc")
    services: Policies = Policies()
    """By logical name: `total_timeout`, `retries`, `retry_budget`."""
    clients: Policies = Policies()
    """By id of a bound name: keys of a cluster, `timeout`, and `tls` as a ClientTls."""
    transformers: tuple[Transformer, ...] = ()
    protocol: str = "http1"
    """What endpoints are spoken to in: http1, http2 or same."""
    consumes: bool = False
    """The name was the beginning of the path, and is taken off it."""


def context_name(tls: ClientTls) -> str:
    return "|".join(("binder", *tls.trust, tls.cert or "", tls.key or ""))
