"""Many streams on one connection: side by side, given up by either end, held back by windows, limited in number."""

import os
import threading
from pathlib import Path

import pytest

from tests.conformance.backend import Backend
from tests.proxy.test_bodies import pattern
from tests.scenario import h2_frames as h2
from tests.scenario import h2_hpack
from tests.scenario.h2_peers import StreamReset
from tests.scenario.h2_proxies import STREAM_WINDOW, STREAMS_LIMIT
from tests.scenario.servers import PeerGone, eventually, response


def resident_bytes() -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) << 10


class Held:
    """An HTTP/1 upstream that answers each request when its path is let go."""

    def __init__(self):
        self.gates: dict[str, threading.Event] = {}
        self.gone: list[str] = []
        self.arrived = threading.Condition()
        self.running: set[str] = set()
        self.most = 0

    def __call__(self, connection):
        while True:
            request = connection.read_request()
            gate = threading.Event()
            with self.arrived:
                self.gates[request.path] = gate
                self.running.add(request.path)
                self.most = max(self.most, len(self.running))
                self.arrived.notify_all()
            connection.sock.settimeout(0.02)
            while not gate.is_set():
                try:
                    if not connection.receive():
                        with self.arrived:
                            self.running.discard(request.path)
                            self.gone.append(request.path)
                        return
                except TimeoutError:
                    continue
            connection.sock.settimeout(10)
            with self.arrived:
                self.running.discard(request.path)
            connection.send(response(body=request.path.encode()))

    def wait(self, n: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.gates) >= n, 10), f"{len(self.gates)} of {n} requests came"


# --- side by side ------------------------------------------------------------------------------------------------------


def test_hundred_streams_each_get_their_own_answer(raw_server, h2_client, h2_proxy):
    def naming(connection):
        while True:
            connection.send(response(body=connection.read_request().target * 50))

    client = h2_client(h2_proxy(to=raw_server(naming)))
    streams = {client.request("GET", f"/{n}"): n for n in range(100)}
    for stream, n in streams.items():
        assert client.response(stream).text == f"/{n}" * 50


def test_hundred_streams_to_an_http2_upstream_each_get_their_own_answer(h2_server, h2_client, h2_proxy):
    def naming(connection):
        while True:
            request = connection.next_request()
            connection.respond(request.stream, body=request.path.encode() * 50)

    server = h2_server(naming)
    client = h2_client(h2_proxy(to=server, upstream="http2"))
    for round_ in range(5):
        streams = {client.request("POST", f"/{round_}/{n}", body=b"b" * n): n for n in range(100)}
        for stream, n in streams.items():
            assert client.response(stream).text == f"/{round_}/{n}" * 50
    assert server.accepted <= 3, "the streams of one worker share a connection"


def test_slow_answer_does_not_hold_up_the_others(raw_server, h2_client, h2_proxy):
    held = Held()
    client = h2_client(h2_proxy(to=raw_server(held)))
    slow, quick = client.request("GET", "/slow"), client.request("GET", "/quick")
    held.wait(2)
    held.gates["/quick"].set()
    assert client.response(quick).text == "/quick"
    held.gates["/slow"].set()
    assert client.response(slow).text == "/slow"


def test_uploads_side_by_side_arrive_each_in_its_own_order(raw_server, h2_client, h2_proxy):
    server = raw_server()
    client = h2_client(h2_proxy(to=server))
    streams = [client.open("POST", f"/{n}", end_stream=False) for n in range(10)]
    for part in range(50):
        for n, stream in enumerate(streams):
            client.send_body(stream, bytes((n, part)) * 500, end_stream=part == 49)
    for n, stream in enumerate(streams):
        assert client.response(stream).status == 200
    for request in server.requests:
        n = int(request.path[1:])
        assert bytes(request.body) == b"".join(bytes((n, part)) * 500 for part in range(50))


def test_thousand_exchanges_fit_on_one_connection(link):
    client, server, *_ = link()
    for n in range(1000):
        assert client.get(f"/{n}").status == 200
    assert server.accepted == 1


# --- giving up ---------------------------------------------------------------------------------------------------------


def test_cancel_of_the_client_reaches_the_upstream(raw_server, h2_client, h2_proxy):
    held = Held()
    client = h2_client(h2_proxy(to=raw_server(held)))
    stream = client.request("GET", "/given-up")
    held.wait(1)
    client.reset_stream(stream, h2.CANCEL)
    eventually(lambda: held.gone == ["/given-up"])
    other = client.request("GET", "/other")
    held.wait(2)
    held.gates["/other"].set()
    assert client.response(other).text == "/other"


