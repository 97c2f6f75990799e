"""Steps of the cases on prefaces, frames and stream states. Most are a few octets behind the greeting."""

from __future__ import annotations

import struct

from tests.conformance.http2.talk import Steps, Talk, get, post
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import continuation, data, frame, goaway, headers, ping, priority, push_promise, rst_stream, settings, window_update
from tests.scenario.h2_hpack import request, stateless

BLOCK = stateless(request(path="/case"))
CUT = len(BLOCK) // 2

# Sent behind preface and SETTINGS.
BEHIND_GREETING: dict[str, bytes] = {
    "H2-OK-GET": get(),
    "H2-FRAME-16M": frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, b"", length=0xFFFFFF),
    "H2-UNKNOWN-TYPE": frame(0xEE, 0xFF, 0, b"whatever") + post() + frame(0xEE, 0, 1, b"") + data(1, b"hello", end_stream=True),
    "H2-EVEN-SID": get(2),
    "H2-SID-DECREASE": get(5) + get(3),
    "H2-SID0-HEADERS": get(0),
    "H2-SID0-DATA": data(0, b"x"),
    "H2-DATA-IDLE": data(1, b"x"),
    "H2-RST-IDLE": rst_stream(1),
    "H2-WU-IDLE": window_update(1, 1),
    "H2-CONT-ALONE": continuation(1, BLOCK),
    "H2-CONT-SID": headers(1, BLOCK[:CUT], end_headers=False) + continuation(3, BLOCK[CUT:]),
    "H2-HEADERS-INTERLEAVE": headers(1, BLOCK[:CUT], end_headers=False) + get(3),
    "H2-HEADERS-HALFCLOSED": get(1, "/hold") + get(1, "/hold"),
    "H2-PAD-OVER": post() + frame(h2.DATA, h2.PADDED, 1, bytes((6,)) + b"hello"),
    "H2-PRIO-SELF": priority(1, 1) + get(),
    "H2-HDR-PRIO-SHORT": frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM | h2.PRIORITY_FLAG, 1, b"\0\0\0\3"),
    "H2-RST-LEN": post() + frame(h2.RST_STREAM, 0, 1, b"\0\0\0"),
    "H2-WU-LEN": post() + frame(h2.WINDOW_UPDATE, 0, 1, b"\0\0\1"),
    "H2-PING-LEN": frame(h2.PING, 0, 0, b"7octets"),
    "H2-PING-SID": frame(h2.PING, 0, 1, b"8 octets"),
    "H2-SETTINGS-LEN": frame(h2.SETTINGS, 0, 0, b"\0\3\0\0\0"),
    "H2-SETTINGS-ACK-PAYLOAD": frame(h2.SETTINGS, h2.ACK, 0, b"\0\3\0\0\0\1"),
    "H2-SETTINGS-SID": frame(h2.SETTINGS, 0, 1, b""),
    "H2-GOAWAY-SID": frame(h2.GOAWAY, 0, 1, bytes(8)),
    "H2-PUSH-CLIENT": push_promise(1, 2, BLOCK),
    "H2-PREFACE-TWICE": h2.PREFACE + settings(),
    "H2-PREFACE-H1-AFTER": b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "H2-DATA-BIG": post() + data(1, bytes(16385), end_stream=True),
    "H2-HEADERS-BIG": get(extra=[("x-big", "b" * 16384)]),
    "H2-DATA-MAX": post() + data(1, bytes(16384), end_stream=True),
    "H2-RESERVED-BIT": frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1 | 1 << 31, BLOCK),
    "H2-UNDEFINED-FLAGS": frame(h2.PING, 0xFE, 0, b"8 octets") + frame(h2.HEADERS, 0xD2 | h2.END_HEADERS | h2.END_STREAM, 1, BLOCK),
    "H2-UNKNOWN-IN-BLOCK": headers(1, BLOCK[:CUT], end_headers=False) + frame(0xEE, 0, 1, b"x") + continuation(1, BLOCK[CUT:]),
    "H2-SID-JUMP": get(1) + get(1001),
    "H2-DATA-HALFCLOSED": get(1, "/hold") + data(1, b"x"),
    "H2-DATA-AFTER-RST": post() + rst_stream(1) + data(1, b"x"),
    "H2-HEADERS-AFTER-RST": post() + rst_stream(1) + get(1),
    "H2-CONT-AFTER-RST": post() + rst_stream(1) + continuation(1, BLOCK),
    "H2-PRIO-IDLE": priority(7, 0),
    "H2-PRIO-LEN": post() + frame(h2.PRIORITY, 0, 1, bytes(4)),
    "H2-PRIO-SID0": priority(0, 1),
    "H2-HDR-PRIO-SELF": headers(1, BLOCK, depends_on=1),
    "H2-HDR-PRIO-OK": headers(1, BLOCK, depends_on=0),
    "H2-HDR-PAD-OVER": frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM | h2.PADDED, 1, bytes((len(BLOCK) + 1,)) + BLOCK),
    "H2-HDR-PAD-PRIO-OVER": frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM | h2.PADDED | h2.PRIORITY_FLAG, 1, bytes((3, 0, 0, 0, 0, 15))),
    "H2-PAD-OK": headers(1, stateless(request("POST", "/case")), end_stream=False, padding=7) + data(1, b"hello", padding=255, end_stream=True),
    "H2-PAD-EMPTY": post() + data(1, b"", padding=255) + data(1, b"hello", end_stream=True),
    "H2-PAD-NO-LENGTH": post() + frame(h2.DATA, h2.PADDED, 1, b""),
    "H2-SETTINGS-PUSH-2": settings({h2.ENABLE_PUSH: 2}),
    "H2-SETTINGS-WIN-2G": settings({h2.INITIAL_WINDOW_SIZE: 1 << 31}),
    "H2-SETTINGS-MFS-SMALL": settings({h2.MAX_FRAME_SIZE: 16383}),
    "H2-SETTINGS-MFS-BIG": settings({h2.MAX_FRAME_SIZE: 1 << 24}),
    "H2-SETTINGS-UNKNOWN": settings({0xFFFF: 0xFFFFFFFF}),
    "H2-SETTINGS-TWICE-SAME": settings([(h2.INITIAL_WINDOW_SIZE, 0), (h2.INITIAL_WINDOW_SIZE, 65535)]),
    "H2-SETTINGS-EMPTY": settings(),
    "H2-SETTINGS-ACK-UNASKED": settings(ack=True) * 2,
    "H2-PING-ACK-UNASKED": ping(ack=True),
    "H2-PING-ECHO": ping(b"\0\xff\r\n\x80\x01ab"),
    "H2-GOAWAY-SHORT": frame(h2.GOAWAY, 0, 0, bytes(7)),
    "H2-RST-SID0": rst_stream(0),
    "H2-CONT-SID0": headers(1, BLOCK[:CUT], end_headers=False) + continuation(0, BLOCK[CUT:]),
    "H2-CONT-AFTER-END": post() + continuation(1, BLOCK),
    "H2-CONT-AFTER-DATA": headers(1, BLOCK[:CUT], end_headers=False, end_stream=False) + data(1, b"x") + continuation(1, BLOCK[CUT:]),
    "H2-PING-IN-BLOCK": headers(1, BLOCK[:CUT], end_headers=False) + ping() + continuation(1, BLOCK[CUT:]),
    "H2-CONT-OK": headers(1, BLOCK[:9], end_headers=False) + continuation(1, BLOCK[9:10], end_headers=False)
        + continuation(1, BLOCK[10:20], end_headers=False) + continuation(1, b"", end_headers=False) + continuation(1, BLOCK[20:]),
    "H2-CONT-ALL": headers(1, b"", end_headers=False) + continuation(1, BLOCK),
    "H2-HEADERS-EMPTY": headers(1, b""),
}

