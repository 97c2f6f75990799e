"""The rewriting classes below `/$/io.buoyant.*`: elements in, elements out, None for no match. Binds nothing.

Source: linkerd hostport.scala, http.scala, with their tests. `…Pfx` means: the first element is a prefix to keep in
front.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Elements = tuple[bytes, ...]
Rewriter = Callable[[Elements], Elements | None]

METHOD = re.compile(rb"[A-Z]+")
# Coarse on purpose: DNS names, IPv4 and IPv6 alike.
HOST = re.compile(rb"[A-Za-z0-9.:_-]+")
# A label of RFC 1123, as Kubernetes names ports: numbers and names.
PORT = re.compile(rb"[a-z0-9][-a-z0-9]*[a-z0-9]?")
LONGEST_PORT_CHARACTERS = 63


def _java_split(text: bytes, separator: bytes) -> list[bytes]:
    """String.split of Java: empty parts at the end are dropped, others are kept."""
    parts = text.split(separator)
    while parts and not parts[-1]:
        parts.pop()
    return parts


def _host_and_port(element: bytes) -> tuple[bytes, bytes] | None:
    """Of `host:port`. One colon (and any at the end, which theirs overlooks); no IPv6; an empty host is no host."""
    parts = _java_split(element, b":")
    if len(parts) != 2 or not parts[0]:
        return None
    host, port = parts
    return (host, port) if PORT.fullmatch(port) and len(port) <= LONGEST_PORT_CHARACTERS else None


def _hostport_pfx(rest: Elements) -> Elements | None:
    """`/pfx/host:port/x` -> `/pfx/host/port/x`."""
    if len(rest) < 2 or (found := _host_and_port(rest[1])) is None:
        return None
    return (rest[0], *found, *rest[2:])


def _porthost_pfx(rest: Elements) -> Elements | None:
    """`/pfx/host:port/x` -> `/pfx/port/host/x`."""
    if len(rest) < 2 or (found := _host_and_port(rest[1])) is None:
        return None
    return (rest[0], found[1], found[0], *rest[2:])


def _any_method(rest: Elements) -> Elements | None:
    """`/GET/x` -> `/x`."""
    return rest[1:] if METHOD.fullmatch(rest[0]) else None


def _any_host(rest: Elements) -> Elements | None:
    """`/a.b/x` -> `/x`."""
    return rest[1:] if HOST.fullmatch(rest[0]) else None


def _domain_to_path(rest: Elements) -> Elements | None:
    """`/foo.buoyant.io/x` -> `/io/buoyant/foo/x`. A port stays where it is: `/io:80/buoyant/foo/x`."""
    if not HOST.fullmatch(rest[0]):
        return None
    labels = _java_split(rest[0], b".")
    return None if b"" in labels else (*reversed(labels), *rest[1:])


def _subdomain(domain: bytes, host: bytes) -> bytes | None:
    if not (HOST.fullmatch(domain) and HOST.fullmatch(host)):
        return None
    name, colon, _ = host.partition(b":")
    name = name if name or not colon else host  # a host that begins with a colon has no port to drop
    return name[: -len(domain) - 1] or None if name.endswith(b"." + domain) else None


def _subdomain_of(rest: Elements) -> Elements | None:
    """`/a.b/foo.a.b:80/x` -> `/foo/x`."""
    if len(rest) < 2 or (sub := _subdomain(rest[0], rest[1])) is None:
        return None
    return (sub, *rest[2:])


def _subdomain_of_pfx(rest: Elements) -> Elements | None:
    """`/a.b/pfx/foo.a.b:80/x` -> `/pfx/foo/x`."""
    if len(rest) < 3 or (sub := _subdomain(rest[0], rest[2])) is None:
        return None
    return (rest[1], sub, *rest[3:])


def _behind_prefix(rewrite: Rewriter) -> Rewriter:
    def rewrite_behind(rest: Elements) -> Elements | None:
        if len(rest) < 2 or (rewritten := rewrite(rest[1:])) is None:
            return None
        return (rest[0], *rewritten)

    return rewrite_behind


REWRITERS: dict[bytes, Rewriter] = {
    b"io.buoyant.hostportPfx": _hostport_pfx,
    b"io.buoyant.porthostPfx": _porthost_pfx,
    b"io.buoyant.http.anyMethod": _any_method,
    b"io.buoyant.http.anyMethodPfx": _behind_prefix(_any_method),
    b"io.buoyant.http.anyHost": _any_host,
    b"io.buoyant.http.anyHostPfx": _behind_prefix(_any_host),
    b"io.buoyant.http.subdomainOf": _subdomain_of,
    b"io.buoyant.http.subdomainOfPfx": _subdomain_of_pfx,
    b"io.buoyant.http.domainToPath": _domain_to_path,
    b"io.buoyant.http.domainToPathPfx": _behind_prefix(_domain_to_path),
}
"""By class name, the element after `/$/`. Each is given at least one element."""
