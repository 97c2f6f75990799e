"""Tunnels inside HTTP/2: CONNECT, and WebSocket by extended CONNECT (RFC 8441), which a server offers or does not."""

import pytest

from tests.scenario import h2_frames as h2
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")


def tunnelling(connection):
    connection.read_request()
    connection.switch(b"HTTP/1.1 200 Connection Established\r\n\r\n")
    while data := connection.receive_tunnel(1):
        data += bytes(connection.reader.tunnel)
        connection.reader.tunnel.clear()
        connection.send(data)


def tunnelling_h2(connection):
    """Echo a CONNECT stream octet by octet, until the client ends it, or the connection goes with the proxy."""
    request = connection.next_request(complete=False)
    connection.send_headers(request.stream, [(":status", "200")])
    done = 0
    while not request.complete:
        connection.wait(lambda: len(request.body) > done or request.complete or connection.end, "octets of the tunnel")  # noqa: B023
        if connection.end:
            return
        part, done = bytes(request.body[done:]), len(request.body)
        if part:
            connection.queue_body(request.stream, part, end_stream=False)
    connection.send_data(request.stream, end_stream=True)
    connection.read_to_end()


def opened(client, authority="a.test:443"):
    stream = client.open("CONNECT", authority=authority, end_stream=False)
    return stream, client.response_head(stream)


def echoed(client, stream: int, data: bytes) -> bytes:
    message = client.reader.streams[stream]
    before = len(message.body)
    client.send_body(stream, data, end_stream=False)
    client.wait(lambda: len(message.body) >= before + len(data), "the echo")
    return bytes(message.body[before:])


def test_connect_is_refused_unless_the_route_allows_it(raw_server, h2_client, h2_proxy):
    server = raw_server()
    client = h2_client(h2_proxy(to=server))
    stream, answer = opened(client)
    assert (answer.status, answer.reason) == (405, "method_not_allowed")
    assert server.requests == []
    assert client.get().status == 200


@pytest.mark.parametrize("back", ["h1", "h2"])
def test_connect_on_an_allowed_route_is_a_tunnel(raw_server, h2_server, h2_client, h2_proxy, back):
    server = raw_server(tunnelling) if back == "h1" else h2_server(tunnelling_h2)
    client = h2_client(h2_proxy(to=server, upstream="http1" if back == "h1" else "http2", route={"connect": True}))
    stream, answer = opened(client)
    assert (answer.status, answer.all("content-length")) == (200, [])
    for data in (b"\x16\x03\x01 hello", b"x" * 100_000):
        assert echoed(client, stream, data) == data
    assert (server.requests[0].get(":authority") if back == "h2" else server.requests[0].path) == "a.test:443"


def test_end_of_a_tunnel_is_passed_on_both_ways(h2_server, h2_client, h2_proxy):
    client = h2_client(h2_proxy(to=h2_server(tunnelling_h2), upstream="http2", route={"connect": True}))
    stream, _ = opened(client)
    assert echoed(client, stream, b"bye") == b"bye"
    client.send_data(stream, end_stream=True)
    assert client.response(stream).complete


def test_reset_of_a_tunnel_closes_the_connection_behind_it(raw_server, h2_client, h2_proxy):
    ended = []

    def script(connection):
        connection.read_request()
        connection.switch(b"HTTP/1.1 200 OK\r\n\r\n")
        ended.append(connection.wait_closed())

    client = h2_client(h2_proxy(to=raw_server(script), route={"connect": True}))
    stream, _ = opened(client)
    client.reset_stream(stream)
    eventually(lambda: len(ended) == 1)


def test_connect_of_an_http1_client_reaches_an_http2_upstream(h2_server, raw_client, h2_proxy):
    client = raw_client(h2_proxy(to=h2_server(tunnelling_h2), upstream="http2", route={"connect": True}))
    client.request("CONNECT", "a.test:443", host="a.test:443")
    assert client.read_response().status == 200
    client.send(b"hello")
    assert client.receive_tunnel(5) == b"hello"


# --- RFC 8441 ----------------------------------------------------------------------------------------------------------

rfc8441 = pytest.mark.rfc8441


def websocket(client) -> int:
    stream, client.next_stream = client.next_stream, client.next_stream + 2
    client.reader.expect(stream, "CONNECT")
    client.send_headers(stream, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"),
                                 (":authority", "a.test"), ("sec-websocket-version", "13")])
    return stream


def offers_websocket(client) -> bool:
    client.wait(lambda: client.reader.got_settings, "SETTINGS")
    return client.reader.settings.get(h2.ENABLE_CONNECT_PROTOCOL) == 1


@rfc8441
def test_websocket_over_http2_becomes_an_upgrade_for_http1(raw_server, h2_client, h2_proxy):
    def script(connection):
        request = connection.read_request()
        assert request.get("upgrade").lower() == "websocket" and request.get("sec-websocket-key")
        connection.switch(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
        while data := connection.receive_tunnel(1):
            connection.send(data)

    client = h2_client(h2_proxy(to=raw_server(script)))
    if not offers_websocket(client):
        pytest.skip("extended CONNECT is not offered")
    stream = websocket(client)
    assert client.response_head(stream).status == 200
    assert echoed(client, stream, b"\x81\x05hello") == b"\x81\x05hello"


@rfc8441
def test_what_is_not_offered_is_refused_on_its_stream_alone(raw_server, h2_client, h2_proxy):
    server = raw_server(response(body=b"plain"))
    client = h2_client(h2_proxy(to=server))
    if offers_websocket(client):
        pytest.skip("extended CONNECT is offered")
    stream = websocket(client)
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended, "a refusal")
    message = client.reader.streams[stream]
    assert message.reset == h2.PROTOCOL_ERROR or message.status in (400, 405, 501)
    assert (client.get().text, len(server.requests)) == ("plain", 1)
