"""What a tap sees, which exchanges it asks for, how a line of it reads. The engine's side: see tap_sessions.

The line is Conduit's (`req`, `rsp`, `end`, joined by `id=WORKER:STREAM`; `open`, `end` of TCP), so that what people grep for keeps working.
Everything in a line that came off the wire is escaped: a request can not reach the terminal of the one who watches.
"""

from __future__ import annotations

import asyncio
import collections
import difflib
import ipaddress
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import msgspec

from meshcore.tap_bell import Bell

Kind = Literal["req", "rsp", "open", "end"]

GRPC_STATUS_NAMES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
    "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip

DEFAULT_MAX_RPS = 1.0
# Above it a terminal shows nothing readable and the ring only drops.
HIGHEST_MAX_RPS = 100_000.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_STATUS = re.compile(r"[1-5]xx|([1-5]\d\d)(?:-([1-5]\d\d))?")
_LABELS = r"[a-z0-9.-]{1,253}"
_IDENTITY = re.compile(rf"(?:spiffe://{_LABELS}/)?ns/{_LABELS}/sa/{_LABELS}|ns/{_LABELS}")
_LATENCY_UNITS_US = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000}
MAX_LATENCY_US = 3_600_000_000
# A body in a line is for a look at its shape; and this is 22 places in the ring.
MAX_BODY_BYTES = 16_384


class TapFilterError(ValueError):
    """A tap filter that can not be meant: names the flag, what it got and what it takes."""


class TapEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One moment of one exchange: the request, the response head or the end; of a TCP connection, that it is open, or its end.

    worker and stream name the exchange (unique while the proxy lives). path has no query.
    tls: the client came over TLS; src_id: who it proved to be by its certificate. *_labels: what is known of both sides.
    latency_us: request head to response head. duration_us: response head to its end, not the total.
    A TCP connection has scheme tcp, and as authority the name its ClientHello asked for, where routes go by it.
    request_bytes: of TCP, what went to the endpoint.
    direction: whether the proxy stood with the server ("in") or with the client ("out"), where it knows.
    dropped: events lost by this session so far because its reader was too slow.
    """

    kind: Kind
    worker: int = 0
    stream: int = 0
    time_unix_ns: int = 0
    src: str = ""
    dst: str = ""
    tls: bool = False
    src_id: str = ""
    method: str = ""
    scheme: str = ""
    authority: str = ""
    path: str = ""
    status: int = 0
    latency_us: int = 0
    duration_us: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    reason: str = ""
    route: str = ""
    cluster: str = ""
    grpc_status: int | None = None
    reset_error: int | None = None
    direction: str = ""
    src_labels: dict[str, str] = {}
    dst_labels: dict[str, str] = {}
    fields: tuple[tuple[str, str], ...] = ()
    """Of the head, in `req` and `rsp` of who asked for them; secrets are hidden, see meshcore.redaction."""
    request_body: str = ""
    """In `end`, as far as the bound that was asked for."""
    response_body: str = ""
    dropped: int = 0


class TapFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}):
    """The exchanges a tap session asks for: all given conditions must hold. Build it with `tap_filter`.

    authority: exact, ports count, case does not. path: a prefix of the path without its query.
    to: a cluster's name, or the endpoint's IP, IP:PORT or unix:PATH. from_: the client's IP, IP:PORT or CIDR, or who its
    certificate says it is: spiffe://DOMAIN/ns/NAME/sa/ACCOUNT, ns/NAME/sa/ACCOUNT, or ns/NAME for anyone of a namespace.
    status: 404, 5xx or 500-504; min_latency_us: request head to response head; reason: why the proxy answered itself. Who
    asks for one of them sees an exchange once that is known. headers, body: capture them; body: bytes of each body.
    to_labels: the endpoint carries these.
    max_rps: requests per second shown; the response and the end of a shown request always follow.
    """

    method: str = ""
    scheme: str = ""
    authority: str = ""
    path: str = ""
    to: str = ""
    from_: str = ""
    route: str = ""
    status: str = ""
    min_latency_us: int = 0
    reason: str = ""
    headers: bool = False
    body: int = 0
    to_labels: dict[str, str] = {}
    max_rps: float = DEFAULT_MAX_RPS

    @property
    def statuses(self) -> tuple[int, int]:
        """First and last status asked for; (0, 0): any."""
        if not self.status:
            return 0, 0
        low, _, high = self.status.partition("-")
        if low.endswith("xx"):
            return int(low[0]) * 100, int(low[0]) * 100 + 99
        return int(low), int(high or low)

    @property
    def from_is_identity(self) -> bool:
        return self.from_.startswith(("spiffe://", "ns/"))

    @property
    def to_is_address(self) -> bool:
        return _is_address(self.to)

    @property
    def to_port(self) -> int:
        """The port of an address in `to`, 0 when it has none."""
        return _split_address(self.to)[1]

    @property
    def from_is_ipv4(self) -> bool:
        """Whether `from_` is one IPv4 address: no port, no network."""
        return self.from_.replace(".", "").isdigit()

    def matches(self, request: TapEvent) -> bool:
        """Whether a `req` or `open` event is asked for. The rate is not its business."""
        return (
            (not self.method or request.method.upper() == self.method)
            and (not self.scheme or (request.scheme or "http") == self.scheme)
            and (not self.authority or request.authority.lower() == self.authority)
            and request.path.startswith(self.path)
            and (not self.route or request.route == self.route)
            and (
                not self.to
                or (_address_within(request.dst, self.to) if self.to_is_address else request.cluster == self.to)
            )
            and (not self.from_ or self._is_from(request))
            and all(request.dst_labels.get(name) == value for name, value in self.to_labels.items())
        )

    def _is_from(self, request: TapEvent) -> bool:
        if not self.from_is_identity:
            return _address_within(request.src, self.from_)
        needle, is_end = identity_needle(self.from_)
        return request.src_id.endswith(needle) if is_end else needle in request.src_id

    def to_query(self) -> dict[str, str]:
        """The conditions that are set, as text: what `tap_filter` takes back."""
        return {name: str(value) for name, value in msgspec.to_builtins(self).items() if name != "to_labels"}


def identity_needle(text: str) -> tuple[str, bool]:
    """What an identity asked for as `from` holds, and whether it ends with it."""
    if text.startswith("spiffe://"):
        return text, True
    return (f"/{text}", True) if "/sa/" in text else (f"/{text}/sa/", False)


def tap_filter(**conditions: Any) -> TapFilter:
    """Check and normalise conditions given as text (flags, a query string) or values.

    Names are TapFilter's; `from` may be spelled `from_`; None and "" mean not asked. Raises TapFilterError.
    """
    given = {name.rstrip("_").replace("-", "_"): value for name, value in conditions.items() if value not in (None, "")}
    names = [{"from_": "from"}.get(name, name) for name in TapFilter.__struct_fields__] + ["min_latency"]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise TapFilterError(f"unknown tap filter '{unknown[0]}'; filters are: {', '.join(names)}")
    return TapFilter(
        method=_method(str(given.get("method", ""))),
        scheme=_scheme(str(given.get("scheme", ""))),
        authority=_authority(str(given.get("authority", ""))),
        path=_path(str(given.get("path", ""))),
        to=_destination(str(given.get("to", ""))),
        from_=_source(str(given.get("from", ""))),
        route=str(given.get("route", "")),
        status=_status(str(given.get("status", ""))),
        min_latency_us=_latency(given.get("min_latency", given.get("min_latency_us", 0))),
        reason=_reason(str(given.get("reason", ""))),
        headers=_is_yes(given.get("headers", False)),
        body=_body(given.get("body", 0)),
        to_labels=dict(given.get("to_labels", {})),
        max_rps=_max_rps(given.get("max_rps", DEFAULT_MAX_RPS)),
    )


def format_line(event: TapEvent, *, wide: bool = False) -> str:
    """One line without its newline. `wide` appends the labels that are set, sorted by name."""
    flow = f"{event.kind} id={event.worker}:{event.stream} src={_value(event.src)} dst={_value(event.dst)}"
    if event.kind == "req":
        line = f"{flow} :method={escape(event.method)} :authority={escape(event.authority)} :path={escape(event.path)}"
    elif event.kind == "rsp":
        line = f"{flow} :status={event.status} latency={event.latency_us}µs"
    elif event.kind == "open":
        line = f"{flow} :authority={escape(event.authority)}" if event.authority else flow
    else:
        if event.grpc_status is not None:
            flow = f"{flow} grpc-status={grpc_status_name(event.grpc_status)}"
        elif event.reset_error is not None:
            flow = f"{flow} reset-error={event.reset_error}"
        sent = f" request-length={event.request_bytes}B" if event.scheme == "tcp" else ""
        line = f"{flow} duration={event.duration_us}µs{sent} response-length={event.response_bytes}B"
    if wide:
        labels = {"cluster": event.cluster, "reason": event.reason, "route": event.route, "src_id": event.src_id}
        labels["tls"] = "true" if event.tls else ""
        labels["proxy"] = event.direction
        line += "".join(f" {name}={escape(text)}" for name, text in sorted(labels.items()) if text)
        for side, known in (("src", event.src_labels), ("dst", event.dst_labels)):
            line += "".join(f" {side}_{escape(name)}={escape(text)}" for name, text in sorted(known.items()) if text)
    return line


def captured_lines(event: TapEvent) -> list[str]:
    """What was captured, a line each under the event's own: `>` came from the client, `<` from the endpoint."""
    arrow = ">" if event.kind == "req" else "<"
    lines = [f"    {arrow} {escape(name)}: {_readable(value)}" for name, value in event.fields]
    for arrow, body in ((">", event.request_body), ("<", event.response_body)):
        lines += [f"    {arrow} | {_readable(part)}" for part in body.splitlines()]
    return lines


