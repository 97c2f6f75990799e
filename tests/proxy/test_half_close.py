"""A FIN says "no more from me", not "go away": what was asked is answered, what is cut is cut visibly."""

import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import eventually, response


def test_client_that_stops_sending_still_gets_its_answer(raw_server, proxy, raw_client):
    def slow(connection):
        connection.read_request()
        threading.Event().wait(0.05)
        connection.send(response(body=b"late"))

    client = raw_client(proxy(to=raw_server(slow)))
    client.request("GET", "/")
    client.half_close()
    assert client.read_response().text == "late"
    assert client.read_to_end() == "fin"


def test_client_that_stops_sending_still_gets_all_its_pipelined_answers(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server()))
    client.send(request_bytes("GET", "/") * 5)
    client.half_close()
    assert [client.read_response().status for _ in range(5)] == [200] * 5
    assert client.read_to_end() == "fin"


@pytest.mark.parametrize("sent", [
    b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
])
def test_request_cut_by_a_fin_never_looks_complete(raw_server, proxy, raw_client, only_meshcore, sent):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    client.reader.expect("POST")
    client.send(sent)
    client.half_close()
    answer = client.read_message()
    assert answer is None or (answer.status, answer.reason) == (400, "body_incomplete")
    client.read_to_end()
    assert server.requests == []
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_head_cut_by_a_fin_reaches_no_upstream(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.send(b"GET / HTTP/1.1\r\nHost: a.te")
    client.half_close()
    client.read_to_end()
    assert server.requests == [] and server.accepted == 0


def test_upstream_that_stops_sending_after_its_answer_is_not_used_again(raw_server, proxy, raw_client):
    def half_closing(connection):
        connection.answer()
        connection.half_close()
        connection.wait_closed()

    server = raw_server(half_closing)
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().status == 200
    assert server.accepted == 3


def test_client_that_goes_away_frees_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    ended = []

    def never_answering(connection):
        connection.read_request()
        ended.append(connection.wait_closed())

    running = proxy(to=raw_server(never_answering))
    client = raw_client(running)
    client.request("GET", "/")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    client.reset()
    eventually(lambda: ended)
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.failures, endpoint.active) == (0, 0)


def test_client_that_goes_away_in_the_middle_of_the_answer_frees_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    ended = []

    def endless(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        try:
            while True:
                connection.send(b"x" * 65536)
        finally:
            ended.append(True)

    running = proxy(to=raw_server(endless))
    client = raw_client(running)
    client.request("GET", "/")
    client.receive()
    client.reset()
    eventually(lambda: ended)
    eventually(lambda: running.stats().cluster("backend").in_flight == 0)
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_client_that_goes_away_in_the_middle_of_its_body_frees_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    reached, ended = [], []

    def watching(connection):
        connection.read_head()
        reached.append(True)
        ended.append(connection.wait_closed())

    running = proxy(to=raw_server(watching))
    client = raw_client(running)
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nsome")
    eventually(lambda: reached)
    client.reset()
    eventually(lambda: ended)
    assert running.stats().cluster("backend").endpoints[0].failures == 0