# Sent without a greeting of ours.
FROM_THE_START: dict[str, bytes] = {
    "H2-PREFACE-NO-SETTINGS": h2.PREFACE + get(),
    "H2-PREFACE-PING-FIRST": h2.PREFACE + ping(),
}

# Behind a whole exchange on stream 1.
BEHIND_AN_EXCHANGE: dict[str, bytes] = {
    "H2-SID-REUSE": get(1),
    "H2-DATA-CLOSED": data(1, b"x"),
    "H2-WU-CLOSED": window_update(1, 1),
    "H2-RST-CLOSED": rst_stream(1),
    "H2-PRIO-CLOSED": priority(1, 0),
}

# A block stays open, or the stream of octets is lost: no sentinel can follow.
NOTHING_FOLLOWS = {"H2-FRAME-16M", "H2-PREFACE-TWICE", "H2-PREFACE-H1-AFTER"}

STEPS: dict[str, Steps] = {}


def _behind_greeting(octets: bytes, case_id: str) -> Steps:
    def steps(t: Talk) -> None:
        t.sentinel_due = case_id not in NOTHING_FOLLOWS
        t.send(octets)

    return steps


def _from_the_start(octets: bytes, case_id: str) -> Steps:
    def steps(t: Talk) -> None:
        t.sentinel_due = case_id not in NOTHING_FOLLOWS
        t.raw(octets)

    return steps


