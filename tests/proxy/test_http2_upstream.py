"""HTTP/2 to endpoints: what is sent again and what never is, how connections are chosen, filled, left."""

import threading

import pytest

from tests.scenario import h2_frames as h2
from tests.scenario.h2_links import answering
from tests.scenario.servers import eventually, refusing_port

pytestmark = pytest.mark.usefixtures("only_meshcore")

SURE = {"breaker": {"consecutive_failures": 0}, "retry_budget": {"ratio_percent": 100, "min_per_second": 100}}


def refusing(times: int, code: int = h2.REFUSED_STREAM):
    """Refuse so many streams, answer all others."""
    left = [times]

    def script(connection):
        while True:
            request = connection.next_request(complete=False)
            if left[0]:
                left[0] -= 1
                connection.reset_stream(request.stream, code)
            else:
                connection.wait(lambda: request.complete, "the rest of the request")  # noqa: B023
                connection.respond(request.stream)

    return script


# --- sending again -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_refused_stream_is_sent_again_whatever_the_method(h2_server, h2_client, h2_proxy, method):
    """RFC 9113 8.7: REFUSED_STREAM says that nothing was processed."""
    server = h2_server(refusing(1))
    running = h2_proxy(to=server, upstream="http2", cluster=SURE)
    client = h2_client(running)
    assert client.response(client.request(method, "/", body=None if method == "GET" else b"again")).status == 200
    assert [(r.method, bytes(r.body)) for r in server.requests][1] == (method, b"" if method == "GET" else b"again")
    assert running.stats().cluster("backend").retries == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_sessions_that_find_nobody_are_passed_by_without_attempts_or_budget(h2_server, h2_client, h2_proxy, method):
    server = h2_server(answering())
    dead = [f"127.0.0.1:{refusing_port()}" for _ in range(5)]
    poor = {"balancer": "random", "retry_budget": {"ratio_percent": 0, "min_per_second": 0}}
    running = h2_proxy(to=[*dead, server], upstream="http2", cluster=poor)
    client = h2_client(running)
    streams = [client.request(method, "/") for _ in range(20)]
    assert [client.response(stream).status for stream in streams] == [200] * 20
    assert running.stats().cluster("backend").budget_exhausted == 0


def test_refused_stream_of_an_http1_client_is_sent_again(h2_server, raw_client, h2_proxy):
    server = h2_server(refusing(1))
    assert raw_client(h2_proxy(to=server, upstream="http2", cluster=SURE)).post("/", b"again").status == 200
    assert len(server.requests) == 2


def test_endless_refusal_ends(h2_server, h2_client, h2_proxy):
    server = h2_server(refusing(1000))
    answer = h2_client(h2_proxy(to=server, upstream="http2", cluster=SURE)).get()
    assert answer.status in (502, 503)
    assert len(server.requests) < 20


@pytest.mark.parametrize("code", [h2.INTERNAL_ERROR, h2.CANCEL])
def test_post_that_may_have_been_processed_is_never_sent_again(h2_server, h2_client, h2_proxy, code):
    server = h2_server(refusing(1, code))
    client = h2_client(h2_proxy(to=server, upstream="http2", cluster=SURE))
    answer = client.post("/", b"once")
    assert (answer.status, answer.reason) == (502, "upstream_reset")
    assert len(server.requests) == 1


def test_stream_above_the_last_of_goaway_is_sent_again(h2_server, h2_client, h2_proxy):
    first = threading.Event()

    def script(connection):
        if not first.is_set():
            first.set()
            connection.next_request()
            connection.send(h2.goaway(0))
            connection.read_to_end()
        while True:
            connection.answer()

    server = h2_server(script)
    assert h2_client(h2_proxy(to=server, upstream="http2", cluster=SURE)).post("/", b"again").status == 200
    assert (len(server.requests), server.accepted) == (2, 2)


