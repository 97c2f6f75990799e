"""Values to bytes, and back, with every rule checked. The one place that knows all kinds; it stores nothing.

Writing is strict: types, names and bounds, all problems at once. Reading is lenient in one thing: fields this version
does not know are passed over, so that replicas of two neighbouring versions can share a store.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from meshcore.errors import Problem

from ..errors import Invalid, Unreadable
from .checks import Found
from .members import Drain, Endpoint, Named, Service, Workload
from .policies import RoutePolicy, TrafficPolicy

KINDS: dict[str, type[Named]] = {kind.kind: kind for kind in (Service, Workload, Endpoint, Drain, RoutePolicy, TrafficPolicy)}

_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODERS = {kind: msgspec.json.Decoder(struct) for kind, struct in KINDS.items()}
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_PLACED = re.compile(r"(?s)(.*) - at `(?:key in )?`?\$(.*)`")


def encode(value: Named) -> bytes:
    """The bytes of a value that holds to all rules; Invalid tells everything that is wrong."""
    # Python code may have built it with any types: a copy through plain values is checked as if it came from outside.
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(value.kind, [Problem(message=str(error)[:200])]) from None
    sound = read(value.kind, plain)
    return _ENCODER.encode(sound)


def read(kind: str, plain: Any) -> Named:
    """A value from plain dicts and lists, as a file or a request has them. Unknown fields are a mistake here."""
    struct = KINDS.get(kind)
    if struct is None:
        raise Invalid(
            f"kind {kind[:40]!r}", [Problem(message="unknown", expected="one of " + ", ".join(KINDS), got=kind)]
        )
    try:
        value = msgspec.convert(plain, struct)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Invalid(named(kind, plain), [problem_of(str(error))]) from None
    found = Found()
    _strays(plain, value, found)
    value.check(found)
    if found.problems:
        raise Invalid(named(kind, plain), found.problems)
    return value


def decode(kind: str, key: str, data: bytes) -> Named:
    """What `encode` wrote; Unreadable when it is something else, or stands under the wrong key."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise Unreadable(kind, key, "a kind this version does not know")
    try:
        value: Named = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(kind, key, str(error)[:200]) from None
    if value.key != key:
        raise Unreadable(kind, key, f"it says that it is '{value.key[:200]}'")
    return value


def named(kind: str, plain: Any) -> str:
    """How messages name a value that may be anything: `service 'default/web'`."""
    found = [plain.get(field) for field in ("namespace", "name")] if isinstance(plain, dict) else []
    parts = [part for part in found if isinstance(part, str) and len(part) <= 253 and part.isprintable()]
    return f"{kind} '{'/'.join(parts)}'" if len(parts) == 2 else kind


def problem_of(message: str) -> Problem:
    """msgspec's "Expected `int`, got `str` - at `$.ports[0].port`" with its place taken apart."""
    match = _PLACED.fullmatch(message)
    text, place = (match[1], match[2]) if match else (message, "")
    path = tuple(int(index) if index.isdigit() else name or "*" for name, index in _STEP.findall(place))
    wanted = re.fullmatch(r"Expected `(.+)`, got `(.+)`", text)
    if wanted:
        return Problem(message=f"got {wanted[2]}", path=path, expected=wanted[1], got=wanted[2])
    return Problem(message=text.replace("`", "'"), path=path)


def _strays(plain: Any, value: Any, found: Found) -> None:
    """Fields that no struct has: a typo would otherwise be a policy that silently does nothing."""
    if isinstance(value, msgspec.Struct) and isinstance(plain, dict):
        known = value.__struct_fields__
        for name, item in plain.items():
            if name in known:
                _strays(item, getattr(value, name), found.at(name))
            else:
                found.at(str(name)[:80]).wrong("unknown field", "one of " + ", ".join(known), name)
    elif isinstance(value, tuple) and isinstance(plain, (list, tuple)):
        for index, (item, inner) in enumerate(zip(plain, value, strict=True)):
            _strays(item, inner, found.at(index))
