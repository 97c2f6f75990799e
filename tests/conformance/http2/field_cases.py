"""Steps of the cases on what requests mean: pseudo fields, names, values, lengths, trailers. All over blocks without a table."""

from __future__ import annotations

from tests.conformance.http2.talk import Steps, Talk, post
from tests.scenario.h2_frames import data, headers
from tests.scenario.h2_hpack import request, stateless


def _with(*extra) -> list:
    return request(path="/case", extra=extra)


def _get(**changed) -> list:
    return request(**{"path": "/case", **changed})


# The fields of one request without a body.
FIELDS: dict[str, list] = {
    "H2-F-UPGRADE": _with(("upgrade", "h2c")),
    "H2-F-KEEPALIVE": _with(("keep-alive", "x")),
    "H2-F-NO-METHOD": _get()[1:],
    "H2-F-NO-PATH": _get(path=None),
    "H2-F-DUP-METHOD": [(":method", "GET"), *_get()],
    "H2-F-DUP-AUTH": [(":authority", "a.test"), *_get()],
    "H2-F-DUP-SCHEME": [(":scheme", "http"), *_get()],
    "H2-F-DUP-PATH": [(":path", "/other"), *_get()],
    "H2-F-STATUS-PSEUDO": [(":status", "200"), *_get()],
    "H2-F-NAME-SP": _with(("a b", "v")),
    "H2-F-VAL-CRLF": _with(("x-v", "a\r\nx: y")),
    "H2-F-VAL-LF": _with(("x-v", "a\nx: y")),
    "H2-F-VAL-WS": _with(("x-v", " a")),
    "H2-F-PATH-CRLF": _get(path="/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    "H2-F-PATH-FRAG": _get(path="/a#b"),
    "H2-F-PATH-ABS": _get(path="http://b/"),
    "H2-F-METHOD-SP": _get(method="GET / HTTP/1.1"),
    "H2-F-SCHEME-BAD": _get(scheme="http://localhost/?"),
    "H2-F-AUTH-USERINFO": _get(authority="u@a.test"),
    "H2-F-AUTH-CRLF": _get(authority="a\r\nx: y"),
    "H2-F-CONTENT-LEN-BAD": _with(("content-length", "+5")),
    "H2-NO-HOST": _get(authority=None),
    "H2-COOKIE-CRUMBS": _with(*[("cookie", f"c{n}={n}") for n in range(50)]),
    "H2-TE-TRAILERS": _with(("te", "trailers")),
    "H2-F-UPPER": _with(("X-Upper", "v")),
    "H2-F-CONNECTION": _with(("connection", "close")),
    "H2-F-PROXY-CONNECTION": _with(("proxy-connection", "keep-alive")),
    "H2-F-TE-ENCODING": _with(("transfer-encoding", "chunked")),
    "H2-F-TE-GZIP": _with(("te", "gzip")),
    "H2-F-TE-LIST": _with(("te", "trailers, gzip")),
    "H2-F-NO-SCHEME": _get(scheme=None),
    "H2-F-PSEUDO-LATE": [*_get(path=None), ("x-first", "1"), (":path", "/case")],
    "H2-F-PSEUDO-UNKNOWN": [(":custom", "x"), *_get()],
    "H2-F-PROTOCOL": [(":protocol", "websocket"), *_get()],
    "H2-F-METHOD-EMPTY": _get(method=""),
    "H2-F-METHOD-LF": _get(method="GET\n"),
    "H2-F-METHOD-TAB": _get(method="GET\t/"),
    "H2-F-PATH-EMPTY": _get(path=""),
    "H2-F-PATH-SP": _get(path="/a b"),
    "H2-F-PATH-TAB": _get(path="/a\tb"),
    "H2-F-PATH-NUL": _get(path="/a\0b"),
    "H2-F-PATH-HIGH": _get(path="/\xe9"),
    "H2-F-PATH-RELATIVE": _get(path="a/b"),
    "H2-F-PATH-STAR-GET": _get(path="*"),
    "H2-F-NAME-EMPTY": _with(("", "v")),
    "H2-F-NAME-COLON": _with(("x:y", "v")),
    "H2-F-NAME-CRLF": _with(("x\r\ny", "v")),
    "H2-F-NAME-COLON-VALUE": _with(("transfer-encoding: chunked\r\nx", "v")),
    "H2-F-NAME-NUL": _with(("x\0", "v")),
    "H2-F-NAME-HIGH": _with(("x-\xe9", "v")),
    "H2-F-NAME-DEL": _with(("x\x7f", "v")),
    "H2-F-VAL-NUL": _with(("x-v", "a\0b")),
    "H2-F-VAL-CR": _with(("x-v", "a\rb")),
    "H2-F-VAL-TRAIL-SP": _with(("x-v", "a ")),
    "H2-F-VAL-CTL": _with(("x-v", "a\1b")),
    "H2-F-AUTH-EMPTY": _get(authority=""),
    "H2-F-AUTH-SP": _get(authority="a b"),
    "H2-F-AUTH-COMMA": _get(authority="a.test,b.test"),
    "H2-F-AUTH-PATH": _get(authority="a.test/x"),
    "H2-F-AUTH-PORT": _get(authority="a.test:99999"),
    "H2-F-SCHEME-EMPTY": _get(scheme=""),
    "H2-F-SCHEME-CRLF": _get(scheme="http\r\nx: y"),
    "H2-F-CL-DIFFER": _with(("content-length", "5"), ("content-length", "6")),
    "H2-F-CL-HUGE": _with(("content-length", str(2**64 + 5))),
    "H2-F-HOST-DIFFERS": _with(("host", "b.test")),
    "H2-F-HOST-TWICE": request(path="/case", authority=None, extra=[("host", "a.test"), ("host", "b.test")]),
    "H2-CL-ES": request("POST", "/case", extra=[("content-length", "5")]),
    "H2-CL-0-ES": request("POST", "/case", extra=[("content-length", "0")]),
    "H2-HOST-ONLY": request(path="/case", authority=None, extra=[("host", "a.test")]),
    "H2-HOST-SAME": _with(("host", "a.test")),
    "H2-SCHEME-HTTPS": _get(scheme="https"),
    "H2-OPTIONS-STAR": _get(method="OPTIONS", path="*"),
    "H2-METHOD-UNKNOWN": _get(method="FROBNICATE"),
    "H2-METHOD-LOWER": _get(method="get"),
    "H2-SPOOF-FORWARDED": _with(("x-forwarded-for", "6.6.6.6"), ("l5d-dst-override", "evil.test"), ("x-forwarded-client-cert", "By=x")),
    "H2-FIELD-OBS": _with(("x-obs", "\x80\xe9\xff")),
    "H2-FIELD-EMPTY-VALUE": _with(("x-empty", "")),
}

# A head, then DATA: (fields, frames of stream 1 behind the head).
CL = lambda n: [("content-length", str(n))]  # noqa: E731
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"


def _trailers(*fields) -> bytes:
    return headers(1, stateless(fields))


WITH_BODY: dict[str, tuple[list, bytes]] = {
    "H2-F-CL-LIST": ([("content-length", "5, 5")], data(1, b"hello", end_stream=True)),
    "H2-CL-SHORT": (CL(10), data(1, b"hello", end_stream=True)),
    "H2-CL-LONG": (CL(5), data(1, b"hello" + SMUGGLED, end_stream=True)),
    "H2-CL-0-DATA": (CL(0), data(1, SMUGGLED, end_stream=True)),
    "H2-CL-SAME": (CL(5), data(1, b"hello", end_stream=True)),
    "H2-CL-TRAILERS-SHORT": (CL(10), data(1, b"hello") + _trailers(("x-checksum", "1"))),
    "H2-TRAILERS": ([], data(1, b"hello") + _trailers(("x-checksum", "1"))),
    "H2-TRAILERS-PSEUDO": ([], data(1, b"hello") + _trailers((":path", "/other"))),
    "H2-TRAILERS-NO-ES": ([], data(1, b"hello") + headers(1, stateless([("x-checksum", "1")]), end_stream=False)),
    "H2-TRAILERS-FRAMING": ([], data(1, b"hello") + _trailers(("content-length", "99"), ("host", "evil.test"), ("authorization", "x"))),
    "H2-TRAILERS-CRLF": ([], data(1, b"hello") + _trailers(("x-checksum", "1\r\n\r\nGET /smuggled HTTP/1.1"))),
    "H2-TRAILERS-UPPER": ([], data(1, b"hello") + _trailers(("X-Checksum", "1"))),
    "H2-POST": ([], data(1, b"hello", end_stream=True)),
    "H2-POST-MANY": ([], b"".join(data(1, b"m" * n) for n in (1, 16384, 255, 256, 16383, 7)) + data(1, b"", end_stream=True)),
    "H2-EXPECT-CONTINUE": ([("expect", "100-continue"), *CL(5)], data(1, b"hello", end_stream=True)),
}

BODIES = {"H2-CL-SAME": b"hello", "H2-TRAILERS": b"hello", "H2-TRAILERS-FRAMING": b"hello", "H2-POST": b"hello",
          "H2-POST-MANY": b"m" * 33286, "H2-EXPECT-CONTINUE": b"hello", "H2-F-CL-LIST": b"hello", "H2-GET-BODY": b"hello"}

STEPS: dict[str, Steps] = {}


def _fields(fields: list) -> Steps:
    return lambda t: t.send(headers(1, stateless(fields)))


def _with_body(extra: list, frames: bytes) -> Steps:
    return lambda t: t.send(post(extra=extra), frames)


STEPS.update({case_id: _fields(fields) for case_id, fields in FIELDS.items()})
STEPS.update({case_id: _with_body(*parts) for case_id, parts in WITH_BODY.items()})


def steps(case_id: str):
    def register(function: Steps) -> Steps:
        STEPS[case_id] = function
        return function

    return register


@steps("H2-GET-BODY")
def content_in_a_get(t: Talk) -> None:
    t.send(headers(1, stateless(_get()), end_stream=False), data(1, b"hello", end_stream=True))


@steps("H2-HEAD")
def head(t: Talk) -> None:
    t.method = "HEAD"
    t.send(headers(1, stateless(_get(method="HEAD"))))
    t.method = "GET"


def _connect(fields: list, *, end_stream: bool) -> Steps:
    def steps(t: Talk) -> None:
        t.method = "CONNECT"
        t.send(headers(1, stateless(fields), end_stream=end_stream))
        t.method = "GET"

    return steps


STEPS["H2-CONNECT"] = _connect([(":method", "CONNECT"), (":scheme", "http"), (":authority", "a.test:443"), (":path", "/")], end_stream=False)
STEPS["H2-CONNECT-NO-AUTH"] = _connect([(":method", "CONNECT")], end_stream=False)
STEPS["H2-CONNECT-PLAIN"] = _connect([(":method", "CONNECT"), (":authority", "a.test:443")], end_stream=False)
STEPS["H2-CONNECT-EXTENDED-OFF"] = _connect([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a.test"),
                                             (":path", "/chat"), ("sec-websocket-version", "13")], end_stream=False)