def _readable(text: str) -> str:
    """As `escape`, but blanks stay: nothing splits these lines."""
    return " ".join(escape(word) for word in text.split(" "))


def format_json(event: TapEvent) -> str:
    """One JSON object on one line, without the fields that are empty. What a terminal would obey is a \\u escape."""
    # msgspec leaves C1 controls and bidirectional marks as they are; a terminal would obey both.
    text = msgspec.json.encode(event).decode()
    return "".join(c if c.isprintable() else "".join(f"\\u{unit:04x}" for unit in _utf16_units(c)) for c in text)


def grpc_status_name(status: int) -> str:
    return GRPC_STATUS_NAMES[status] if 0 <= status < len(GRPC_STATUS_NAMES) else f"Code({status})"


def escape(text: str) -> str:
    """Text off the wire, safe for a terminal and for splitting a line at blanks.

    Controls (C0, DEL, C1), direction marks, lone surrogates and blanks become \\xNN or \\uNNNN, a backslash doubles.
    """
    if text.isascii() and text.isprintable() and " " not in text and "\\" not in text:
        return text
    return "".join(_escape_character(c) for c in text)


def _escape_character(c: str) -> str:
    code = ord(c)
    if c == "\\":
        return "\\\\"
    if c.isprintable() and c != " ":
        return c
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _utf16_units(c: str) -> tuple[int, ...]:
    code = ord(c)
    return (code,) if code <= 0xFFFF else (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF))


def _value(text: str) -> str:
    return escape(text) or "-"


# --- conditions -----------------------------------------------------------------------------------------------------


def _method(text: str) -> str:
    if text and not _TOKEN.fullmatch(text):
        raise TapFilterError(f"--method: {text!r} is not a method; expected a token such as GET")
    return text.upper()


def _scheme(text: str) -> str:
    if text.lower() not in ("", "http", "https", "tcp"):
        raise TapFilterError(f"--scheme: got {text!r}; expected http, https or tcp")
    return text.lower()


