"""The section of a listener: where clients connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from .addresses import AddressKind
from .section import Section
from .values import NAME, BoolKind, Key, ListKind

_BOOL = BoolKind()
_NAMES = ListKind(NAME, most=100_000, unique=True)


class Listener(Section, frozen=True, kw_only=True):
    """One address where clients connect."""

    noun: ClassVar[str] = "listener"

    name: Annotated[
        str, Key(NAME, "Name in statistics and in `Proxy.addresses`.", "`listener-<index>` when left out.")
    ] = ""
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
