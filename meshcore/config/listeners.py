"""The section of a listener: where clients connect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from .addresses import AddressKind
from .section import Section
from .values import NAME, Bad, BoolKind, Key, ListKind, WordKind

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
    protocol: Annotated[
        str,
        Key(
            WordKind("http", "tcp"),
            "What clients speak. `tcp`: any bytes, relayed as they are along the one route named in `routes`; of that "
            "route, `to` or `split`, `retries`, `total_timeout` and `tunnel_idle_timeout` count.",
            "http.",
        ),
    ] = "http"
    routes: Annotated[
        Sequence[str] | None,
        Key(
            _NAMES,
            "Names of the routes served here, first match in this order.",
            "All routes when left out, but those of TCP listeners.",
        ),
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

    def rules(self) -> Iterator[Bad]:
        if self.protocol == "tcp":
            if self.routes is None or len(self.routes) != 1:
                yield Bad("a TCP listener has one route", "name it: routes: [<name>]", path=("routes",))
            if self.deferred_accept:
                yield Bad(
                    "deferred_accept waits for the client's first byte; many TCP protocols begin with the server's",
                    "leave it out",
                    path=("deferred_accept",),
                )
