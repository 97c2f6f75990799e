"""The kinds of single values: durations, sizes, numbers, names, addresses, header parts. Reads one value; no context.

A kind has `read(value)`, which returns the canonical value or raises `Bad`, and `text(value)`, which writes it back as
YAML would have it. Reading is idempotent: a canonical value reads as itself, so structs may be built from either.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from .suggest import hint as nearest_hint


class Bad(ValueError):
    """A value that cannot be used: the message completes the sentence `<key>: …`."""

    def __init__(self, message: str, hint: str = "", expected: str = "", path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.expected = expected
        self.path = path


def shown(value: Any, most: int = 60) -> str:
    """A value as an error message shows it: type and content, never longer than a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        cut = value if len(value) <= most else value[: most - 1] + "…"
        # repr() escapes control bytes, so that no file can write on the terminal of who reads its errors.
        return f"the string {cut!r}"
    if isinstance(value, Duration):
        return f"the duration {value}"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4300 digits.
        return f"the number {value}" if abs(value) < 10**30 else "a huge number"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


class Kind:
    """How one value is read, written and described."""

    what = "a value"  # in messages: "expected …"
    unit = ""  # in docs

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def text(self, value: Any) -> Any:
        """The value as a plain YAML scalar or collection."""
        return value

    def describe(self) -> str:
        """Type and range for the reference page."""
        return self.what

    def wrong(self, value: Any, hint: str = "") -> Bad:
        return Bad(f"expected {self.what}, got {shown(value)}", hint, self.what)


# --- durations ----------------------------------------------------------------------------------------------------

UNITS_NS = {
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_UNIT_LIST = "us, ms, s, m, h, d"
_DURATION = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-zµμ]*)\s*\Z")
_FRACTION = re.compile(r"\s*([0-9]{1,9})?[.,]([0-9]{1,9})\s*(us|ms|s|m|h|d)\s*\Z")
_COMPOUND = re.compile(r"(\s*[0-9]{1,9}\s*(us|ms|s|m|h|d)){2,}\s*\Z")
_LONG_UNITS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "S": "s", "min": "m", "mins": "m", "minute": "m",
    "minutes": "m", "M": "m", "hour": "h", "hours": "h", "hr": "h", "hrs": "h", "H": "h", "day": "d", "days": "d",
    "D": "d", "msec": "ms", "msecs": "ms", "millis": "ms", "milliseconds": "ms", "MS": "ms", "Ms": "ms",
    "usec": "us", "µs": "us", "μs": "us", "micros": "us", "microseconds": "us",
}  # fmt: skip


class Duration(int):
    """A length of time in nanoseconds that prints as people write it: `str(Duration("15s")) == "15s"`."""

    __slots__ = ()

    def __new__(cls, value: str | timedelta | int) -> Duration:
        """From text with a unit, a timedelta, or a whole number of nanoseconds."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, str):
            value = parse_duration(value)
        elif isinstance(value, timedelta):
            value = (value.days * 86_400 + value.seconds) * 1_000_000_000 + value.microseconds * 1_000
        return int.__new__(cls, value)

    @property
    def ns(self) -> int:
        """Whole nanoseconds."""
        return int(self)

    @property
    def seconds(self) -> float:
        """Seconds as Python's own functions take them."""
        return self / 1e9

    def __str__(self) -> str:
        if self == 0:
            return "0"
        for unit in ("d", "h", "m", "s", "ms"):
            if self % UNITS_NS[unit] == 0:
                return f"{self // UNITS_NS[unit]}{unit}"
        return f"{self // 1000}us" if self % 1000 == 0 else f"{int(self)}ns"

    def __repr__(self) -> str:
        return f"Duration('{self}')"


