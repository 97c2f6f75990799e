"""Every wait has an end, a status and somebody to blame."""

import time

import pytest

from tests.scenario.servers import BlackHole, eventually, response


def silent(connection):
    connection.read_request()
    connection.wait_closed()


def endpoint_of(running):
    return running.stats().cluster("backend").endpoints[0]


def test_head_that_does_not_come_is_answered_408(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server, timeouts={"head": "100ms"}))
    client.send(b"GET / HTTP/1.1\r\nHost:")
    message = client.read_message()
    assert message is None or message.status == 408
    assert client.read_to_end() == "fin"
    assert server.accepted == 0


def test_head_deadline_is_absolute_however_steadily_octets_trickle(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), timeouts={"head": "150ms"}))
    client.sock.settimeout(0.02)
    client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ")
    for _ in range(200):
        client.send(b"x")
        try:
            if client.receive() or client.end:
                break
        except TimeoutError:
            pass
    assert client.read_message().reason == "head_timeout"


def test_head_deadline_counts_anew_for_each_request(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), timeouts={"head": "100ms", "keep_alive": "5s"}))
    client.get()
    client.send(b"GET / HT")
    assert client.read_message().reason == "head_timeout"


@pytest.mark.parametrize("sent", [
    b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n",
])
def test_body_that_does_not_come_is_answered_408_and_not_blamed_on_the_endpoint(raw_server, proxy, raw_client, only_meshcore, sent):
    server = raw_server()
    running = proxy(to=server, limits={"body_min_rate_grace": "100ms"})
    client = raw_client(running)
    client.reader.expect("POST")
    client.send(sent)
    answer = client.read_response()
    assert (answer.status, answer.reason) == (408, "body_timeout")
    assert client.read_to_end() == "fin"
    eventually(lambda: len(server.incomplete) == 1)
    assert (server.requests, endpoint_of(running).failures) == ([], 0)


def test_upstream_that_does_not_answer_is_given_up_with_504(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(silent), route={"timeout": "100ms"})
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (504, "upstream_response_timeout")
    assert endpoint_of(running).failures == 1


def test_unfinished_response_head_is_given_up_with_504(raw_server, proxy, raw_client, only_meshcore):
    def half_a_head(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nX-Half")
        connection.wait_closed()

    answer = raw_client(proxy(to=raw_server(half_a_head), route={"timeout": "100ms"})).get()
    assert (answer.status, answer.reason) == (504, "upstream_response_timeout")


def test_endpoint_that_does_not_accept_is_given_up_with_504(proxy, raw_client, only_meshcore):
    hole = BlackHole()
    running = proxy(to=hole, cluster={"connect_timeout": "100ms"}, route={"retries": {"max_attempts": 1}})
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (504, "upstream_connect_timeout")
    assert endpoint_of(running).connect_failures == 1
    hole.stop()


def test_response_that_stops_in_the_middle_is_cut_visibly(raw_server, proxy, raw_client, only_meshcore):
    def stopping(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        connection.wait_closed()

    running = proxy(to=raw_server(stopping), route={"idle_timeout": "100ms"})
    client = raw_client(running)
    client.request("GET", "/")
    client.read_to_end()
    assert not client.reader.messages
    eventually(lambda: endpoint_of(running).failures == 1)


def test_total_timeout_ends_an_exchange_that_never_rests(raw_server, proxy, raw_client, only_meshcore):
    def dripping(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.send(b"x")
            time.sleep(0.01)

    client = raw_client(proxy(to=raw_server(dripping), route={"total_timeout": "150ms"}))
    client.request("GET", "/")
    client.read_to_end()
    assert not client.reader.messages


def test_total_timeout_before_the_head_is_answered_504(raw_server, proxy, raw_client, only_meshcore):
    answer = raw_client(proxy(to=raw_server(silent), route={"total_timeout": "100ms", "timeout": "5s"})).get()
    assert (answer.status, answer.reason) == (504, "total_timeout")


def test_total_timeout_is_spent_across_retries(raw_server, proxy, raw_client, only_meshcore):
    servers = [raw_server(silent), raw_server(silent)]
    running = proxy(to=servers, route={"total_timeout": "200ms", "timeout": "5s", "retries": {"max_attempts": 5, "on": ["reset", "504"]}})
    assert raw_client(running).get().status == 504


def test_client_that_does_not_read_is_given_up(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(response(body=b"x" * (16 << 20))), route={"idle_timeout": "150ms"})
    client = raw_client(running, receive_buffer=4096)
    client.request("GET", "/")
    eventually(lambda: running.stats().reasons.get("downstream_stalled", 0) == 1)
    client.read_to_end()
    assert not client.reader.messages
    assert endpoint_of(running).failures == 0


def test_idle_timeout_spares_a_slow_but_moving_response(raw_server, proxy, raw_client, only_meshcore):
    def slow(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            time.sleep(0.05)
            connection.send(b"x")

    client = raw_client(proxy(to=raw_server(slow), route={"idle_timeout": "200ms"}))
    assert client.get().text == "xxxxxx"


def test_timeouts_of_zero_are_off(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), route={"timeout": "0", "total_timeout": "0", "idle_timeout": "0"}))
    assert client.get().status == 200
