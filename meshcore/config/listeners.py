"""The section of a listener: where clients connect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from .addresses import AddressKind
from .section import Section, SectionKind
from .tls import ListenerTls
from .units import Duration, DurationKind, DurationLike
from .values import NAME, Bad, BoolKind, IntKind, Key, ListKind, WordKind

_BOOL = BoolKind()
_NAMES = ListKind(NAME, most=100_000, unique=True)
_PORTS = ListKind(IntKind(1, 65_535), most=1024, unique=True)

# SMTP, its submission, MySQL, Galera, PostgreSQL, Redis, Elasticsearch between its nodes, memcached: what Linkerd skips.
OPAQUE_PORTS = (25, 587, 3306, 4444, 5432, 6379, 9300, 11211)


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
            WordKind("http", "tcp", "detect"),
            "What clients speak. `tcp`: any bytes, relayed as they are along `tcp_route`. `detect`: HTTP by `routes`, all "
            "else (TLS included) along `tcp_route`, each connection by its first bytes.",
            "http.",
        ),
    ] = "http"
    tcp_route: Annotated[
        str | None,
        Key(
            NAME,
            "Name of the route for connections that are not HTTP. Of it, `to` or `split`, `retries`, `total_timeout` and "
            "`tunnel_idle_timeout` count.",
            "Needed by `tcp` and `detect`, unless they have `tls_routes`: without one, other connections are reset.",
        ),
    ] = None
    tls_routes: Annotated[
        Sequence[str],
        Key(
            _NAMES,
            "Names of routes for TLS that is not ended here: by the name in its ClientHello (`match.sni`), connections go along one of "
            "these as they are. Others go along `tcp_route`, or, where the listener has `tls`, are ended here.",
            "None: all TLS is alike.",
        ),
    ] = ()
    detect_timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1m"),
            "With `protocol: detect`, or `tls_routes`: a client silent for so long waits for the server to speak first. Halved for each that did, down to 1/64; "
            "grows back with clients that speak. On a listener that intercepts, each destination has its own wait.",
            "1s: who speaks first does so within a round trip.",
        ),
    ] = Duration("1s")
    original_destination: Annotated[
        str,
        Key(
            WordKind("off", "redirect", "tproxy"),
            "How connections come here that were going elsewhere: `redirect`, by iptables' REDIRECT or nft's redirect; "
            "`tproxy`, by TPROXY, which needs CAP_NET_ADMIN. Where they were going is where a cluster of `type: "
            "original_destination` sends them. Those that were going to the proxy itself are reset.",
            "off: clients name this address. `meshproxy intercept` writes the rules.",
        ),
    ] = "off"
    opaque_ports: Annotated[
        Sequence[int] | None,
        Key(
            _PORTS,
            "Intercepted connections to these ports go along `tcp_route` at once, without a look at their first bytes.",
            f"{', '.join(map(str, OPAQUE_PORTS))}: there servers speak first, or nobody speaks HTTP.",
        ),
    ] = None
    routes: Annotated[
        Sequence[str] | None,
        Key(
            _NAMES,
            "Names of the routes served here, first match in this order.",
            "All routes when left out, but those that are a `tcp_route` or in `tls_routes`.",
        ),
    ] = None
    http2: Annotated[
        bool,
        Key(
            _BOOL,
            "Serve clients that speak HTTP/2 by prior knowledge, or by agreement in TLS, beside those of HTTP/1.",
            "On: they say so with their first bytes.",
        ),
    ] = True
    mesh_hop: Annotated[
        str,
        Key(
            WordKind("off", "on"),
            "Requests over HTTP/2 that are marked by `l5d-orig-proto` are what they were before a proxy of the mesh sent them here: HTTP/1. "
            "With `tls`, only of clients with a verified certificate.",
            "Off: the mark is taken off, and a request is what it came as.",
        ),
    ] = "off"
    proxy_protocol: Annotated[
        str,
        Key(
            WordKind("off", "v1", "v2", "any"),
            "Every connection begins with a PROXY header of that version, which names the client; others are closed.",
            "Off: behind nothing that sends one. Switch it on only where nobody else can connect: the header is believed.",
        ),
    ] = "off"
    trust_mesh_headers: Annotated[
        bool,
        Key(
            _BOOL,
            "Keep `l5d-*` and `x-forwarded-client-cert` fields that callers send, and end their requests by `l5d-ctx-deadline`.",
            "Off: a stranger could claim an identity or change timeouts with them.",
        ),
    ] = False
    tls: Annotated[
        ListenerTls | None,
        Key(SectionKind(ListenerTls), "TLS towards clients, and whom to let in.", "None: plaintext."),
    ] = None
    deferred_accept: Annotated[
        bool,
        Key(
            _BOOL,
            "Let the kernel hold a connection back until its first byte (TCP_DEFER_ACCEPT).",
            "Off: it saves a wake-up per connection, but hides clients that connect and wait.",
        ),
    ] = False

    def rules(self) -> Iterator[Bad]:
        if self.opaque_ports is not None and (self.protocol != "detect" or self.original_destination == "off"):
            yield Bad(
                "only a listener that detects and intercepts looks at ports",
                "set protocol: detect and original_destination: redirect, or leave it out",
                path=("opaque_ports",),
            )
        if self.tls is not None and self.protocol == "tcp" and self.tls.alpn:
            yield Bad("what is relayed over TCP is not known here", "leave it out", path=("tls", "alpn"))
        elif self.tls is not None and self.tls.alpn and "h2" in self.tls.alpn and not self.http2:
            yield Bad("h2 would be agreed on and is not served", "set http2: true, or leave h2 out", path=("tls", "alpn"))
        if self.mesh_hop == "on" and (self.protocol == "tcp" or not self.http2):
            yield Bad("its requests come over HTTP/2, which is not served here", "leave it out", path=("mesh_hop",))
        if self.protocol == "http":
            if self.tcp_route is not None:
                yield Bad("only `protocol: tcp` and `protocol: detect` have one", "leave it out", path=("tcp_route",))
            if self.tls_routes and self.tls is None:
                hint = "set protocol: detect for one port that takes all, or protocol: tcp"
                yield Bad("a listener of HTTP without tls takes no TLS", hint, path=("tls_routes",))
            return
        if self.tcp_route is None and not self.tls_routes:
            yield Bad("nothing says where connections go that are not HTTP", "set tcp_route: <name of a route>")
        if self.protocol == "tcp" and self.routes is not None:
            yield Bad("a TCP listener reads no requests", "write tcp_route: <name>", path=("routes",))
        if self.deferred_accept:
            yield Bad(
                "deferred_accept waits for the client's first byte; many TCP protocols begin with the server's",
                "leave it out",
                path=("deferred_accept",),
            )
