"""1xx responses and Expect: forwarded to those who understand them, bounded, never taken for the answer."""

import pytest

from tests.scenario.servers import response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_continue_of_the_upstream_reaches_the_waiting_client(raw_server, proxy, raw_client):
    def polite(connection):
        assert connection.read_head().get("expect").lower() == "100-continue"
        connection.send(CONTINUE)
        connection.answer()

    client = raw_client(proxy(to=raw_server(polite)))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert client.read_message().status == 100
    client.send(b"hello")
    assert client.read_response().status == 200


def test_refused_expectation_ends_the_connection_without_the_body(raw_server, proxy, raw_client):
    def refusing(connection):
        connection.read_head()
        connection.send(response(401, b"who are you"))
        connection.wait_closed()

    client = raw_client(proxy(to=raw_server(refusing)))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.text) == (401, "who are you")


def test_body_sent_without_waiting_is_forwarded(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    for number in range(2):
        assert client.post("/", b"hello", {"Expect": "100-continue"}).status == 200
        assert bytes(server.requests[number].body) == b"hello"


def test_unknown_expectation_is_refused(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    answer = raw_client(proxy(to=server)).get("/", {"Expect": "the-unexpected"})
    assert (answer.status, answer.reason) == (417, "expectation_failed")
    assert server.requests == []


def test_expectation_of_a_1_0_client_is_ignored(raw_server, proxy, raw_client, only_meshcore):
    # RFC 9110 10.1.1: a server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore it.
    server = raw_server()
    client = raw_client(proxy(to=server))
    assert client.post("/", b"hello", {"Expect": "100-continue"}, version="1.0").status == 200


def test_early_hints_reach_a_1_1_client(raw_server, proxy, raw_client, only_meshcore):
    answer = raw_client(proxy(to=raw_server(HINTS + HINTS + response()))).get()
    assert [(m.status, m.get("link")) for m in answer.interim] == [(103, "</a>")] * 2
    assert answer.status == 200


def test_a_request_that_was_answered_with_hints_is_not_sent_again(raw_server, proxy, raw_client, only_meshcore):
    def breaking_off(connection):
        connection.read_request()
        connection.send(HINTS)

    server = raw_server(breaking_off)
    answer = raw_client(proxy(to=server)).get()
    assert (answer.status, answer.reason) == (502, "upstream_reset")
    assert len(server.requests) == 1


def test_interim_responses_never_reach_a_1_0_client(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(HINTS + CONTINUE + response())))
    client.request("GET", "/", version="1.0")
    answer = client.read_response()
    assert (answer.status, answer.interim) == (200, [])


def test_unasked_continue_does_not_end_the_exchange(raw_server, proxy, raw_client):
    server = raw_server(CONTINUE + response())
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().status == 200


def test_interim_response_and_final_one_may_come_apart(raw_server, proxy, raw_client):
    def apart(connection):
        while True:
            connection.read_request()
            for octet in HINTS + response():
                connection.send(bytes([octet]))

    client = raw_client(proxy(to=raw_server(apart)))
    for _ in range(2):
        assert client.get().text == "ok"


def test_more_interim_responses_than_the_limit_are_a_fault_of_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(HINTS * 20 + response()), limits={"max_interim_responses": 4})
    client = raw_client(running)
    client.request("GET", "/")
    statuses = []
    while (message := client.read_message()) is not None:
        statuses.append(message.status)
        if message.status >= 200:
            break
    assert statuses.count(103) <= 4
    assert statuses[-1] == 502
    assert running.stats().cluster("backend").endpoints[0].failures == 1


def test_unasked_switch_of_protocols_is_a_fault_of_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    answer = raw_client(proxy(to=server)).get()
    assert (answer.status, answer.reason) == (502, "upstream_unasked_upgrade")


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_interim_response_with_a_length_never_desynchronises(raw_server, proxy, raw_client, only_meshcore, field):
    server = raw_server(f"HTTP/1.1 103 Early Hints\r\n{field}\r\n\r\n".encode() + response())
    answer = raw_client(proxy(to=server)).get()
    assert answer.status in (200, 502)
