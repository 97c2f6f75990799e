"""Steps of the cases that cost the client little and the proxy much: resets, control frames, blocks without end, silence."""

from __future__ import annotations

import time
from typing import Iterator

from tests.conformance.http2.talk import Steps, Talk, get, post
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import continuation, data, frame, goaway, headers, ping, priority, rst_stream, settings, window_update
from tests.scenario.h2_hpack import literal, request, stateless

STEPS: dict[str, Steps] = {}


def steps(*case_ids: str):
    def register(function: Steps) -> Steps:
        STEPS.update(dict.fromkeys(case_ids, function))
        return function

    return register


def _streams(n: int = 10_000) -> range:
    return range(1, 2 * n, 2)


# --- resets ------------------------------------------------------------------------------------------------------------


@steps("H2-RAPID-RESET")
def opened_and_reset(t: Talk) -> None:
    t.send()
    t.ignored_streams.update(_streams())
    t.flood(get(s, "/hold") + rst_stream(s) for s in _streams())
    t.facts["upstream empties"] = True


@steps("H2-RAPID-RESET-100")
def opened_and_reset_by_the_hundred(t: Talk) -> None:
    t.send()
    t.ignored_streams.update(_streams())

    def batches() -> Iterator[bytes]:
        for first in range(1, 20_000, 198):
            batch = range(first, first + 198, 2)
            yield b"".join(get(s, "/hold") for s in batch) + b"".join(rst_stream(s) for s in batch)

    t.flood(batches())
    t.facts["upstream empties"] = True


@steps("H2-RAPID-RESET-SLOW")
def opened_and_reset_under_every_threshold(t: Talk) -> None:
    t.send()
    for stream in _streams(150):
        t.ignored_streams.add(stream)
        t.send(get(stream, "/hold"), rst_stream(stream))
        time.sleep(0.005)
        t.client.pump(0)
        if t.ended:
            return
    t.facts["upstream empties"] = True


# CVE-2025-8671, six primitives: a whole request, then what makes the server itself reset it.
MADE_YOU_RESET = {
    "H2-MYR-WU0": lambda s: window_update(s, 0),
    "H2-MYR-WU-OVERFLOW": lambda s: window_update(s, h2.LARGEST_WINDOW_BYTES) * 2,
    "H2-MYR-DATA": lambda s: data(s, b"x"),
    "H2-MYR-HEADERS": lambda s: get(s, "/hold"),
    "H2-MYR-PRIO-LEN": lambda s: frame(h2.PRIORITY, 0, s, bytes(4)),
    "H2-MYR-PRIO-SELF": lambda s: priority(s, s),
}


def _made_you_reset(primitive) -> Steps:
    def steps(t: Talk) -> None:
        t.send()
        t.ignored_streams.update(_streams())
        t.facts["limited"] = True
        t.flood(get(s, "/hold") + primitive(s) for s in _streams())

    return steps


STEPS.update({case_id: _made_you_reset(primitive) for case_id, primitive in MADE_YOU_RESET.items()})


@steps("H2-MALFORMED-FLOOD")
def malformed_requests(t: Talk) -> None:
    t.send()
    t.ignored_streams.update(_streams())
    t.flood(headers(s, stateless(request(extra=[("X-Upper", "1")]))) for s in _streams())


@steps("H2-REFUSED-FLOOD")
def streams_above_the_limit(t: Talk) -> None:
    t.send()
    t.ignored_streams.update(_streams())
    t.flood(get(s, "/hold") for s in _streams())
    t.facts["limited"] = True


@steps("H2-STREAM-LIMIT")
def one_stream_too_many(t: Talk) -> None:
    t.send()
    limit = t.wait_settings().get(h2.MAX_CONCURRENT_STREAMS, 100)
    t.facts["limited"] = True
    t.send(*(get(s, "/hold") for s in _streams(limit)))
    t.ignored_streams.update(_streams(limit))
    t.sentinel_due = False
    t.send(get(2 * limit + 1, "/hold"))


@steps("H2-STREAM-EXHAUST")
def last_stream_id(t: Talk) -> None:
    t.sentinel_due = False
    t.facts["goaway first"] = True
    t.send(get(2**31 - 1))
    t.wait_response(2**31 - 1)
    t._until(lambda: t.client.reader.goaway or t.client.end, 1)


@steps("H2-RST-CLOSED-FLOOD")
def resets_of_a_closed_stream(t: Talk) -> None:
    t.send(get())
    t.wait_response()
    t.ignored_streams.add(1)
    t.flood(rst_stream(1) for _ in range(100_000))


# --- control frames ----------------------------------------------------------------------------------------------------


