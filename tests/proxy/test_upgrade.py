"""Upgrade: a tunnel after 101 and only then; everything else stays HTTP."""

import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import eventually, response

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"


def echoing(connection):
    """Switch, then send back whatever comes until the client stops sending; then stop too."""
    connection.read_request()
    connection.switch(SWITCH)
    while data := connection.receive():
        connection.send(data)
    connection.half_close()


def test_octets_pass_both_ways_after_101(raw_server, proxy, raw_client):
    server = raw_server(echoing)
    client = raw_client(proxy(to=server))
    answer = client.get("/chat", UPGRADE)
    assert (answer.status, answer.get("upgrade").lower()) == (101, "websocket")
    assert "upgrade" in answer.get("connection").lower()
    for data in (b"\x81\x05hello", b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n"):
        client.send(data)
        assert client.receive_tunnel(len(data)) == data


def test_upgrade_reaches_the_upstream_with_what_it_needs(raw_server, proxy, raw_client):
    server = raw_server(echoing)
    raw_client(proxy(to=server)).get("/chat", UPGRADE)
    seen = server.requests[0]
    assert seen.get("upgrade").lower() == "websocket"
    assert "upgrade" in seen.get("connection").lower()
    assert seen.get("sec-websocket-key") == UPGRADE["Sec-WebSocket-Key"]


def test_octets_sent_with_the_101_are_not_lost(raw_server, proxy, raw_client):
    def eager(connection):
        connection.read_request()
        connection.switch(SWITCH + b"first words")
        connection.wait_closed()

    client = raw_client(proxy(to=raw_server(eager)))
    assert client.get("/chat", UPGRADE).status == 101
    assert client.receive_tunnel(11) == b"first words"


def test_octets_sent_before_the_101_reach_the_tunnel_after_it(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(echoing)))
    client.send(request_bytes("GET", "/chat", UPGRADE) + b"early")
    assert client.read_response().status == 101
    assert client.receive_tunnel(5) == b"early"


def test_early_octets_stay_with_the_proxy_until_the_upstream_agrees(raw_server, proxy, raw_client, only_meshcore):
    """Octets behind an upgrade that is refused are the next request, policy and all: never smuggled raw."""
    server = raw_server(response(426, b"no", {"Upgrade": "websocket"}))
    client = raw_client(proxy(to=server, routes=[
        {"name": "chat", "match": {"path": "/chat"}, "to": "backend"},
        {"name": "rest", "respond": {"status": 403}},
    ]))
    client.send(request_bytes("GET", "/chat", UPGRADE) + request_bytes("GET", "/admin"))
    assert client.read_response().status == 426
    second = client.read_message()
    assert second is None or second.status == 403
    assert [r.path for r in server.requests] == ["/chat"]


def test_refused_upgrade_stays_http(raw_server, proxy, raw_client):
    server = raw_server(response(426, b"no"))
    client = raw_client(proxy(to=server))
    assert client.get("/chat", UPGRADE).status == 426
    if client.end is None:
        assert client.get("/next").status == 426


def test_client_may_finish_first(raw_server, proxy, raw_client):
    def answering_the_end(connection):
        connection.read_request()
        connection.switch(SWITCH)
        data = b""
        while part := connection.receive():
            data += part
        connection.send(b"you said " + data)

    client = raw_client(proxy(to=raw_server(answering_the_end)))
    client.get("/chat", UPGRADE)
    client.send(b"bye")
    client.half_close()
    client.read_to_end()
    assert bytes(client.reader.tunnel) == b"you said bye"


def test_upstream_may_finish_first(raw_server, proxy, raw_client, only_meshcore):
    heard = []

    def finishing(connection):
        connection.read_request()
        connection.switch(SWITCH + b"last words")
        connection.half_close()
        heard.append(connection.receive_tunnel(5))

    client = raw_client(proxy(to=raw_server(finishing)))
    client.get("/chat", UPGRADE)
    assert client.receive_tunnel(11) == b"last words"
    client.send(b"later")
    client.half_close()
    eventually(lambda: heard == [b"later"])


def test_reset_on_one_side_ends_the_other(raw_server, proxy, raw_client):
    ended = []

    def waiting(connection):
        connection.read_request()
        connection.switch(SWITCH)
        ended.append(connection.wait_closed())

    client = raw_client(proxy(to=raw_server(waiting)))
    client.get("/chat", UPGRADE)
    client.reset()
    eventually(lambda: ended)


def test_large_transfers_in_both_directions_at_once(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(echoing)))
    client.get("/chat", UPGRADE)
    data = bytes(range(256)) * 16_384
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    assert client.receive_tunnel(len(data)) == data
    sender.join()


def test_idle_tunnel_is_closed_after_its_timeout(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(echoing), route={"tunnel_idle_timeout": "100ms"}))
    client.get("/chat", UPGRADE)
    client.read_to_end()


def test_tunnel_outlives_the_body_idle_timeout(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(echoing), route={"idle_timeout": "50ms"}, timeouts={"keep_alive": "50ms", "head": "50ms"}))
    client.get("/chat", UPGRADE)
    threading.Event().wait(0.2)
    client.send(b"still there")
    assert client.receive_tunnel(11) == b"still there"


def test_route_without_upgrades_forwards_a_plain_request(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server, route={"upgrade": False}))
    assert client.get("/chat", UPGRADE).status == 200
    assert server.requests[0].all("upgrade") == []
    assert server.requests[0].all("connection") == []


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.2", "h2c, TLS/1.2"])
def test_upgrades_below_http_are_never_offered(raw_server, proxy, raw_client, only_meshcore, protocol):
    server = raw_server()
    client = raw_client(proxy(to=server))
    assert client.get("/", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABk"}).status == 200
    assert [server.requests[0].all(name) for name in ("upgrade", "http2-settings", "connection")] == [[], [], []]


def test_switch_to_a_protocol_that_was_not_asked_for_is_refused(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    answer = raw_client(proxy(to=server)).get("/chat", UPGRADE)
    assert answer.status in (101, 502)


def test_upgrade_on_one_connection_leaves_pooled_ones_alone(raw_server, proxy, raw_client):
    def mixed(connection):
        while True:
            request = connection.read_request()
            if request.all("upgrade"):
                connection.switch(SWITCH)
                while data := connection.receive():
                    connection.send(data)
                return
            connection.send(response())

    server = raw_server(mixed)
    running = proxy(to=server)
    plain, chat = raw_client(running), raw_client(running)
    plain.get()
    assert chat.get("/chat", UPGRADE).status == 101
    assert plain.get().status == 200
    chat.send(b"x")
    assert chat.receive_tunnel(1) == b"x"