def parse_duration(text: str) -> int:
    """Nanoseconds of `250ms`, `15s`, `1m`, `0`: a whole number and one unit. Raises Bad."""
    match = _DURATION.match(text)
    if match is None:
        stripped = text.strip()
        if stripped.startswith("-"):
            raise Bad(f"a duration cannot be negative: {text.strip()[:40]!r}", "0 switches a timeout off")
        if fraction := _FRACTION.match(text):
            raise Bad(f"a duration is a whole number and a unit, not {stripped!r}", _whole(fraction))
        if _COMPOUND.match(text):
            total = sum(int(n) * UNITS_NS[u] for n, u in re.findall(r"([0-9]+)\s*(us|ms|s|m|h|d)", text))
            raise Bad(f"a duration has one unit, not {stripped!r}", f"write '{Duration(total)}'")
        if re.match(r"\s*[0-9]{19,}", text):
            raise Bad("the duration overflows: it has too many digits", "the longest is 3650d")
        raise Bad(f"not a duration: {shown(text)}", "write a whole number and a unit, as in '250ms' or '15s'")
    number, unit = int(match[1]), match[2]
    if unit not in UNITS_NS:
        if not unit:
            if number == 0:
                return 0
            raise Bad(f"the duration '{number}' has no unit", f"did you mean '{number}s' or '{number}ms'?")
        meant = _LONG_UNITS.get(unit)
        raise Bad(
            f"unknown unit '{unit}' in the duration {text.strip()!r}",
            f"did you mean '{number}{meant}'?" if meant else f"units are: {_UNIT_LIST}",
        )
    ns = number * UNITS_NS[unit]
    if ns > MAX_DURATION_NS:
        raise Bad(f"the duration {text.strip()!r} overflows", "the longest is 3650d")
    return ns


MAX_DURATION_NS = 3650 * UNITS_NS["d"]  # far below 2^63 ns, so that now + timeout cannot wrap


def _whole(match: re.Match[str]) -> str:
    digits = match[2]
    scale: int = 10 ** len(digits)
    ns, rest = divmod((int(match[1] or 0) * scale + int(digits)) * UNITS_NS[match[3]], scale)
    return f"write '{Duration(ns)}'" if not rest and ns % 1000 == 0 else "use a smaller unit"


