"""What the upstream does to the proxy: scripts of one HTTP/2 server. The first request of a case meets them, later ones are answered."""

from __future__ import annotations

import random
from typing import Callable

from tests.conformance.http2.talk import pieces
from tests.scenario import clients, h2_frames as h2
from tests.scenario.h2_frames import continuation, data, goaway, headers, ping, push_promise, rst_stream, settings
from tests.scenario.h2_hpack import literal, request, stateless
from tests.scenario.h2_peers import H2ServerConnection
from tests.scenario.h2_wire import H2Message
from tests.scenario.servers import PeerGone

SEEN = (":status", "200"), ("x-seen", "upstream")
OK = stateless(SEEN)
BIG = [(f"x-{n}", "f" * 1000) for n in range(200)]

Script = Callable[["Upstream"], None]


class Upstream:
    """One connection of the proxy, as a script sees it."""

    def __init__(self, connection: H2ServerConnection, feeding: str, seed: str):
        self.connection = connection
        self.feeding = feeding
        self.rng = random.Random(seed)

    def greet(self, values=()) -> None:
        self.connection.greet(dict(values))

    def next(self, *, complete: bool = True) -> H2Message:
        return self.connection.next_request(complete=complete)

    def send(self, *frames: bytes) -> None:
        self.connection.send_pieces(pieces(b"".join(frames), self.feeding, self.rng),
                                    0 if self.feeding == "one-shot" else clients.PIECE_GAP_S)

    def until_gone(self) -> None:
        self.connection.read_to_end()

    def answer_rest(self) -> None:
        while True:
            good_answer(self.connection, self.next())


def good_answer(connection: H2ServerConnection, message: H2Message) -> None:
    head = list(SEEN)
    connection.respond(message.stream, 200, b"" if message.method == "HEAD" else b"seen", head[1:])


def _big_block(stream: int) -> bytes:
    block = OK + stateless(BIG)
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    return headers(stream, parts[0], end_stream=False, end_headers=False) + b"".join(
        continuation(stream, part, end_headers=part is parts[-1]) for part in parts[1:]) + data(stream, b"seen", end_stream=True)


def _whole(stream: int, extra=(), body: bytes = b"hello", status: str = "200") -> bytes:
    return headers(stream, stateless([(":status", status), ("x-seen", "upstream"), *extra]), end_stream=False) + data(stream, body, end_stream=True)


INTERIM = stateless([(":status", "103"), ("link", "</a>")])

# Octets in answer to the first request, given its stream. The connection stays open; what comes next on it is answered.
ANSWERS: dict[str, Callable[[int], bytes]] = {
    "H2-UP-OK": lambda s: headers(s, OK, end_stream=False) + data(s, b"hello") + headers(s, stateless([("x-checksum", "1")])),
    "H2-UP-PUSH": lambda s: push_promise(s, 2, stateless(request())) + _whole(s),
    "H2-UP-GOAWAY-SEEN": lambda s: goaway(s) + _whole(s),
    "H2-UP-RST-EARLY": lambda s: rst_stream(s, h2.INTERNAL_ERROR),
    "H2-UP-RST-MID": lambda s: headers(s, OK, end_stream=False) + data(s, b"half") + rst_stream(s, h2.INTERNAL_ERROR),
    "H2-UP-NO-STATUS": lambda s: headers(s, stateless([("x-seen", "1")])),
    "H2-UP-STATUS-TWICE": lambda s: headers(s, stateless([(":status", "200"), (":status", "200"), ("x-seen", "1")])),
    "H2-UP-STATUS-BAD": lambda s: _whole(s, status="20x"),
    "H2-UP-PATH": lambda s: headers(s, stateless([(":status", "200"), (":path", "/"), ("x-seen", "1")])),
    "H2-UP-UPPER": lambda s: _whole(s, [("X-Upper", "1")]),
    "H2-UP-CRLF": lambda s: _whole(s, [("x-v", "a\r\nset-cookie: stolen=1")]),
    "H2-UP-CONNECTION": lambda s: _whole(s, [("connection", "close")]),
    "H2-UP-TRANSFER-ENCODING": lambda s: _whole(s, [("transfer-encoding", "chunked")]),
    "H2-UP-101": lambda s: headers(s, stateless([(":status", "101")]), end_stream=False) + _whole(s),
    "H2-UP-CL-SHORT": lambda s: _whole(s, [("content-length", "10")]),
    "H2-UP-CL-LONG": lambda s: _whole(s, [("content-length", "5")], b"hellosurplus"),
    "H2-UP-DATA-FIRST": lambda s: data(s, b"early") + _whole(s),
    "H2-UP-1XX": lambda s: headers(s, INTERIM, end_stream=False) + _whole(s),
    "H2-UP-1XX-FLOOD": lambda s: headers(s, INTERIM, end_stream=False) * 10_000 + _whole(s),
    "H2-UP-1XX-ES": lambda s: headers(s, INTERIM, end_stream=True),
    "H2-UP-TRAILERS-PSEUDO": lambda s: headers(s, OK, end_stream=False) + data(s, b"hello") + headers(s, stateless([(":status", "200")])),
    "H2-UP-HPACK": lambda s: headers(s, OK + b"\x80"),
    "H2-UP-LIST-BIG": _big_block,
    "H2-UP-FRAME-BIG": lambda s: headers(s, OK, end_stream=False) + data(s, bytes(16385), end_stream=True),
    "H2-UP-EVEN": lambda s: headers(2, OK) + _whole(s),
    "H2-UP-SETTINGS-BAD": lambda s: settings({h2.INITIAL_WINDOW_SIZE: 1 << 31}) + _whole(s),
    "H2-UP-PING-FLOOD": lambda s: ping() * 10_000 + _whole(s),
    "H2-UP-OVER-WINDOW": lambda s: headers(s, OK, end_stream=False) + data(s, bytes(16384)) * 400,
}