def test_cancel_of_the_client_resets_the_upstream_stream_and_nothing_else(h2_server, h2_client, h2_proxy, only_meshcore):
    codes = []

    def script(connection):
        given_up = connection.next_request()
        codes.append(connection.wait_reset(given_up.stream))
        while True:
            connection.answer()

    server = h2_server(script)
    client = h2_client(h2_proxy(to=server, upstream="http2"))
    stream = client.request("GET", "/given-up")
    server.wait_requests(1)
    client.reset_stream(stream, h2.CANCEL)
    assert client.get("/other").status == 200
    assert (codes, server.accepted) == ([h2.CANCEL], 1)


def test_client_that_vanishes_cancels_its_streams(h2_server, h2_client, h2_proxy):
    codes = []

    def script(connection):
        for request in [connection.next_request() for _ in range(3)]:
            codes.append(connection.wait_reset(request.stream))

    server = h2_server(script)
    client = h2_client(h2_proxy(to=server, upstream="http2"))
    for n in range(3):
        client.request("GET", f"/{n}")
    server.wait_requests(3)
    client.close()
    eventually(lambda: len(codes) == 3)


@pytest.mark.parametrize("code", [h2.INTERNAL_ERROR, h2.CANCEL, h2.ENHANCE_YOUR_CALM])
def test_reset_of_the_upstream_within_a_body_resets_the_stream(h2_server, h2_client, h2_proxy, code):
    def script(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200")])
        connection.send_data(request.stream, b"half")
        connection.reset_stream(request.stream, code)
        while True:
            connection.answer()

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2"))
    stream = client.request("GET", "/")
    assert client.reset_code(stream) in (code, h2.INTERNAL_ERROR)
    assert client.get().status == 200


def test_reset_of_the_upstream_is_counted(h2_server, h2_client, h2_proxy, only_meshcore):
    def script(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200")])
        connection.reset_stream(request.stream, h2.INTERNAL_ERROR)
        connection.read_to_end()

    running = h2_proxy(to=h2_server(script), upstream="http2")
    client = h2_client(running)
    client.reset_code(client.request("GET", "/"))
    eventually(lambda: running.stats().cluster("backend").endpoints[0].failures == 1)


def test_cancel_of_the_client_is_no_failure_of_the_endpoint(h2_server, h2_client, h2_proxy, only_meshcore):
    def script(connection):
        connection.wait_reset(connection.next_request().stream)
        connection.read_to_end()

    server = h2_server(script)
    running = h2_proxy(to=server, upstream="http2")
    client = h2_client(running)
    stream = client.request("GET", "/")
    server.wait_requests(1)
    client.reset_stream(stream)
    eventually(lambda: running.stats().cluster("backend").endpoints[0].active == 0)
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_http1_client_sees_a_reset_of_the_upstream_as_a_cut_body(raw_client, h2_server, h2_proxy, only_meshcore):
    def script(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200")])
        connection.send_data(request.stream, b"half")
        connection.reset_stream(request.stream, h2.INTERNAL_ERROR)
        connection.read_to_end()

    client = raw_client(h2_proxy(to=h2_server(script), upstream="http2"))
    client.request("GET", "/")
    client.read_to_end()
    assert client.truncated


def test_http1_upstream_that_breaks_off_resets_the_stream_and_keeps_the_others(raw_server, h2_client, h2_proxy):
    held = threading.Event()

    def script(connection):
        request = connection.read_request()
        if request.path == "/cut":
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return
        assert held.wait(10)
        connection.send(response(body=b"whole"))

    client = h2_client(h2_proxy(to=raw_server(script)))
    whole, cut = client.request("GET", "/whole"), client.request("GET", "/cut")
    with pytest.raises(StreamReset):
        client.response(cut)
    held.set()
    assert client.response(whole).text == "whole"


# --- backpressure ------------------------------------------------------------------------------------------------------


def test_window_that_never_opens_stops_the_upstream_not_the_memory(raw_server, h2_client, h2_proxy, only_meshcore):
    body = pattern(32 << 20)
    sent = []

    def script(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        try:
            for at in range(0, len(body), 65536):
                connection.sock.sendall(body[at : at + 65536])
                sent.append(at)
        except OSError:
            raise PeerGone from None

    client = h2_client(h2_proxy(to=raw_server(script)))
    client.opens_windows = False
    before = resident_bytes()
    stream = client.request("GET", "/")
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.body_bytes == h2.DEFAULT_WINDOW_BYTES, "a full window")
    assert len(sent) * 65536 < 16 << 20, "kernel buffers hold some, nobody holds all"
    assert resident_bytes() - before < 16 << 20
    client.opens_windows = True
    client.open_window(stream, 1 << 20)
    assert bytes(client.response(stream).body) == body


def test_slow_reader_upstream_stops_the_client_not_the_memory(raw_server, h2_client, h2_proxy, only_meshcore):
    release = threading.Event()

    def script(connection):
        connection.read_head()
        assert release.wait(20)
        connection.answer()

    server = raw_server(script)
    client = h2_client(h2_proxy(to=server))
    body = pattern(24 << 20)
    before = resident_bytes()
    stream = client.open("POST", "/", end_stream=False)
    client.queue_body(stream, body)
    quiet = 0
    while quiet < 10:
        quiet = 0 if client.pump(0.02) else quiet + 1
    assert stream in client._bodies, "all of it was taken while nobody read"
    assert resident_bytes() - before < 16 << 20
    release.set()
    assert client.response(stream, 30).status == 200
    assert server.requests[0].body_bytes == len(body)


def test_stalled_stream_leaves_the_others_room(raw_server, h2_client, h2_proxy):
    def script(connection):
        while True:
            request = connection.read_request()
            connection.send(response(body=pattern(4 << 20) if request.path == "/large" else b"small"))

    client = h2_client(h2_proxy(to=raw_server(script)), settings={h2.INITIAL_WINDOW_SIZE: 20_000})
    client.opens_windows = False
    stalled = client.request("GET", "/large")
    client.wait(lambda: (m := client.reader.streams.get(stalled)) and m.body_bytes == 20_000, "a full window")
    for _ in range(20):
        assert client.get("/small").text == "small"


def test_body_arrives_through_windows_of_one_octet(raw_server, h2_client, h2_proxy):
    client = h2_client(h2_proxy(to=raw_server(response(body=pattern(300)))), settings={h2.INITIAL_WINDOW_SIZE: 1})
    assert bytes(client.get().body) == pattern(300)


def test_upload_obeys_the_windows_of_the_upstream(h2_server, h2_client, h2_proxy):
    """The strict reader of the server counts: a frame beyond a window is trouble."""
    server = h2_server(settings={h2.INITIAL_WINDOW_SIZE: 1000})
    assert h2_client(h2_proxy(to=server, upstream="http2")).post("/", pattern(500_000)).status == 200
    assert bytes(server.requests[0].body) == pattern(500_000)


# --- limits ------------------------------------------------------------------------------------------------------------


def test_streams_limit_is_announced_and_holds(raw_server, h2_client, h2_proxy, only_meshcore):
    held = Held()
    client = h2_client(h2_proxy(to=raw_server(held), limits={STREAMS_LIMIT: 5}))
    client.acknowledges = False  # once it has agreed to the limit, one stream more is an error of the connection
    client.wait(lambda: client.reader.got_settings, "SETTINGS")
    assert client.reader.settings[h2.MAX_CONCURRENT_STREAMS] == 5
    streams = [client.request("GET", f"/{n}") for n in range(6)]
    assert client.reset_code(streams[5]) == h2.REFUSED_STREAM
    held.wait(5)
    for n, stream in enumerate(streams[:5]):
        held.gates[f"/{n}"].set()
        assert client.response(stream).status == 200
    assert (held.most, "/5" in held.gates) == (5, False)


def test_place_of_a_stream_is_free_again_when_it_ends(raw_server, h2_client, h2_proxy, only_meshcore):
    client = h2_client(h2_proxy(to=raw_server(), limits={STREAMS_LIMIT: 1}))
    for n in range(50):
        assert client.get(f"/{n}").status == 200


def test_reset_streams_never_have_more_in_flight_upstream_than_the_limit(h2_client, h2_proxy, only_meshcore):
    """CVE-2023-44487: the place is free when the upstream has been given up, not when the client says so."""
    backend = Backend()
    try:
        client = h2_client(h2_proxy(to=backend.address, limits={STREAMS_LIMIT: 10}))
        for _ in range(150):
            client.reset_stream(client.request("GET", "/hold"))
            client.pump(0)
        eventually(lambda: (backend.settle(), backend.in_flight == 0)[1])
        assert backend.most_in_flight <= 10
    finally:
        backend.stop()


def test_stream_window_is_announced(raw_server, h2_client, h2_proxy, only_meshcore):
    client = h2_client(h2_proxy(to=raw_server(), limits={STREAM_WINDOW: "128KiB"}))
    client.wait(lambda: client.reader.got_settings, "SETTINGS")
    assert client.reader.settings[h2.INITIAL_WINDOW_SIZE] == 128 << 10


@pytest.mark.parametrize("fields, status", [
    ([(f"x-{n}", "v" * 1000) for n in range(80)], 431),
    ([("x-long", "v" * 30_000)], 431),
    ([(f"x-{n}", "v") for n in range(300)], 431),
])
def test_oversized_list_of_fields_is_refused_on_its_stream_alone(raw_server, h2_client, h2_proxy, only_meshcore, fields, status):
    server = raw_server()
    client = h2_client(h2_proxy(to=server))
    assert client.get("/", fields).status == status
    assert client.get("/").status == 200
    assert len(server.requests) == 1


@pytest.mark.parametrize("name, value, is_huffman", [("x-long", "v" * 70_000, False), ("x-long", "v" * 70_000, True), ("v" * 70_000, "x", True)])
def test_field_longer_than_any_buffer_is_too_much_and_no_error_of_its_coding(name, value, is_huffman, raw_server, h2_client, h2_proxy, only_meshcore):
    # Before the connection, which ends when nothing comes: the encoder takes a second, and some more of a loaded machine.
    block = h2_hpack.stateless(h2_hpack.request()) + h2_hpack.literal(name, value, huffman=is_huffman)
    client = h2_client(h2_proxy(to=raw_server()))
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    client.send(h2.headers(1, parts[0], end_headers=False)
                + b"".join(h2.continuation(1, part, end_headers=part is parts[-1]) for part in parts[1:]))
    assert int.from_bytes(client.expect(h2.GOAWAY).payload[4:8], "big") == h2.ENHANCE_YOUR_CALM


def test_what_was_on_its_way_to_streams_reset_before_many_others_harms_nobody(raw_server, h2_client, h2_proxy, only_meshcore):
    """Of resets only the last ones were remembered: DATA for an earlier one ended the connection and all its streams."""
    client = h2_client(h2_proxy(to=raw_server()))
    ids = range(1, 121, 2)
    for stream in ids:
        client.reader.expect(stream, "POST")
    bad = h2_hpack.stateless(h2_hpack.request(extra=[("connection", "close")]))
    client.send(b"".join(h2.headers(stream, bad, end_stream=False) for stream in ids))
    client.send(b"".join(h2.data(stream, b"on its way") for stream in ids))
    client.send(b"".join(h2.headers(stream, h2_hpack.stateless([("x-trailer", "late")])) for stream in ids))
    client.next_stream = 121
    assert client.get("/").status == 200


def test_list_of_fields_in_continuations_arrives(link):
    client, server, *_ = link()
    fields = [(f"x-{n}", "v" * 250) for n in range(80)]
    assert client.get("/", fields).status == 200
    assert [server.requests[0].get(name) for name, _ in fields] == ["v" * 250] * 80


def test_upload_that_stalls_is_refused_on_its_stream_alone(raw_server, h2_client, h2_proxy, only_meshcore):
    def script(connection):
        connection.read_head()
        connection.wait_closed()

    client = h2_client(h2_proxy(to=raw_server(script), limits={"body_min_rate_grace": "200ms"}))
    stream = client.open("POST", "/", {"content-length": "100"}, end_stream=False)
    client.send_data(stream, b"ten octets")
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended, "an end of the stalled upload")
    ended = client.reader.streams[stream]
    assert ended.status == 408 or ended.reset is not None
    client.send(h2.ping())
    assert client.expect(h2.PING, flags=h2.ACK), "the connection lives on"


def test_stream_that_nobody_serves_in_time_ends_alone(raw_server, h2_client, h2_proxy, only_meshcore):
    def script(connection):
        while True:
            request = connection.read_request()
            if request.path == "/half":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                connection.wait_closed()
                return
            connection.send(response())

    client = h2_client(h2_proxy(to=raw_server(script), route={"idle_timeout": "200ms"}))
    stream = client.request("GET", "/half")
    client.reset_code(stream)
    assert client.get("/whole").status == 200
