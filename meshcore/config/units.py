"""Durations and sizes: numbers with a unit, as people write them and as the engine counts them."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from .values import Bad, Kind, shown

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
        raise Bad(
            f"not a size: {shown(text)}", "write bytes as a number, or a whole number and a unit: '32KiB', '1MiB'"
        )
    number, unit = int(match[1]), match[2]
    if not unit:
        return number
    if unit not in SIZES:
        meant = _SIZE_MEANT.get(unit[0].lower())
        raise Bad(
            f"unknown unit '{unit}' in the size {text.strip()!r}",
            f"did you mean '{number}{meant}' ({number * SIZES[meant]} bytes)?"
            if meant
            else "units are: " + ", ".join(SIZES),
        )
    return number * SIZES[unit]


def size_text(value: int) -> str | int:
    """A size as people write it: `32KiB`, or the plain number when no unit fits."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
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


DurationLike = Duration | str | timedelta
"""What a duration may be given as: "15s", a timedelta, a Duration. Read back it is a Duration."""
SizeLike = int | str
"""What a size may be given as: bytes, or "32KiB". Read back it is bytes."""