# Methods other than GET, where it matters that nothing is idempotent.
METHODS = {"H2-UP-REFUSED": "POST", "H2-UP-RST-EARLY": "POST", "H2-UP-GOAWAY-UNSEEN": "POST", "H2-UP-WINDOW-0": "POST", "H2-UP-WINDOW-1": "POST",
           "H2-UP-RST-NO-ERROR": "POST", "H2-UP-EARLY-GOAWAY": "POST"}
BODIES = {"H2-UP-REFUSED": b"again", "H2-UP-GOAWAY-UNSEEN": b"again", "H2-UP-WINDOW-0": bytes(1 << 20), "H2-UP-WINDOW-1": b"w" * 300,
          "H2-UP-RST-NO-ERROR": bytes(1 << 20), "H2-UP-EARLY-GOAWAY": b"again", "H2-UP-RST-EARLY": b"once"}
# The client takes nothing of the body, so that only windows hold it back.
CLIENT_READS_NOTHING = {"H2-UP-OVER-WINDOW"}

SCRIPTS: dict[str, Script] = {}


def _answer(octets: Callable[[int], bytes]) -> Script:
    def script(up: Upstream) -> None:
        up.greet()
        request = up.next()
        up.send(octets(request.stream))
        up.answer_rest()

    return script


SCRIPTS.update({case_id: _answer(octets) for case_id, octets in ANSWERS.items()})


def script(case_id: str):
    def register(function: Script) -> Script:
        SCRIPTS[case_id] = function
        return function

    return register


@script("H2-UP-REFUSED")
def refused_stream(up: Upstream) -> None:
    up.greet()
    request = up.next(complete=False)
    up.connection.reset_stream(request.stream, h2.REFUSED_STREAM)
    up.answer_rest()


@script("H2-UP-GOAWAY-UNSEEN")
def goaway_below_the_request(up: Upstream) -> None:
    up.greet()
    up.next()
    up.send(goaway(0))
    up.until_gone()


@script("H2-UP-EARLY-GOAWAY")
def goaway_behind_the_preface(up: Upstream) -> None:
    up.greet()
    up.send(goaway(0))
    up.until_gone()


@script("H2-UP-RST-NO-ERROR")
def whole_answer_before_the_upload_is_over(up: Upstream) -> None:
    up.connection.opens_windows = False
    up.greet()
    request = up.next(complete=False)
    up.send(_whole(request.stream), rst_stream(request.stream, h2.NO_ERROR))
    up.connection.reader.receiver_sent_reset(request.stream)
    up.connection.opens_windows = True
    up.answer_rest()


@script("H2-UP-CLOSE-MID")
def closed_within_the_body(up: Upstream) -> None:
    up.greet()
    request = up.next()
    up.send(headers(request.stream, OK, end_stream=False), data(request.stream, b"half"))


@script("H2-UP-CONT-FLOOD")
def continuations_without_end(up: Upstream) -> None:
    up.greet()
    request = up.next()
    up.send(headers(request.stream, OK, end_stream=False, end_headers=False))
    filler = continuation(request.stream, literal("x-filler", "f" * 16360), end_headers=False)
    for _ in range(4000):
        up.connection.send(filler)
        if up.connection.end:
            raise PeerGone


@script("H2-UP-MAXSTREAMS-0")
def no_streams_at_all(up: Upstream) -> None:
    up.greet({h2.MAX_CONCURRENT_STREAMS: 0})
    while True:
        # Streams that were opened before our SETTINGS came are refused, as RFC 9113 5.1.2 has it.
        up.connection.reset_stream(up.next(complete=False).stream, h2.REFUSED_STREAM)


@script("H2-UP-WINDOW-0")
def window_that_never_opens(up: Upstream) -> None:
    up.connection.opens_windows = False
    up.greet({h2.INITIAL_WINDOW_SIZE: 0})
    up.next(complete=False)
    up.answer_rest()


@script("H2-UP-WINDOW-1")
def window_of_one_octet(up: Upstream) -> None:
    up.greet({h2.INITIAL_WINDOW_SIZE: 1})
    up.answer_rest()


@script("H2-UP-TABLE-0")
def no_table(up: Upstream) -> None:
    up.greet({h2.HEADER_TABLE_SIZE: 0})
    up.answer_rest()


@script("H2-UP-NOT-H2")
def http1_instead(up: Upstream) -> None:
    up.connection.pump(5)
    up.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