def _behind_an_exchange(octets: bytes) -> Steps:
    def steps(t: Talk) -> None:
        t.send(get())
        t.wait_response()
        # The exchange itself must have been good: what is judged is only what comes after it.
        t.facts["first"] = getattr(t.message(1), "status", None)
        t.ignored_streams.add(1)
        t.send(octets)

    return steps


STEPS.update({case_id: _behind_greeting(octets, case_id) for case_id, octets in BEHIND_GREETING.items()})
STEPS.update({case_id: _from_the_start(octets, case_id) for case_id, octets in FROM_THE_START.items()})
STEPS.update({case_id: _behind_an_exchange(octets) for case_id, octets in BEHIND_AN_EXCHANGE.items()})


def steps(case_id: str):
    def register(function: Steps) -> Steps:
        STEPS[case_id] = function
        return function

    return register


@steps("H2-PREFACE-SLOW")
def preface_comes_octet_by_octet(t: Talk) -> None:
    t.sentinel_due = False
    for octet in h2.PREFACE[:20]:
        t.client.send(bytes((octet,)))
        if not t._until(lambda: t.client.end, 0.1):
            continue
        return


@steps("H2-PREFACE-H1")
def http1_on_the_same_port(t: Talk) -> None:
    t.sentinel_due = False
    t.raw(b"GET /case HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    t.read_plain()


@steps("H2-PREFACE-BAD")
def preface_with_another_end(t: Talk) -> None:
    t.sentinel_due = False
    t.raw(h2.PREFACE[:-6] + b"XX\r\n\r\n" + settings())
    t.read_plain()


@steps("H2-GOAWAY-CLIENT")
def goaway_of_the_client(t: Talk) -> None:
    t.sentinel_due = False
    t.send(get(), goaway(0))
    t.wait_response()


@steps("H2-FRAME-CUT")
def frame_is_cut_by_fin(t: Talk) -> None:
    t.sentinel_due = False
    t.send(get()[:20])
    t.ignored_streams.add(1)
    t.client.half_close()


@steps("H2-UNKNOWN-FLOOD")
def unknown_frames_without_end(t: Talk) -> None:
    t.send()
    unknown = frame(0xEE, 0, 0, bytes(16384))
    t.flood(unknown for _ in range(20_000))


@steps("H2-SETTINGS-32K")
def settings_with_2730_entries(t: Talk) -> None:
    t.send(frame(h2.SETTINGS, 0, 0, b"".join(struct.pack(">HI", 0x1000 + n, n) for n in range(2730))))



