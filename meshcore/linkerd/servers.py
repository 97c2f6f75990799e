"""Servers of a router: where clients connect, what is shown to them, and whether they are trusted."""

from __future__ import annotations

from ipaddress import ip_address

from .clients import HTTP2_KEYS
from .place import Place
from .settings import Server, ServerTls

PORTS = {"http": 4140, "h2": 4142}
_OLD_TLS = "OpenSSL's TLS 1.2 with forward secrecy and 1.3 are spoken, no others"


def read_server(place: Place, protocol: str) -> Server:
    host = place.text("ip", "127.0.0.1")
    port = place.whole("port", PORTS[protocol], 0, 65_535)
    tls = _tls(place.section("tls")) if place.has("tls") else None
    clears = place.flag("clearContext")
    requests = place.whole("maxConcurrentRequests", 0, 1) or None
    forwarded = place.section("addForwardedHeader")
    if place.has("addForwardedHeader"):
        forwarded.meaningless("X-Forwarded-For is added to instead", "by", "for")
        forwarded.end()
    place.meaningless("nothing is announced from here", "announce")
    place.meaningless("x-request-id of this mesh is a UUIDv7 and has the time in it", "timestampHeader")
    place.meaningless("loops end by the number of fields in Via that a head can hold", "maxCallDepth")
    place.meaningless("sockets are set up as the engine needs them", "socketOptions", "engine")
    place.meaningless("bounds of HTTP/2 stand in `limits` of the configuration", *HTTP2_KEYS)
    place.meaningless("`timeouts.keep_alive` of the configuration bounds idle connections", "serverSession")
    place.end()
    # Whoever may send l5d-dtab routes as he likes: on this machine, or with a certificate, or said so.
    said_so = place.values.get("clearContext") is False
    is_trusted = not clears and (_is_loopback(host) or said_so or (tls is not None and tls.requires_client))
    if not is_trusted and not clears:
        place.warn(
            f"l5d-dtab and l5d-ctx-* of callers are not heard at {host}:{port}, where anyone may connect",
            "ip" if "ip" in place.values else None,
            "say clearContext: false to hear them, true to be rid of this warning",
        )
    return Server(host=host, port=port, tls=tls, trusts_callers=is_trusted, max_requests=requests)


def _tls(place: Place) -> ServerTls | None:
    cert, key = place.text("certPath"), place.text("keyPath")
    for name, value in (("certPath", cert), ("keyPath", key)):
        if not value:
            place.problem(f"{place.noun}: the key '{name}' is missing", "it is the path of a PEM file")
    requires = place.flag("requireClientAuth")
    ca = place.text("caCertPath") or None
    if requires and ca is None:
        place.problem(
            f"{place.noun}: requireClientAuth without caCertPath lets nobody in", "set caCertPath: <file>", "requireClientAuth"
        )
    place.meaningless("intermediates stand below the certificate, in the file of certPath", "intermediateCertsPath")
    place.meaningless(_OLD_TLS, "protocols", "ciphers")
    place.end()
    return ServerTls(cert, key, ca, requires) if cert and key else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
