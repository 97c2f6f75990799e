"""Steps of the cases on flow control: windows overrun, never opened, opened octet by octet."""

from __future__ import annotations

from tests.conformance.http2.talk import Steps, Talk, get, post
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import data, settings, window_update

STEPS: dict[str, Steps] = {}
MOST = h2.LARGEST_WINDOW_BYTES


def steps(*case_ids: str):
    def register(function: Steps) -> Steps:
        STEPS.update(dict.fromkeys(case_ids, function))
        return function

    return register


@steps("H2-WU-OVERFLOW-STREAM")
def stream_window_overflows_after_end_stream(t: Talk) -> None:
    t.send(get(1, "/hold"), window_update(1, MOST), window_update(1, MOST))


@steps("H2-WU0-STREAM")
def stream_window_opens_by_nothing(t: Talk) -> None:
    t.send(get(1, "/hold"), window_update(1, 0))


@steps("H2-WU0-CONN")
def connection_window_opens_by_nothing(t: Talk) -> None:
    t.send(window_update(0, 0))


@steps("H2-WU-OVERFLOW-CONN")
def connection_window_overflows(t: Talk) -> None:
    t.send(window_update(0, MOST), window_update(0, MOST))


@steps("H2-WIN-SETTINGS-OVERFLOW")
def settings_overflow_a_stream_window(t: Talk) -> None:
    t.send(get(1, "/hold"), window_update(1, MOST - 65535), settings({h2.INITIAL_WINDOW_SIZE: 65536}))


@steps("H2-ZERO-WINDOW-STALL")
def hundred_streams_whose_windows_never_open(t: Talk) -> None:
    t.greet({h2.INITIAL_WINDOW_SIZE: 0})
    t.sentinel_due = False
    t.wait_settings()
    streams = range(1, 2 * min(100, t.client.reader.settings.get(h2.MAX_CONCURRENT_STREAMS, 100)), 2)
    t.send(*(get(stream, "/large") for stream in streams))
    t.facts["sees all"] = True
    over = lambda: all((m := t.message(s)) is not None and m.ended for s in streams)  # noqa: E731
    if t._until(lambda: t.ended or over(), 12):
        t.facts["outcome"] = "timeout"


@steps("H2-WINDOW-1")
def window_of_one_octet(t: Talk) -> None:
    t.greet({h2.INITIAL_WINDOW_SIZE: 1})
    t.client.opens_windows = False
    t.send(get(1, "/large"))
    t.ignored_streams.add(1)
    for n in range(1, 501):
        if not t._until(lambda: t.ended or (m := t.message(1)) is not None and (m.ended or len(m.body) >= n)):
            return
        if t.ended:
            return
        t._tell_reader(frame := window_update(1, 1))
        t.client.send(frame)
    t.send(h2.rst_stream(1))
    t.facts["outcome"] = "bounded"


@steps("H2-WU-FLOOD")
def window_updates_of_one(t: Talk) -> None:
    t.send(get())
    t.wait_response()
    t.flood(window_update(0, 1) for _ in range(100_000))


@steps("H2-CONN-WINDOW-HOG")
def unread_upload_leaves_the_others_their_windows(t: Talk) -> None:
    t.send(post(1, "/stuck"))
    t.wait_settings()
    t.ignored_streams.add(1)
    t.client.queue_body(1, bytes(24 << 20))
    t.wait_quiet()
    t.client._bodies.clear()
    t.send(post(3), get(5))
    t.client.queue_body(3, b"others")
    t.wait_response(3)
    t.wait_response(5)
    if all((m := t.message(s)) is not None and m.status == 200 for s in (3, 5)):
        t.facts["outcome"] = "others progress"


@steps("H2-WIN-NEGATIVE")
def window_below_zero(t: Talk) -> None:
    t.greet({h2.INITIAL_WINDOW_SIZE: 3})
    t.client.opens_windows = False
    t.send(get(1, "/large"))
    t.ignored_streams.add(1)
    body = lambda: len(m.body) if (m := t.message(1)) is not None else 0  # noqa: E731
    t._until(lambda: body() == 3 or t.ended)
    t.send(settings({h2.INITIAL_WINDOW_SIZE: 2}), window_update(1, 2))
    t._until(lambda: body() == 4 or t.ended)
    t.wait_quiet()
    t.facts["body"] = body()
    if body() == 4:
        t.facts["outcome"] = "bounded"
    t.send(h2.rst_stream(1))


@steps("H2-WIN-OPENED-LATE")
def settings_open_a_window(t: Talk) -> None:
    t.greet({h2.INITIAL_WINDOW_SIZE: 0})
    t.client.opens_windows = False
    t.send(get(1, "/large"))
    t.ignored_streams.add(1)
    t._until(lambda: (m := t.message(1)) is not None and m.fields or t.ended)
    t.send(settings({h2.INITIAL_WINDOW_SIZE: 1}))
    t._until(lambda: (m := t.message(1)) is not None and len(m.body) == 1 or t.ended)
    t.wait_quiet()
    if (m := t.message(1)) is not None and len(m.body) == 1:
        t.facts["outcome"] = "bounded"
    t.send(h2.rst_stream(1), settings({h2.INITIAL_WINDOW_SIZE: 65535}))


@steps("H2-OVER-STREAM-WINDOW")
def more_than_the_window(t: Talk) -> None:
    t.send(post(1, "/stuck"))
    t.wait_settings()
    t.client.queue_body(1, bytes(24 << 20), end_stream=False)
    t.wait_quiet(0.3)
    t.client._bodies.clear()
    over = t.client.stream_window(1) + 1
    t.facts["windows"] = (t.client.stream_window(1), t.client.window)
    t.send(*(data(1, bytes(min(16384, over - at))) for at in range(0, over, 16384)))


@steps("H2-PAD-COUNTS")
def padding_is_given_back(t: Talk) -> None:
    t.send(post())
    t.wait_settings()
    frame = data(1, b"x", padding=255)
    for _ in range(6000):
        if not t._until(lambda: t.ended or min(t.client.window, t.client.stream_window(1)) >= 257) or t.ended:
            return
        t.client.window -= 257
        t.client._windows[1] -= 257
        t.client.send(frame)
    t.send(data(1, b"", end_stream=True))
    t.facts["body"] = b"x" * 6000


@steps("H2-REFUSED-BODY-WINDOW")
def windows_of_refused_uploads_are_given_back(t: Talk) -> None:
    t.send()
    t.wait_settings()
    size = 16384
    room = lambda: t.ended or t.client.window >= size  # noqa: E731
    for stream in range(1, 161, 2):
        t.ignored_streams.add(stream)
        if not t._until(room) or t.ended:
            return
        t.client.window -= size
        t._tell_reader(octets := post(stream, extra=[("expect", "nonsense")]) + data(stream, bytes(size), end_stream=True))
        t.client.send(octets)
    if not t._until(room) or t.ended:
        return
    t._tell_reader(octets := post(161))
    t.client.send(octets)
    t.client.send_body(161, bytes(65535))