def test_streams_that_goaway_covers_are_finished_and_new_ones_go_elsewhere(h2_server, h2_client, h2_proxy):
    told, release = threading.Event(), threading.Event()

    def script(connection):
        if connection.number:
            while True:
                connection.answer(body=b"second connection")
        request = connection.next_request()
        connection.send(h2.goaway(request.stream))
        told.set()
        connection.patience_s = 0.05
        while not release.is_set():
            connection.pump(0.02)
        connection.respond(request.stream, body=b"first connection")
        connection.read_to_end(10)

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2"))
    stream = client.request("GET", "/first")
    assert told.wait(10)
    eventually(lambda: client.get("/later").text == "second connection")
    release.set()
    assert client.response(stream).text == "first connection"


def test_connection_that_broke_is_replaced(h2_server, h2_client, h2_proxy):
    def script(connection):
        connection.answer()

    server = h2_server(script)
    client = h2_client(h2_proxy(to=server, upstream="http2", cluster=SURE))
    for _ in range(20):
        assert client.get().status == 200
    assert len(server.requests) == 20


def test_refused_connection_is_tried_elsewhere(h2_server, h2_client, h2_proxy):
    server = h2_server()
    client = h2_client(h2_proxy(to=[f"127.0.0.1:{refusing_port()}", server], upstream="http2", cluster={**SURE, "balancer": "round_robin"}))
    for _ in range(6):
        assert client.post("/", b"body").status == 200
    assert len(server.requests) == 6


def test_endpoint_that_speaks_http1_only_is_a_502(raw_server, h2_client, h2_proxy):
    def http1_only(connection):
        connection.receive()
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    assert h2_client(h2_proxy(to=raw_server(http1_only), upstream="http2")).get().status == 502


# --- connections and their streams -------------------------------------------------------------------------------------


def test_concurrent_streams_share_a_connection(h2_server, h2_client, h2_proxy):
    def script(connection):
        requests = [connection.next_request() for _ in range(20)]
        for request in requests:
            connection.respond(request.stream)
        connection.read_to_end()

    server = h2_server(script)
    client = h2_client(h2_proxy(to=server, upstream="http2"))
    streams = [client.request("GET", f"/{n}") for n in range(20)]
    assert [client.response(stream).status for stream in streams] == [200] * 20
    assert server.accepted == 1


def test_streams_above_the_upstreams_limit_wait_or_take_another_connection(h2_server, h2_client, h2_proxy):
    """The strict reader of the server counts: one stream more than it allows is trouble."""
    server = h2_server(settings={h2.MAX_CONCURRENT_STREAMS: 3})
    client = h2_client(h2_proxy(to=server, upstream="http2"))
    assert client.get("/first").status == 200
    streams = [client.request("GET", f"/{n}") for n in range(60)]
    assert [client.response(stream).status for stream in streams] == [200] * 60


def test_no_stream_is_lost_to_a_limit_that_shrinks(h2_server, h2_client, h2_proxy):
    def script(connection):
        for n in range(10):
            connection.answer()
            connection.send_settings({h2.MAX_CONCURRENT_STREAMS: max(1, 5 - n)})
        while True:
            connection.answer()

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2", cluster=SURE))
    for n in range(10):
        streams = [client.request("GET", f"/{n}/{m}") for m in range(5)]
        assert [client.response(stream).status for stream in streams] == [200] * 5


def test_requests_that_wait_in_a_session_go_elsewhere_when_its_limit_falls_to_nothing(h2_server, h2_client, h2_proxy):
    """The first of them had a stream without an id: its head is written only where there is room for it."""
    closing = threading.Event()

    def shy(connection):
        connection.send_settings({h2.MAX_CONCURRENT_STREAMS: 0})
        closing.set()
        connection.read_to_end(20)

    shy_one, other = h2_server(shy, greets=False), h2_server()
    running = h2_proxy(to=[shy_one, other], upstream="http2", cluster={**SURE, "balancer": "round_robin", "queue_timeout": "30s"})
    client = h2_client(running)
    streams = [client.request("POST", f"/{n}", body=b"once") for n in range(20)]
    assert [client.response(stream).status for stream in streams] == [200] * 20
    assert closing.is_set() and len(other.requests) == 20 and not shy_one.requests


