"""Identifiers: from the head of a request to the name it asks for. Pure: nothing of the request is changed.

Source: linkerd PathIdentifier, MethodAndHostIdentifier, HeaderIdentifier, StaticIdentifier, HeaderPathIdentifier (h2),
with their tests. Several are tried in order; when none identifies a request, Linkerd answers 400.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from .errors import NamingError
from .parse import read_path
from .path import Path

DEFAULT_PREFIX = Path.of("svc")
DEFAULT_NAME_HEADER = "l5d-name"


class RequestHead(msgspec.Struct, frozen=True):
    """What an identifier may look at. Of HTTP/2, `:authority` and `:path` are header fields of that name."""

    method: str = "GET"
    target: str = "/"
    """As on the request line: path and query."""
    version: str = "1.1"
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str:
        """The first field of that name, "" when there is none."""
        wanted = name.lower()
        return next((value for field, value in self.headers if field.lower() == wanted), "")

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Identified(msgspec.Struct, frozen=True):
    """The name of a request."""

    name: Path
    target: str | None = None
    """What to ask the server for instead, where the identifier consumes a part of it."""


class Unidentified(msgspec.Struct, frozen=True):
    """Another identifier may know."""

    reason: str


Identification: TypeAlias = Identified | Unidentified
Identifier: TypeAlias = Callable[[RequestHead], Identification]


def header_token(prefix: Path = DEFAULT_PREFIX, header: str = "Host") -> Identifier:
    """`io.l5d.header.token`, Linkerd's default: the value of a header as one element, as it came."""

    def identify(head: RequestHead) -> Identification:
        value = head.header(header)
        return Identified(prefix + Path.of(value)) if value else Unidentified(f"{header} header is absent")

    return identify


def header(prefix: Path = DEFAULT_PREFIX, name: str = DEFAULT_NAME_HEADER) -> Identifier:
    """`io.l5d.header`: a header that holds a path."""

    def identify(head: RequestHead) -> Identification:
        value = head.header(name)
        return _read(prefix, value) if value else Unidentified(f"{name} header is absent")

    return identify


def method_and_host(prefix: Path = DEFAULT_PREFIX, *, with_uri: bool = False) -> Identifier:
    """`io.l5d.methodAndHost`: `/1.1/GET/host`, and of HTTP/1.0 `/1.0/GET`; with_uri (httpUriInDst) adds the path."""

    def identify(head: RequestHead) -> Identification:
        elements = [head.version, head.method]
        if head.version != "1.0":
            host = head.header("host")
            if not host:
                return Unidentified(f"HTTP/{head.version} request missing hostname")
            elements.append(host.lower())
        name = prefix + Path.of(*elements)
        if not with_uri:
            return Identified(name)
        segments = _segments(head.path)
        return Identified(name + Path.of(*segments)) if all(segments) else Unidentified("empty segment in path")

    return identify


def path(prefix: Path = DEFAULT_PREFIX, segments: int = 1, *, consume: bool = False) -> Identifier:
    """`io.l5d.path`: the first segments of the path. `consume` takes them off; a last slash and the query stay."""
    if segments < 1:
        raise NamingError("segments must be 1 or more")

    def identify(head: RequestHead) -> Identification:
        found = _segments(head.path)
        if len(found) < segments:
            return Unidentified("not enough segments in path")
        taken, rest = found[:segments], found[segments:]
        if not all(taken):
            return Unidentified("empty segment in path")
        target = None
        if consume:
            _, question_mark, query = head.target.partition("?")
            slash = "/" if rest and head.path.endswith("/") else ""
            target = f"/{'/'.join(rest)}{slash}{question_mark}{query}"
        return Identified(prefix + Path.of(*taken), target)

    return identify


def static(name: Path, prefix: Path = DEFAULT_PREFIX) -> Identifier:
    """`io.l5d.static`: one name for everything."""
    return lambda head: Identified(prefix + name)


def header_path(prefix: Path = DEFAULT_PREFIX, name: str = ":path", segments: int | None = None) -> Identifier:
    """`io.l5d.header.path` of HTTP/2: a path in a header, without query and last slash; all of it, or some segments."""
    if segments is not None and segments < 1:
        raise NamingError("segments must be 1 or more")

    def identify(head: RequestHead) -> Identification:
        value = head.header(name).partition("?")[0].removesuffix("/")
        if not value:
            return Unidentified("Missing destination path")
        found = _read(prefix, value)
        if segments is None or isinstance(found, Unidentified):
            return found
        wanted = len(prefix) + segments
        if len(found.name) < wanted:
            return Unidentified(f"Path must have at least {segments} segment(s)")
        return Identified(found.name.take(wanted))

    return identify


def first_of(identifiers: Iterable[Identifier]) -> Identifier:
    """The first that identifies; all their reasons when none does."""
    tried = tuple(identifiers)

    def identify(head: RequestHead) -> Identification:
        reasons = []
        for one in tried:
            found = one(head)
            if isinstance(found, Identified):
                return found
            reasons.append(found.reason)
        return Unidentified("; ".join(reasons) or "no identifier")

    return identify


def _segments(text: str) -> list[str]:
    """The segments of a request path; none after a last slash, as Java splits."""
    parts = text.split("/")[1:]
    while parts and not parts[-1]:
        parts.pop()
    return parts


def _read(prefix: Path, value: str) -> Identification:
    """A header of a stranger: what is no path identifies nothing, and is no error of ours."""
    try:
        return Identified(prefix + read_path(value))
    except NamingError as error:
        return Unidentified(str(error))