def _authority(text: str) -> str:
    if any(c.isspace() or not c.isprintable() or c in "/?#@" for c in text):
        raise TapFilterError(f"--authority: {text!r} is not an authority; expected HOST or HOST:PORT")
    return text.lower()


def _path(text: str) -> str:
    if text and not text.startswith("/") and text != "*":
        raise TapFilterError(f"--path: {text!r} can match nothing; a path prefix starts with '/'")
    if "?" in text or "#" in text:
        raise TapFilterError(f"--path: {text!r} holds a query; only the path is seen by a tap")
    return text


def _max_rps(value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise TapFilterError(f"--max-rps: got {value!r}; expected a number of requests per second") from None
    if not math.isfinite(rate) or not 0 < rate <= HIGHEST_MAX_RPS:
        raise TapFilterError(f"--max-rps: got {value!r}; expected more than 0 and at most {HIGHEST_MAX_RPS:.0f}")
    return rate


def _status(text: str) -> str:
    text = text.lower()
    match = _STATUS.fullmatch(text)
    if text and (not match or int(match[2] or 999) < int(match[1] or 0)):
        raise TapFilterError(f"--status: got {text!r}; expected a status such as 404, a class such as 5xx, or 500-504")
    return text


def _latency(value: Any) -> int:
    """Microseconds; text has a unit."""
    if isinstance(value, int):
        number = value
    else:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|µs|ms|s)|(\d+)", str(value))
        if not match:
            raise TapFilterError(f"--min-latency: got {value!r}; expected a duration such as 250us, 100ms or 1.5s")
        number = int(float(match[1]) * _LATENCY_UNITS_US[match[2]]) if match[1] else int(match[3])
    if not 0 <= number <= MAX_LATENCY_US:
        raise TapFilterError(f"--min-latency: got {value!r}; expected at most an hour")
    return number


def _reason(text: str) -> str:
    from meshcore._fastpath import reasons

    known = [name for name, *_ in reasons()]
    if text and text not in known:
        near = difflib.get_close_matches(text, known, 1)
        raise TapFilterError(
            f"--reason: no reason {text!r}" + (f"; did you mean {near[0]}?" if near else "; docs/reasons.md has them all")
        )
    return text


def _is_yes(value: Any) -> bool:
    if str(value).lower() not in ("true", "false", "1", "0"):
        raise TapFilterError(f"--headers: got {value!r}; expected true or false")
    return str(value).lower() in ("true", "1")


def _body(value: Any) -> int:
    number = int(value) if str(value).isascii() and str(value).isdigit() else -1
    if not 0 <= number <= MAX_BODY_BYTES:
        raise TapFilterError(f"--body: got {value!r}; expected a number of bytes, at most {MAX_BODY_BYTES}")
    return number


def _destination(text: str) -> str:
    if not text or _NAME.fullmatch(text) and not _is_address(text):
        return text
    if _is_address(text) and "/" not in text.removeprefix("unix:"):
        return _normal_address(text)
    if text.startswith("unix:/"):
        return text
    raise TapFilterError(f"--to: got {text!r}; expected a cluster's name, IP, IP:PORT or unix:PATH")


def _source(text: str) -> str:
    if _IDENTITY.fullmatch(text):
        return text
    if text and not _is_address(text):
        raise TapFilterError(
            f"--from: got {text!r}; expected IP, IP:PORT, CIDR, ns/NAME, ns/NAME/sa/ACCOUNT or spiffe://…/ns/NAME/sa/ACCOUNT"
        )
    return _normal_address(text) if text else ""