class DurationKind(Kind):
    """A duration between two bounds; 0 where it means "off"."""

    what = "a duration such as '250ms' or '15s'"
    unit = "duration"

    def __init__(self, least: str, most: str, off: bool = False) -> None:
        self.least = Duration(least)
        self.most = Duration(most)
        self.off = off

    def read(self, value: Any) -> Duration:
        if type(value) is Duration:
            duration = value
        elif isinstance(value, str):
            duration = Duration(parse_duration(value))
        elif isinstance(value, timedelta):
            duration = Duration(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            if value < 0:
                raise Bad(f"a duration cannot be negative: {shown(value)}", "0 switches a timeout off")
            duration = Duration(parse_duration(str(value) if value < 10**18 else "9" * 19))
        elif isinstance(value, float) and math.isfinite(value):
            raise Bad(
                f"the duration {value!r} has no unit, and only whole numbers are durations",
                f"did you mean '{round(value * 1000)}ms'?" if 0 < value < 1e6 else "",
                self.what,
            )
        else:
            raise self.wrong(value)
        if duration == 0 and self.off:
            return duration
        if duration < 0:
            raise Bad(f"a duration cannot be negative: {duration}", "0 switches a timeout off")
        if duration < self.least or duration > self.most:
            off = " (or 0 for off)" if self.off else ""
            raise Bad(f"{duration} is out of range", f"from {self.least} to {self.most}{off}", self.describe())
        return duration

    def text(self, value: Any) -> Any:
        return 0 if value == 0 else str(value)

    def describe(self) -> str:
        return f"duration, {self.least} to {self.most}" + ("; 0 = off" if self.off else "")


# --- sizes --------------------------------------------------------------------------------------------------------

SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*\Z")
_SIZE_MEANT = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB", "b": "B"}


def parse_size(text: str) -> int:
    """Bytes of `32KiB`, `1MiB`, `4096`. Raises Bad."""
    match = _SIZE.match(text)
    if match is None:
        if text.strip().startswith("-"):
            raise Bad(f"a size cannot be negative: {text.strip()[:40]!r}")
        if re.match(r"\s*[0-9]{19,}", text):
            raise Bad("the size overflows: it has too many digits")
        raise Bad(f"not a size: {shown(text)}", "write bytes as a number, or a whole number and a unit: '32KiB', '1MiB'")
    number, unit = int(match[1]), match[2]
    if not unit:
        return number
    if unit not in SIZES:
        meant = _SIZE_MEANT.get(unit[0].lower())
        raise Bad(
            f"unknown unit '{unit}' in the size {text.strip()!r}",
            f"did you mean '{number}{meant}' ({number * SIZES[meant]} bytes)?" if meant else "units are: " + ", ".join(SIZES),
        )
    return number * SIZES[unit]


def size_text(value: int) -> str | int:
    """A size as people write it: `32KiB`, or the plain number when no unit fits."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % SIZES[unit] == 0:
            return f"{value // SIZES[unit]}{unit}"
    return value


class SizeKind(Kind):
    """A number of bytes between two bounds; 0 where it means "no limit"."""

    what = "a size such as '32KiB'"
    unit = "bytes"

    def __init__(self, least: str, most: str, off: bool = False) -> None:
        self.least = parse_size(least)
        self.most = parse_size(most)
        self.off = off

    def read(self, value: Any) -> int:
        if isinstance(value, str):
            size = parse_size(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
            if size < 0:
                raise Bad(f"a size cannot be negative: {shown(value)}")
        else:
            raise self.wrong(value)
        if size == 0 and self.off:
            return 0
        if size < self.least or size > self.most:
            off = " (or 0 for no limit)" if self.off else ""
            shown_size = size_text(size) if size < 10**30 else "the size"
            raise Bad(
                f"{shown_size} is out of range",
                f"from {size_text(self.least)} to {size_text(self.most)}{off}",
                self.describe(),
            )
        return size

    def text(self, value: Any) -> Any:
        return size_text(value)

    def describe(self) -> str:
        return f"size, {size_text(self.least)} to {size_text(self.most)}" + ("; 0 = no limit" if self.off else "")


# --- numbers, switches, words -------------------------------------------------------------------------------------


class IntKind(Kind):
    """A whole number between two bounds, or one of a few words (`auto`)."""

    def __init__(self, least: int, most: int, words: tuple[str, ...] = (), zero: str = "", unit: str = "") -> None:
        self.least = least
        self.most = most
        self.words = words
        self.zero = zero
        self.unit = unit
        self.what = "a whole number" + "".join(f" or '{word}'" for word in words)

    def read(self, value: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, int):
            if isinstance(value, str):
                if value in self.words:
                    return value
                if value.strip().lstrip("-").isdigit():
                    raise self.wrong(value, f"remove the quotes: {value.strip()[:40]}")
                if self.words and not any(letter.isdigit() for letter in value):
                    raise self.wrong(value, nearest_hint(value, self.words, "words"))
            if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
                raise self.wrong(value, f"write {int(value)}")
            raise self.wrong(value)
        if value == 0 and self.zero:
            return value
        if not self.least <= value <= self.most:
            zero = f" (or 0: {self.zero})" if self.zero else ""
            number = str(value) if abs(value) < 10**30 else "the number"
            raise Bad(f"{number} is out of range", f"from {self.least} to {self.most}{zero}", self.describe())
        return int(value)

    def describe(self) -> str:
        words = "".join(f" or `{word}`" for word in self.words)
        return f"number, {self.least} to {self.most}{words}" + (f"; 0 = {self.zero}" if self.zero else "")


class BoolKind(Kind):
    """true or false."""

    what = "true or false"

    def read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if value.lower() in ("yes", "on", "true", "y", "1"):
                raise self.wrong(value, "write true")
            if value.lower() in ("no", "off", "false", "n", "0"):
                raise self.wrong(value, "write false")
        raise self.wrong(value)


class WordKind(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.what = "one of " + ", ".join(words)

    def read(self, value: Any) -> str:
        # `retries.on: [502]` is as clear as `["502"]`.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if abs(value) < 10**30 else "a huge number"
        if isinstance(value, str):
            if value in self.words:
                return value
            raise Bad(f"unknown value {value[:60]!r}", nearest_hint(value, self.words, "values"), self.what)
        if value is False and "off" in self.words:
            raise self.wrong(value, "write off")
        raise self.wrong(value)

    def describe(self) -> str:
        return "one of " + ", ".join(f"`{word}`" for word in self.words)


class TextKind(Kind):
    """A string, not empty unless allowed, with bounded length and a pattern."""

    def __init__(
        self,
        what: str,
        pattern: str = r"[^\x00-\x1f\x7f]*",
        most: int = 256,
        empty: bool = False,
        hint: str = "",
    ) -> None:
        self.what = what
        self.pattern = re.compile(pattern + r"\Z", re.DOTALL)
        self.most = most
        self.empty = empty
        self.hint = hint

    def read(self, value: Any) -> str:
        text = self.string(value)
        if not self.pattern.match(text):
            raise Bad(f"{shown(text)} is not {self.what}", self.hint, self.what)
        return text

    def string(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
            value = str(value)  # `name: 7` and `x-version: 2` mean the digits as written
        if not isinstance(value, str):
            hint = ""
            if isinstance(value, (bool, float)):
                hint = "put it in quotes"
            raise self.wrong(value, hint)
        if not value and not self.empty:
            raise Bad(f"expected {self.what}, got an empty string", "", self.what)
        if len(value) > self.most:
            raise Bad(f"{len(value)} characters are too many for {self.what}", f"the most is {self.most}", self.what)
        return value


NAME = TextKind(
    "a name",
    r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]*",
    most=200,
    hint="names have letters, digits and . _ - : / @ +, and start with a letter or a digit",
)


# --- HTTP parts ---------------------------------------------------------------------------------------------------

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
            raise Bad(f"{shown(value)} is not a request method", "a method is a token: letters, digits and a few signs", self.what)
        if value.upper() in METHODS:
            raise Bad(f"unknown method '{value[:40]}'", f"did you mean '{value.upper()}'? methods are case-sensitive", self.what)
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


class HeaderNameKind(TextKind):
    """A field name that a configuration may edit, lower-cased."""

    def __init__(self) -> None:
        super().__init__("a header name", TOKEN, most=256, hint="letters, digits and - _ . only, no colon and no spaces")

    def read(self, value: Any) -> str:
        name = super().read(value).lower()
        if name == "host":
            raise Bad("'host' cannot be edited as a header", "use rewrite.host", self.what)
        if name in FRAMING_FIELDS:
            raise Bad(f"'{name}' cannot be edited: it belongs to the connection or frames the message", "", self.what)
        return name

    def describe(self) -> str:
        return "header name"


class HeaderValueKind(Kind):
    """A field value: visible ASCII, inner spaces and tabs."""

    what = "a header value"

    def read(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(value, "put it in quotes" if isinstance(value, (bool, float)) else "")
        for bad, name in (("\r", "a carriage return"), ("\n", "a line feed"), ("\0", "a NUL")):
            if bad in value:
                raise Bad(f"a header value cannot hold {name}", "it would start a new header (RFC 9110 5.5)", self.what)
        for letter in value:
            if not (" " <= letter <= "~" or letter == "\t"):
                raise Bad(f"a header value cannot hold U+{ord(letter):04X}", "only visible ASCII, spaces and tabs", self.what)
        if len(value) > 8192:
            raise Bad(f"{len(value)} characters are too many for a header value", "the most is 8192", self.what)
        return value.strip(" \t")


class PathKind(Kind):
    """The path of a request target, as it stands on the wire."""

    what = "a path that starts with '/'"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(value)
        if not value.startswith("/"):
            raise Bad(f"the path {value[:60]!r} does not start with '/'", f"did you mean {('/' + value)[:60]!r}?", self.what)
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


_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\Z")


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
            if end < 0 or not _is_ip(socket.AF_INET6, rest[1:end]) or host.startswith("*."):
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
                raise Bad(f"the host {value[:60]!r} has a port", f"write '{host[: -len(tail)]}': ports are not matched", self.what)
        if name.endswith("."):
            raise Bad(f"the host {value[:60]!r} ends in a dot", f"write '{host.rstrip('.')}'", self.what)
        if not name.startswith("[") and (len(name) > 253 or not _LABELS.match(name)):
            raise Bad(f"{shown(value)} is not a host name", "letters, digits, '-', '_' and '.' only", self.what)
        return host

    def describe(self) -> str:
        return "host" + (" or `*.suffix`" if self.wildcard else "") + (", with or without port" if self.port else "")


# --- addresses ----------------------------------------------------------------------------------------------------


def _is_ip(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (host "" then). Raises Bad."""
    if "://" in text:
        scheme, rest = text.split("://", 1)
        raise Bad(f"the address {text[:80]!r} is a URL", f"write '{rest.split('/')[0][:60]}' without '{scheme[:20]}://'")
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise Bad(f"the address {text[:80]!r} has no port", "write '[::1]:8080'")
        if not _is_ip(socket.AF_INET6, host):
            raise Bad(f"{host[:60]!r} is not an IPv6 address")
        port = tail[1:]
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            if text.isdigit():
                raise Bad(f"the address {text[:20]!r} is a port alone", f"did you mean ':{text[:20]}'?")
            raise Bad(f"the address {text[:80]!r} has no port", f"did you mean '{text[:60]}:80'?")
        if ":" in host:
            if _is_ip(socket.AF_INET6, host):
                raise Bad(f"the IPv6 address in {text[:80]!r} needs brackets", f"write '[{host}]:{port[:8]}'")
            raise Bad(f"{text[:80]!r} is not an address", "write 'host:port'")
    if not (port.isascii() and port.isdigit()):
        raise Bad(f"the port in {text[:80]!r} is not a number", "write 'host:port'")
    if len(port) > 5 or int(port) > 65535:
        raise Bad(f"the port {port[:12]} is out of range", "from 1 to 65535")
    if host and not text.startswith("["):
        lowered = host.lower()
        if re.fullmatch(r"[0-9.]+", host):
            if not _is_ip(socket.AF_INET, host):
                raise Bad(f"{host[:60]!r} is not an IPv4 address")
        elif not lowered.isascii() or len(lowered) > 253 or not _LABELS.match(lowered.removesuffix(".")):
            raise Bad(f"{host[:60]!r} is not a host name", "letters, digits, '-', '_' and '.' only")
    return host.lower(), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AddressKind(Kind):
    """`host:port`, or `unix:/path` where sockets of the file system are allowed."""

    def __init__(self, *, any_host: bool = False, port_zero: bool = False, unix: bool = False, loopback: bool = False) -> None:
        self.any_host = any_host
        self.port_zero = port_zero
        self.unix = unix
        self.loopback = loopback
        forms = [":8080" if any_host else "127.0.0.1:8080"] + (["unix:/path"] if unix else [])
        self.what = "an address such as " + " or ".join(f"'{form}'" for form in forms)

    def read(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
            raise self.wrong(value, f"did you mean ':{value}'?" if self.any_host else f"did you mean '127.0.0.1:{value}'?")
        if not isinstance(value, str) or not value:
            raise self.wrong(value) if value != "" else Bad(f"expected {self.what}, got an empty string", "", self.what)
        if value.startswith("unix:"):
            return self.unix_path(value)
        if value.startswith("/"):
            raise Bad(f"{value[:80]!r} is not an address", f"did you mean 'unix:{value[:80]}'?" if self.unix else "", self.what)
        host, port = split_address(value)
        if not host:
            if not self.any_host:
                raise Bad(f"the address '{value}' has no host", f"did you mean '127.0.0.1:{port}'?", self.what)
            host = "0.0.0.0"
        if port == 0 and not self.port_zero:
            raise Bad(f"the address '{value}' has port 0", "a port is 1 to 65535", self.what)
        if self.loopback and not is_loopback(host):
            raise Bad(
                f"the admin address '{value}' is not a loopback address",
                "it has no authentication: use 'unix:/path' or '127.0.0.1:port', and a tunnel from elsewhere",
                self.what,
            )
        return join_address(host, port)

    def unix_path(self, value: str) -> str:
        path = value[5:]
        if not self.unix:
            raise Bad(f"a unix socket is not possible here: {value[:80]!r}", "write 'host:port'", self.what)
        if not path.startswith("/"):
            raise Bad(f"the unix socket path {path[:80]!r} is not absolute", "write 'unix:/path'", self.what)
        if "\0" in path or len(path.encode(errors="surrogateescape")) > 107:  # sun_path holds 108 bytes with its NUL
            raise Bad("the unix socket path is longer than 107 bytes or holds a NUL", "", self.what)
        return value

    def describe(self) -> str:
        return "`host:port`" + (" or `:port`" if self.any_host else "") + (" or `unix:/path`" if self.unix else "")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address on `host`."""
    return host in ("localhost", "::1") or (_is_ip(socket.AF_INET, host) and host.startswith("127."))


# --- collections --------------------------------------------------------------------------------------------------


class ListKind(Kind):
    """A list of values of one kind, with a bound."""

    def __init__(self, item: Kind, most: int, least: int = 0, unique: bool = False) -> None:
        self.item = item
        self.most = most
        self.least = least
        self.unique = unique
        self.what = "a list"

    def read(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            hint = "put it in brackets: [" + value[:40] + "]" if isinstance(value, str) else ""
            raise self.wrong(value, hint)
        self.check_count(value)
        items = []
        for index, item in enumerate(value):
            try:
                items.append(self.item.read(item))
            except Bad as bad:
                raise Bad(bad.message, bad.hint, bad.expected, (index, *bad.path)) from None
        if self.unique and len(set(items)) < len(items):
            for index, item in enumerate(items):
                if item in items[:index]:
                    raise Bad(f"'{item}' is listed twice", "", self.what, (index,))
        return tuple(items)

    def check_count(self, value: Iterable[Any]) -> None:
        count = len(value)  # type: ignore[arg-type]
        if count < self.least:
            raise Bad("the list is empty", f"it needs at least {self.least}", self.what)
        if count > self.most:
            raise Bad(f"{count} entries are too many", f"the most is {self.most}", self.what)

    def text(self, value: Any) -> Any:
        return [self.item.text(item) for item in value]

    def describe(self) -> str:
        return f"list of {self.item.describe()}"


class MapKind(Kind):
    """A mapping from one kind to another, with a bound."""

    what = "a mapping"

    def __init__(self, key: Kind, item: Kind, most: int) -> None:
        self.key = key
        self.item = item
        self.most = most

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(value)
        if len(value) > self.most:
            raise Bad(f"{len(value)} entries are too many", f"the most is {self.most}", self.what)
        result: dict[str, Any] = {}
        for name, item in value.items():
            try:
                canonical = self.key.read(name)
            except Bad as bad:
                raise Bad(bad.message, bad.hint, bad.expected, (name,)) from None
            if canonical in result:
                raise Bad(f"'{canonical}' is listed twice", "header names do not differ by case", self.what, (name,))
            try:
                result[canonical] = self.item.read(item)
            except Bad as bad:
                raise Bad(bad.message, bad.hint, bad.expected, (name, *bad.path)) from None
        return result

    def describe(self) -> str:
        return f"mapping of {self.key.describe()} to {self.item.describe() if self.item.what else 'text'}"


class Key(msgspec.Struct, frozen=True):
    """What a configuration key accepts and why its default is what it is. Stands in the Annotated type of a field."""

    kind: Any
    doc: str
    why: str = ""