def test_limit_that_falls_to_nothing_ends_no_stream_that_has_begun(h2_server, h2_client, h2_proxy):
    def script(connection):
        request = connection.next_request()
        connection.send_settings({h2.MAX_CONCURRENT_STREAMS: 0})
        for _ in range(2):  # of the greeting, of this
            connection.expect(h2.SETTINGS, flags=h2.ACK)
        connection.respond(request.stream)
        connection.read_to_end(20)

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2", cluster={"queue_timeout": "100ms"}))
    first = client.get()
    second = client.get()
    assert (first.status, second.status, second.reason) == (200, 503, "queue_timeout")


def test_limit_of_nothing_queues_then_answers_503(h2_server, h2_client, h2_proxy):
    def script(connection):
        while True:
            connection.reset_stream(connection.next_request(complete=False).stream, h2.REFUSED_STREAM)

    server = h2_server(script, settings={h2.MAX_CONCURRENT_STREAMS: 0})
    client = h2_client(h2_proxy(to=server, upstream="http2", cluster={"queue_timeout": "100ms"}))
    client.get()  # the first may leave before the endpoint's SETTINGS come
    answer = client.get()
    assert (answer.status, answer.reason) == (503, "queue_timeout")


def test_idle_connection_is_closed_after_its_time(h2_server, h2_client, h2_proxy):
    ends = []

    def script(connection):
        connection.answer()
        ends.append(connection.read_to_end())

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2", cluster={"pool": {"idle_timeout": "100ms"}}))
    assert client.get().status == 200
    eventually(lambda: ends == ["fin"])


def test_stream_ids_run_out_gracefully_at_the_request_limit(h2_server, h2_client, h2_proxy):
    server = h2_server()
    client = h2_client(h2_proxy(to=server, upstream="http2", cluster={"pool": {"max_requests_per_connection": 5}}))
    for _ in range(20):
        assert client.get().status == 200
    assert server.accepted >= 4


def test_clients_of_both_versions_share_the_upstream_connection(h2_server, h2_client, raw_client, h2_proxy):
    server = h2_server()
    running = h2_proxy(to=server, upstream="http2")
    assert (h2_client(running).get("/2").status, raw_client(running).get("/1").status) == (200, 200)
    assert server.accepted == 1


def test_settings_of_the_upstream_are_acknowledged_and_pings_answered(h2_server, h2_client, h2_proxy):
    seen = []

    def script(connection):
        request = connection.next_request()
        connection.send(h2.ping(b"are you?"))
        seen.append(connection.expect(h2.PING, flags=h2.ACK).payload)
        seen.append(connection.expect(h2.SETTINGS, flags=h2.ACK).payload)
        connection.respond(request.stream)
        connection.read_to_end()

    assert h2_client(h2_proxy(to=h2_server(script), upstream="http2")).get().status == 200
    assert seen == [b"are you?", b""]


def test_push_is_switched_off(h2_server, h2_client, h2_proxy):
    server = h2_server()
    assert h2_client(h2_proxy(to=server, upstream="http2")).get().status == 200
    assert server.connections[0].reader.settings.get(h2.ENABLE_PUSH) == 0


def test_early_answer_ends_the_upload(h2_server, h2_client, h2_proxy):
    def script(connection):
        connection.opens_windows = False
        request = connection.next_request(complete=False)
        connection.respond(request.stream, 413, b"too much")
        connection.reset_stream(request.stream, h2.NO_ERROR)
        connection.opens_windows = True
        while True:
            connection.answer()

    client = h2_client(h2_proxy(to=h2_server(script), upstream="http2"))
    stream = client.open("POST", "/", end_stream=False)
    client.queue_body(stream, bytes(4 << 20))
    answer = client.response(stream)
    assert (answer.status, answer.text) == (413, "too much")
    client._bodies.clear()
    assert client.get().status == 200


def test_bodiless_answers_do_not_disturb_what_follows(link):
    client, *_ = link(answering(204, b""))
    assert [client.get().status for _ in range(5)] == [204] * 5
