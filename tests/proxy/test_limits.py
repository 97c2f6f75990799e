"""Limits on what clients may send and how many they may be: a clear refusal, and nothing else disturbed."""

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import eventually


def silent(connection):
    connection.read_request()
    connection.wait_closed()


@pytest.mark.parametrize("limits, sent, status, reason", [
    ({"head_size": "1KiB"}, request_bytes("GET", "/", [(f"X-{n}", "v" * 50) for n in range(50)]), 431, "head_too_large"),
    ({"field_size": "512"}, request_bytes("GET", "/", {"X-Long": "v" * 1000}), 431, "field_too_large"),
    ({"max_fields": 10}, request_bytes("GET", "/", [(f"X-{n}", "v") for n in range(20)]), 431, "too_many_fields"),
    ({"target_size": "256"}, request_bytes("GET", "/" + "p" * 500), 414, "target_too_long"),
])
def test_oversized_head_is_refused_with_its_reason(raw_server, proxy, raw_client, only_meshcore, limits, sent, status, reason):
    server = raw_server()
    running = proxy(to=server, limits=limits)
    client = raw_client(running)
    client.send(sent)
    answer = client.read_response()
    assert (answer.status, answer.reason) == (status, reason)
    assert client.read_to_end() == "fin"
    assert server.requests == []
    assert running.stats().reasons == {reason: 1}


@pytest.mark.parametrize("limits, sent", [
    ({"max_fields": 10}, request_bytes("GET", "/", [(f"X-{n}", "v") for n in range(9)])),
    ({"target_size": "256"}, request_bytes("GET", "/" + "p" * 255)),
    ({}, request_bytes("GET", "/", [(f"X-{n}", "v" * 250) for n in range(90)])),
])
def test_head_at_the_limit_passes(raw_server, proxy, raw_client, only_meshcore, limits, sent):
    client = raw_client(proxy(to=raw_server(), limits=limits))
    client.send(sent)
    assert client.read_response().status == 200


def test_endless_head_is_refused_while_it_still_comes(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server())
    client = raw_client(running)
    client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
    for _ in range(4000):
        client.send(b"X-Filler: " + b"f" * 1000 + b"\r\n")
        if client.refused:
            break
    assert client.read_response().status == 431
    eventually(lambda: running.stats().workers[0].connections == 0)


def test_oversized_response_head_is_a_fault_of_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 1000) for n in range(60)) + b"Content-Length: 0\r\n\r\n"
    running = proxy(to=raw_server(head))
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (502, "upstream_head_too_large")
    assert running.stats().cluster("backend").endpoints[0].failures == 1


def test_connections_above_the_limit_do_not_disturb_those_below(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(), limits={"max_connections": 2})
    inside = [raw_client(running) for _ in range(2)]
    for client in inside:
        assert client.get().status == 200
    outside = raw_client(running)
    outside.sock.settimeout(0.2)
    try:
        outside.request("GET", "/")
        message = outside.read_message()
        assert message is None or message.status == 503
    except TimeoutError:
        pass  # waiting in the accept queue is as good an answer
    assert [client.get().status for client in inside] == [200, 200]
    inside[0].close()
    later = raw_client(running)
    assert later.get().status == 200 or outside.end is None


def test_exchanges_above_the_limit_are_shed(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(silent), limits={"max_in_flight": 2})
    waiting = [raw_client(running) for _ in range(2)]
    for client in waiting:
        client.request("GET", "/")
    eventually(lambda: running.stats().workers[0].in_flight == 2)
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (503, "load_shed")


def test_requests_above_the_cluster_limit_are_shed(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(silent), cluster={"max_requests": 1})
    first = raw_client(running)
    first.request("GET", "/")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    answer = raw_client(running).get()
    assert answer.status == 503
    assert answer.reason in ("load_shed", "queue_full")


def test_refusals_carry_a_reason_and_an_explanation(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server()))
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.reason, answer.get("content-length")) == (400, "bad_host", "0")
    assert answer.get("l5d-proxy-error")
    assert answer.get("connection") == "close"


def test_refusal_can_be_read_although_the_client_goes_on_sending(raw_server, proxy, raw_client, only_meshcore):
    """Closing at once would reset the connection and take the answer with it: the proxy lingers."""
    client = raw_client(proxy(to=raw_server()))
    client.send(b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n" + b"x" * 20_000)
    for _ in range(10):
        client.send(b"x" * 1000)
    assert client.read_response().status == 400
    assert client.read_to_end() == "fin"


def test_lingering_ends_although_the_client_never_stops_sending(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(), timeouts={"linger": "100ms"})
    client = raw_client(running)
    client.send(b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n")
    client.read_to_end()
    eventually(lambda: running.stats().workers[0].connections == 0)


def test_memory_is_given_back_after_large_heads(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server())
    head = request_bytes("GET", "/", [(f"X-{n}", "v" * 250) for n in range(90)])
    clients = [raw_client(running) for _ in range(50)]
    for client in clients:
        client.send(head[:-2])
    for client in clients:
        client.send(head[-2:])
        assert client.read_response().status == 200
    eventually(lambda: running.stats().workers[0].buffers_bytes == 0)


def test_response_of_the_proxy_to_head_has_no_body(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(routes=[{"name": "fixed", "respond": {"status": 200, "body": "hello"}}], to=[]))
    client.request("HEAD", "/")
    assert client.read_response().get("content-length") == "5"
    assert client.get().text == "hello"


def test_heads_beyond_the_buffer_memory_are_refused_and_service_returns(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(), limits={"buffer_memory": "1MiB"})
    head = request_bytes("GET", "/", [(f"X-{n}", "v" * 250) for n in range(90)])  # unfinished, it holds 32 KiB
    clients = [raw_client(running) for _ in range(40)]
    for client in clients:
        client.send(head[:-2])
    eventually(lambda: running.stats().reasons.get("out_of_memory", 0) >= 5)
    assert running.stats().workers[0].buffers_bytes <= 1 << 20
    for client in clients:
        client.close()
    eventually(lambda: running.stats().workers[0].buffers_bytes == 0)
    assert raw_client(running).get().status == 200
