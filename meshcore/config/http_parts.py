"""Parts of HTTP messages in a configuration: methods, header names and values, paths, hosts. Reads one value.

What is accepted here goes onto the wire or into the route table as it stands, so it is strict (keeps STRICT_OUT).
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from .addresses import LABELS, is_ip6
from .suggest import hint as nearest_hint
from .values import Bad, Kind, TextKind, shown

_VISIBLE = re.compile(r"[ -~\t]*").fullmatch
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


class MethodKind(Kind):
    """A method a route can match: the registered ones of RFC 9110 and PATCH; all others share one routing class."""

    what = "a request method"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(value)
        if value in METHODS:
            return value
        if not re.fullmatch(TOKEN, value):
            raise Bad(
                f"{shown(value)} is not a request method",
                "a method is a token: letters, digits and a few signs",
                self.what,
            )
        if value.upper() in METHODS:
            raise Bad(
                f"unknown method '{value[:40]}'",
                f"did you mean '{value.upper()}'? methods are case-sensitive",
                self.what,
            )
        raise Bad(f"unknown method '{value[:40]}'", nearest_hint(value.upper(), METHODS, "methods"), self.what)

    def describe(self) -> str:
        return "one of " + ", ".join(f"`{method}`" for method in METHODS)


# Fields that frame or route the message: the engine writes them itself, an edit would break STRICT_OUT.
# RFC 9110 7.6.1 (hop-by-hop), RFC 9112 6 (framing), RFC 9112 3.2 (Host).
FRAMING_FIELDS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "http2-settings",
        "expect",
    }
)


class FieldNameKind(TextKind):
    """A field name that a route looks at, lower-cased."""

    verb, host_key = "looked at", "match.host"  # Host is no field like others

    def __init__(self) -> None:
        super().__init__(
            "a header name", TOKEN, most=256, hint="letters, digits and - _ . only, no colon and no spaces"
        )

    def read(self, value: Any) -> str:
        name = super().read(value).lower()
        if name == "host":
            raise Bad(f"'host' cannot be {self.verb} as a header", f"use {self.host_key}", self.what)
        return name

    def describe(self) -> str:
        return "header name"


class HeaderNameKind(FieldNameKind):
    """A field name that a configuration may edit."""

    verb, host_key = "edited", "rewrite.host"

    def read(self, value: Any) -> str:
        name = super().read(value)
        if name in FRAMING_FIELDS:
            raise Bad(f"'{name}' cannot be edited: it belongs to the connection or frames the message", "", self.what)
        return name


class HeaderValueKind(Kind):
    """A field value: visible ASCII, inner spaces and tabs."""

    what = "a header value"

    def read(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(value, "put it in quotes" if isinstance(value, (bool, float)) else "")
        if not _VISIBLE(value):
            self._refuse(value)
        if len(value) > 8192:
            raise Bad(f"{len(value)} characters are too many for a header value", "the most is 8192", self.what)
        return value.strip(" \t")

    def _refuse(self, value: str) -> NoReturn:
        for bad, name in (("\r", "a carriage return"), ("\n", "a line feed"), ("\0", "a NUL")):
            if bad in value:
                raise Bad(f"a header value cannot hold {name}", "it would start a new header (RFC 9110 5.5)", self.what)
        letter = next(one for one in value if not _VISIBLE(one))
        raise Bad(f"a header value cannot hold U+{ord(letter):04X}", "only visible ASCII, spaces and tabs", self.what)

    def describe(self) -> str:
        return "text"


class PathKind(Kind):
    """The path of a request target, as it stands on the wire."""

    what = "a path that starts with '/'"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(value)
        if not value.startswith("/"):
            raise Bad(
                f"the path {value[:60]!r} does not start with '/'", f"did you mean {('/' + value)[:60]!r}?", self.what
            )
        for letter, message in (("?", "a query"), ("#", "a fragment")):
            if letter in value:
                raise Bad(f"the path {value[:60]!r} has {message}", "only the path is matched", self.what)
        if value.endswith("/*"):
            raise Bad(f"the path {value[:60]!r} ends in a wildcard", f"write prefix: {value[:-2] or '/'}", self.what)
        for letter in value:
            if not "!" <= letter <= "~":
                raise Bad(f"the path {value[:60]!r} holds U+{ord(letter):04X}", "percent-encode it", self.what)
        if len(value) > 4096:
            raise Bad(f"{len(value)} characters are too many for a path", "the most is 4096", self.what)
        return value

    def describe(self) -> str:
        return "path, starts with `/`"


class HostKind(Kind):
    """A host name without port, lower-cased; with a leading `*.` where wildcards are allowed."""

    def __init__(self, wildcard: bool = False, port: bool = False) -> None:
        self.wildcard = wildcard
        self.port = port
        self.what = "a host such as 'a.example'" + (" or '*.example'" if wildcard else "")

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(value, "put it in quotes" if isinstance(value, (int, float)) else "")
        host = value.lower()
        if host == "*":
            raise Bad("'*' alone is not a host", "leave host out to match every host", self.what)
        if "://" in host or "/" in host:
            raise Bad(f"the host {value[:60]!r} is a URL", "write the host name only", self.what)
        if not host.isascii():
            raise Bad(f"the host {value[:60]!r} is not ASCII", "write its xn-- form", self.what)
        if host.startswith("*."):
            if not self.wildcard:
                raise Bad(f"a wildcard is not possible here: {value[:60]!r}", "", self.what)
            rest = host[2:]
        else:
            rest = host
        if "*" in rest:
            raise Bad(
                f"the wildcard in {value[:60]!r} stands in the wrong place",
                "only a leading '*.' matches, as in '*.example'",
                self.what,
            )
        if rest.startswith("["):
            end = rest.find("]")
            if end < 0 or not is_ip6(rest[1:end]) or host.startswith("*."):
                raise Bad(f"{value[:60]!r} is not an IPv6 address in brackets", "", self.what)
            name, tail = rest[: end + 1], rest[end + 1 :]
        else:
            name, colon, port = rest.partition(":")
            tail = colon + port
        if tail:
            digits = tail[1:]
            if not (tail[0] == ":" and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) <= 65535):
                raise Bad(f"{value[:60]!r} is not a host", "", self.what)
            if not self.port:
                raise Bad(
                    f"the host {value[:60]!r} has a port",
                    f"write '{host[: -len(tail)]}': ports are not matched",
                    self.what,
                )
        if name.endswith("."):
            raise Bad(f"the host {value[:60]!r} ends in a dot", f"write '{host.rstrip('.')}'", self.what)
        if not name.startswith("[") and (len(name) > 253 or not LABELS.match(name)):
            raise Bad(f"{shown(value)} is not a host name", "letters, digits, '-', '_' and '.' only", self.what)
        return host

    def describe(self) -> str:
        return "host" + (" or `*.suffix`" if self.wildcard else "") + (", with or without port" if self.port else "")