def _split_address(text: str) -> tuple[str, int]:
    """Host without brackets and port (0 when none). The host may be anything."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isascii() and port.isdigit() else 0


def _is_address(text: str) -> bool:
    if text.startswith("unix:/"):
        return True
    host, port = _split_address(text)
    try:
        ipaddress.ip_network(host, strict=False)
    except ValueError:
        return False
    # Whatever is left after host and port (a port out of range, a stray bracket) makes it no address.
    return port <= 65535 and (text in (host, f"[{host}]") or port > 0)


def _normal_address(text: str) -> str:
    if text.startswith("unix:"):
        return text
    host, port = _split_address(text)
    network = ipaddress.ip_network(host, strict=False)
    host = str(network.network_address) if network.num_addresses == 1 else str(network)
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address_within(address: str, wanted: str) -> bool:
    if wanted.startswith("unix:"):
        return address == wanted
    host, port = _split_address(address)
    wanted_host, wanted_port = _split_address(wanted)
    if wanted_port and wanted_port != port:
        return False
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(wanted_host, strict=False)
    except ValueError:
        return False


# --- a session ------------------------------------------------------------------------------------------------------


class TapSession:
    """The events of one tap, in batches or one by one, until closed from any thread. Also an async iterator.

    drain: hands over what waits in the rings and never blocks. close: gives the session back to the engine, once.
    bell: rings for the first event after `arm` said yes; it says no when there is an event already.
    dropped: events lost so far because this reader, or another, was too slow.
    """

    # Who was woken waits so long for what comes with it: the response and the end of a request, and the next ones. A line stays
    # far below the 100 ms in which it is to be seen, the rings hold far more than comes meanwhile, and a reader wakes at most fifty times a second.
    GATHER_SECONDS = 0.02

    def __init__(
        self, drain: Callable[[], list[TapEvent]], close: Callable[[], None], hidden: Callable[[], int] = lambda: 0,
        limit: Callable[[float], None] = lambda max_rps: None, bell: Bell | None = None, arm: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self.bell = bell or Bell()
        self.arm = arm
        self._drain = drain
        self._limit = limit
        self._count_hidden = hidden
        self._close = close
        self._closed = threading.Event()
        self._closing = threading.Lock()
        self._waiting: collections.deque[TapEvent] = collections.deque()
        self.dropped = 0

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def read(self, timeout_s: float | None = None) -> list[TapEvent]:
        """What has come, waiting for the first event. Empty: the time is over (None: never) or the session closed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            events = self.take()
            if events or self.closed:
                return events
            if not self.arm():
                continue
            if not self.bell.wait(None if deadline is None else deadline - time.monotonic()):
                return []
            self._closed.wait(self.GATHER_SECONDS)

    def close(self) -> None:
        with self._closing:
            if not self._closed.is_set():
                self._closed.set()
                self._close()
        self.bell.ring()

    @property
    def hidden(self) -> int:
        """Requests that matched and were above max_rps, so far."""
        return self._count_hidden()

    def limit(self, max_rps: float) -> None:
        """Another ceiling from now on."""
        with self._closing:
            if not self.closed:
                self._limit(max_rps)

    def take(self) -> list[TapEvent]:
        """What has come. Does not wait."""
        events = list(self._waiting)
        self._waiting.clear()
        with self._closing:
            if not self.closed:
                events += self._drain()
        if events:
            self.dropped = max(self.dropped, events[-1].dropped)
        return events

    def __iter__(self) -> Iterator[TapEvent]:
        return self

    def __next__(self) -> TapEvent:
        if not self._waiting:
            self._waiting.extend(self.read())
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def __aiter__(self) -> AsyncIterator[TapEvent]:
        return self

    async def __anext__(self) -> TapEvent:
        while not self._waiting:
            self._waiting.extend(self.take())
            if not self._waiting:
                if self.closed:
                    raise StopAsyncIteration
                if self.arm():
                    await self._rung()
                    await asyncio.sleep(self.GATHER_SECONDS)
        return self._waiting.popleft()

    async def _rung(self) -> None:
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.bell.fd, rung.set)
        try:
            await rung.wait()
        finally:
            loop.remove_reader(self.bell.fd)
        self.bell.hush()

    def __enter__(self) -> TapSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> TapSession:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TapSession({'closed' if self.closed else 'open'}, dropped={self.dropped})"