@steps("H2-PING-FLOOD")
def pings_whose_answers_are_never_read(t: Talk) -> None:
    t.send()
    t.flood((ping() * 100 for _ in range(10_000)), read=False)


@steps("H2-PING-FLOOD-READ")
def pings(t: Talk) -> None:
    t.send()
    t.flood(ping() * 100 for _ in range(1000))


@steps("H2-SETTINGS-FLOOD")
def settings_whose_answers_are_never_read(t: Talk) -> None:
    t.send()
    t.flood((settings() * 100 for _ in range(10_000)), read=False)


@steps("H2-PRIORITY-FLOOD")
def priorities(t: Talk) -> None:
    t.send()
    t.flood(priority(1 + 2 * n, 0) for n in range(100_000))


@steps("H2-GOAWAY-FLOOD")
def goaways(t: Talk) -> None:
    t.send()
    t.sentinel_due = False
    t.flood(goaway(0) * 100 for _ in range(1000))
    t._until(lambda: t.client.end or t.client.reader.goaway, 0.5)
    if not t.ended:
        t.facts["outcome"] = "bounded"


@steps("H2-SETTINGS-TABLE-FLAP")
def table_size_to_and_fro(t: Talk) -> None:
    t.send(get())
    t.flood(settings({h2.HEADER_TABLE_SIZE: 4096 * (n % 2)}) for n in range(50_000))


@steps("H2-WIN-FLAP")
def initial_window_to_and_fro(t: Talk) -> None:
    t.greet({h2.INITIAL_WINDOW_SIZE: 0})
    limit = min(99, t.wait_settings().get(h2.MAX_CONCURRENT_STREAMS, 100) - 1)
    t.send(*(get(s, "/hold") for s in _streams(limit)))
    t.ignored_streams.update(_streams(limit))
    t.flood(settings({h2.INITIAL_WINDOW_SIZE: n % 2}) for n in range(10_000))


# --- blocks and bodies without end -------------------------------------------------------------------------------------


@steps("H2-CONT-FLOOD")
def continuations_of_16_kib(t: Talk) -> None:
    t.send(headers(1, stateless(request()), end_headers=False))
    t.block_open = True
    filler = continuation(1, literal("x-filler", "f" * 16360), end_headers=False)
    t.flood(filler for _ in range(4000))


@steps("H2-CONT-EMPTY-FLOOD")
def empty_continuations(t: Talk) -> None:
    t.send(headers(1, stateless(request()), end_headers=False))
    t.block_open = True
    t.flood(continuation(1, b"", end_headers=False) * 100 for _ in range(1000))


@steps("H2-CONT-SMALL-FLOOD")
def continuations_of_one_octet(t: Talk) -> None:
    t.send(headers(1, stateless(request()), end_headers=False))
    t.block_open = True
    filler = b"".join(continuation(1, bytes((octet,)), end_headers=False) for octet in literal("x-filler", "f" * 85))
    t.flood(filler for _ in range(100))


@steps("H2-EMPTY-DATA-FLOOD")
def empty_data(t: Talk) -> None:
    t.send(post())
    t.ignored_streams.add(1)
    t.flood(data(1) * 100 for _ in range(1000))


@steps("H2-EMPTY-PAD-FLOOD")
def data_of_padding_only(t: Talk) -> None:
    t.send(post())
    t.ignored_streams.add(1)
    for _ in range(20_000):
        if t.ended or not t._until(lambda: t.ended or min(t.client.window, t.client.stream_window(1)) >= 2):
            return
        t.client.window -= 2
        t.client._windows[1] -= 2
        t.client.send(data(1, b"", padding=1))


@steps("H2-EMPTY-NAMES")
def fields_without_names(t: Talk) -> None:
    t.send(headers(1, stateless(request() + [("", "")] * 2000)))


# --- silence -----------------------------------------------------------------------------------------------------------


@steps("H2-SLOW-BLOCK")
def block_that_never_ends(t: Talk) -> None:
    t.sentinel_due = False
    t.send(headers(1, stateless(request())[:10], end_headers=False))
    t.block_open = True
    t.ignored_streams.add(1)
    t._until(lambda: t.client.end, 8)


@steps("H2-IDLE")
def nothing_after_the_greeting(t: Talk) -> None:
    t.sentinel_due = False
    t.send()
    t._until(lambda: t.client.end, 8)


@steps("H2-PING-KEEPALIVE")
def pings_and_no_streams(t: Talk) -> None:
    t.sentinel_due = False
    t.send(get())
    t.wait_response()
    t.ignored_streams.add(1)
    for _ in range(40):
        t.client.send(ping())
        if t._until(lambda: t.client.end, 0.05):
            return
    t.facts["outcome"] = "bounded"
