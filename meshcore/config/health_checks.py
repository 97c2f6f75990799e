"""The section `health_check` of a cluster: how its endpoints are asked whether they are well. Asks nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from .http_parts import HostKind, PathKind
from .section import Section
from .units import Duration, DurationKind, DurationLike
from .values import Bad, IntKind, Key, Kind, TextKind, WordKind, shown

MAX_RANGES = 32

_RANGE = re.compile(r"([0-9]{3})(?:-([0-9]{3}))?\Z")


class StatusesKind(Kind):
    """Statuses and ranges of them: `"200-399"`, `204` or a list of both. Canonical: a tuple of texts."""

    what = 'statuses such as 200, "200-399" or a list of them'

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            return (self._range(value),)
        if not 1 <= len(value) <= MAX_RANGES:
            raise Bad(f"got {len(value)} entries", f"from 1 to {MAX_RANGES}", self.what)
        found = []
        for index, item in enumerate(value):
            try:
                found.append(self._range(item))
            except Bad as bad:
                raise bad.under(index) from None
        return tuple(found)

    def _range(self, value: Any) -> str:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000 else value
        if not isinstance(text, str):
            raise self.wrong(value)
        match = _RANGE.match(text)
        if match is None:
            raise Bad(f"{shown(text)} is no status and no range", 'write 200 or "200-399"', self.what)
        low, high = int(match[1]), int(match[2] or match[1])
        # 1xx is never the answer: a final one follows (RFC 9110 15.2).
        if not 200 <= low <= high <= 599:
            raise Bad(f"{text} is not within 200-599", "the lower status comes first", self.what)
        return text

    def text(self, value: Any) -> Any:
        return value[0] if len(value) == 1 else list(value)

    def describe(self) -> str:
        return "status, range, or list of them"


class HealthCheck(Section, frozen=True, kw_only=True):
    """Asks each endpoint from time to time; one that fails gets no requests until it is well again."""

    noun: ClassVar[str] = "health_check"

    type: Annotated[
        str,
        Key(
            WordKind("http", "tcp", "grpc"),
            "`http`: GET over HTTP/1.1, the status decides. `tcp`: a connection opens. `grpc`: "
            "`grpc.health.v1.Health/Check` answers SERVING; it needs the extra `meshcore[mesh]`. With the cluster's `tls`, all of "
            "them ask over it (`tcp` for a handshake), unless at a `port` of their own.",
            "http: a server that accepts connections may still be unable to answer.",
        ),
    ] = "http"
    path: Annotated[str, Key(PathKind(), "Path of an http check.", "/: every server has it.")] = "/"
    host: Annotated[
        str | None,
        Key(HostKind(port=True), "Host of an http check, `:authority` of a grpc one.", "The endpoint's address."),
    ] = None
    expect: Annotated[
        str | int | Sequence[str | int],
        Key(StatusesKind(), "Statuses of an http check that pass.", "200-399: a redirect is an answer, an error is not."),
    ] = ("200-399",)
    service: Annotated[
        str,
        Key(
            TextKind("a service's name", r"[\x21-\x7e]*", empty=True),
            "Service that a grpc check asks about.",
            "Empty: the server as a whole.",
        ),
    ] = ""
    port: Annotated[
        int,
        Key(IntKind(1, 65_535, zero="the endpoint's"), "Port to ask at.", "The endpoint's: what serves is what is asked."),
    ] = 0
    interval: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1d"),
            "From one check to the next, up to a tenth more or less, so that proxies do not ask in step.",
            "5s: a dead endpoint is out after 15s; its breaker is quicker where there is traffic.",
        ),
    ] = Duration("5s")
    timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "10m"),
            "For the whole check, connecting included. One longer than interval delays the next.",
            "1s: a server that needs longer for this is not well.",
        ),
    ] = Duration("1s")
    rise: Annotated[
        int, Key(IntKind(1, 1000), "Checks in a row that must pass before it gets requests again.", "2: one may be luck.")
    ] = 2
    fall: Annotated[
        int,
        Key(
            IntKind(1, 1000),
            "Checks in a row that must fail before it gets none. A new endpoint counts as well until then.",
            "3: a lost packet or a pause is no outage.",
        ),
    ] = 3

    def rules(self) -> Iterator[Bad]:
        for key, unset, types in (
            ("path", "/", ("http",)),
            ("expect", ("200-399",), ("http",)),
            ("host", None, ("http", "grpc")),
            ("service", "", ("grpc",)),
        ):
            if self.type not in types and getattr(self, key) != unset:
                yield Bad(f"a {self.type} check has none", f"set type: {types[0]}, or leave it out", path=(key,))
