"""Pipelined requests: every one answered, in order, each with its own body."""

import threading
import time

import pytest

from tests.scenario.clients import random_pieces, request_bytes
from tests.scenario.servers import response


def naming_the_path(request):
    return response(body=request.target)


def test_pipelined_requests_are_answered_in_order(raw_server, proxy, raw_client):
    server = raw_server(lambda c: [c.send(naming_the_path(c.read_request())) for _ in range(100)])
    client = raw_client(proxy(to=server))
    client.send(b"".join(request_bytes("GET", f"/{n}") for n in range(20)))
    assert [client.read_response().text for _ in range(20)] == [f"/{n}" for n in range(20)]


def test_pipelined_requests_cut_anywhere_are_answered_in_order(raw_server, proxy, raw_client, rng):
    server = raw_server(lambda c: [c.send(naming_the_path(c.read_request())) for _ in range(100)])
    client = raw_client(proxy(to=server))
    whole = b"".join(request_bytes("POST", f"/{n}", body=b"b" * rng.randrange(50)) for n in range(20))
    client.send_pieces(random_pieces(whole, rng, 200))
    assert [client.read_response().text for _ in range(20)] == [f"/{n}" for n in range(20)]


@pytest.mark.parametrize("late", range(1, 9))
def test_last_octets_of_a_chunked_body_may_come_with_the_next_request(raw_server, proxy, raw_client, late):
    """The end of a body, written for the upstream, once lay over the request that had come behind it."""
    server = raw_server(lambda c: [c.send(naming_the_path(c.read_request())) for _ in range(9)])
    client = raw_client(proxy(to=server))
    first = request_bytes("POST", "/first", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n0\r\n\r\n"
    client.send(first[:-late])
    time.sleep(0.02)
    client.send(first[-late:] + request_bytes("GET", "/second") + request_bytes("GET", "/third"))
    assert [client.read_response().text for _ in range(3)] == ["/first", "/second", "/third"]
    assert bytes(server.requests[0].body) == b"hello"


def test_slow_first_answer_is_not_overtaken(raw_server, proxy, raw_client):
    release = threading.Event()

    def slow_first(connection):
        while True:
            request = connection.read_request()
            if request.path == "/slow":
                assert release.wait(5)
            connection.send(naming_the_path(request))

    client = raw_client(proxy(to=raw_server(slow_first)))
    client.send(request_bytes("GET", "/slow") + request_bytes("GET", "/fast"))
    threading.Timer(0.05, release.set).start()
    assert [client.read_response().text for _ in range(2)] == ["/slow", "/fast"]


def test_pipelined_large_answers_all_arrive(raw_server, proxy, raw_client):
    server = raw_server(response(body=b"x" * 100_000))
    client = raw_client(proxy(to=server))
    client.send(request_bytes("GET", "/") * 50)
    assert [client.read_response().body_bytes for _ in range(50)] == [100_000] * 50


def test_many_more_requests_than_the_proxy_can_hold_are_all_answered(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server()))
    sender = threading.Thread(target=client.send, args=(request_bytes("GET", "/", {"X-Filler": "f" * 500}) * 2000,))
    sender.start()
    for _ in range(2000):
        assert client.read_response().status == 200
    sender.join()


def test_nothing_after_connection_close_is_processed(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.send(request_bytes("GET", "/last", {"Connection": "close"}) + request_bytes("GET", "/after"))
    assert client.read_response().status == 200
    client.read_to_end()
    assert [r.path for r in server.requests] == ["/last"]


def test_bad_request_behind_a_good_one_is_refused_after_the_good_answer(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.send(request_bytes("GET", "/good") + b"GET  /bad HTTP/1.1\r\nHost: a.test\r\nX: \0\r\n\r\n")
    assert [client.read_response().status for _ in range(2)] == [200, 400]
    assert client.read_to_end() == "fin"
    assert [r.path for r in server.requests] == ["/good"]


def test_upstream_failure_in_the_middle_of_a_pipeline_fails_only_that_request(raw_server, proxy, raw_client, only_meshcore):
    def failing_second(connection):
        while True:
            request = connection.read_request()
            if request.path == "/fails":
                return
            connection.send(naming_the_path(request))

    client = raw_client(proxy(to=raw_server(failing_second), route={"retries": {"max_attempts": 1}}))
    for path in ("/one", "/fails", "/three"):
        client.send(request_bytes("POST", path))
    first, second = client.read_response(), client.read_response()
    assert (first.text, second.status, second.reason) == ("/one", 502, "upstream_reset")
    if client.end is None and second.get("connection") != "close":
        assert client.read_response().text == "/three"
