"""The section `lookup` of a route: how a request's name is made, for routes whose clusters are told at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from .http_parts import TOKEN
from .section import Section
from .units import Duration, DurationKind, DurationLike
from .values import Bad, BoolKind, IntKind, Key, TextKind, WordKind

MAX_PATH_SEGMENTS = 32
NAME_KINDS = ("authority", "destination", "host", "method_and_host", "path", "header", "header_token", "constant")
TCP_NAME_KINDS = ("authority", "destination", "constant")


class FieldKind(TextKind):
    """The name of any field, lower-cased."""

    def __init__(self) -> None:
        super().__init__("a header name", TOKEN, most=256, hint="letters, digits and - _ . only, no colon and no spaces")

    def read(self, value: Any) -> str:
        return super().read(value).lower()


# A path as naming shows it: elements of letters, digits, _ : . # $ % - and escaped octets.
_PATH = TextKind("a path", r"(/([A-Za-z0-9_:.#$%-]|\\x[0-9a-fA-F]{2})+)+", most=512, hint="as in /svc/web")
_PREFIX = TextKind("a path", r"((/([A-Za-z0-9_:.#$%-]|\\x[0-9a-fA-F]{2})+)+)?", most=512, empty=True, hint="as in /svc")
_FIELD = FieldKind()
_DEFAULT_HEADERS = {"header": "l5d-name", "header_token": "host"}


class RouteLookup(Section, frozen=True, kw_only=True):
    """The name of a request, which whoever embeds the proxy binds to clusters at run time (`Proxy.on_lookup`, `Proxy.bind`)."""

    noun: ClassVar[str] = "lookup"

    by: Annotated[
        str,
        Key(
            WordKind(*NAME_KINDS),
            "What the name is made of. `authority`: `host:port`, of a request without one and of TCP the original "
            "destination. `destination`: the original destination `ip:port`. `host`: the host alone. `method_and_host`: "
            "`/1.1/GET/host`. `path`: the first segments. `header`: a field that holds a path. `header_token`: a field's "
            "value as one element. `constant`: `name`.",
            "authority: whom the client meant.",
        ),
    ] = "authority"
    prefix: Annotated[
        str | None,
        Key(_PREFIX, "A path put in front of the name.", "`/svc`; none before authority, destination and host."),
    ] = None
    segments: Annotated[
        int, Key(IntKind(1, MAX_PATH_SEGMENTS), "With `by: path`: how many of them.", "1: the first names the service.")
    ] = 1
    header: Annotated[
        str | None,
        Key(_FIELD, "Name of the field.", "l5d-name with `by: header`, host with `by: header_token`."),
    ] = None
    name: Annotated[str | None, Key(_PATH, "With `by: constant`: the name.")] = None
    overrides: Annotated[
        bool,
        Key(
            BoolKind(),
            "Take what the request says in `l5d-ctx-dtab` and `l5d-dtab` for a part of its name, where the listener has "
            "trust_mesh_headers.",
            "Off: whoever may send them routes as he likes.",
        ),
    ] = False
    timeout: Annotated[
        DurationLike,
        Key(
            DurationKind("1ms", "10m"),
            "Longest wait of a request for a name that is not known yet; then 504.",
            "10s: what Linkerd waits for a binding.",
        ),
    ] = Duration("10s")

    def rules(self) -> Iterator[Bad]:
        if (self.by == "constant") != (self.name is not None):
            if self.name is None:
                yield Bad("by: constant is the name that it is told", "set name: /path", path=("name",))
            else:
                yield Bad(f"by: {self.by} makes the name", "leave name out", path=("name",))
        if self.header is not None and self.by not in _DEFAULT_HEADERS:
            yield Bad("only header and header_token look at a field", "leave it out", path=("header",))

    @property
    def field(self) -> str:
        """The field to look at; "" when none is."""
        return self.header or _DEFAULT_HEADERS.get(self.by, "")

    @property
    def put_in_front(self) -> str:
        """prefix with its default resolved."""
        if self.prefix is not None:
            return self.prefix
        return "" if self.by in ("authority", "destination", "host") else "/svc"
