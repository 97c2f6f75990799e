"""Tunnels inside HTTP/2: CONNECT, and WebSocket by extended CONNECT (RFC 8441), which a server offers or does not."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess

import pytest

from tests.proxy.test_upgrade import UPGRADE
from tests.scenario import h2_frames as h2
from tests.scenario.proxies import free_port
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


def websockets_h2(connection):
    """An endpoint of extended CONNECT: echoes octets until the client ends."""
    tunnelling_h2(connection)


@pytest.fixture
def websocket_server(h2_server):
    return h2_server(websockets_h2, settings={h2.ENABLE_CONNECT_PROTOCOL: 1})


def test_a_websocket_of_http1_reaches_an_http2_endpoint(websocket_server, raw_client, h2_proxy, only_meshcore):
    running = h2_proxy(to=websocket_server, upstream="http2")
    client = raw_client(running)
    answer = client.get("/chat?x=1", UPGRADE)
    assert (answer.status, answer.get("upgrade"), answer.get("connection")) == (101, "websocket", "upgrade")
    assert answer.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="       # RFC 6455 1.3's own example
    for data in (b"\x81\x05hello", b"x" * 100_000):
        client.send(data)
        assert client.receive_tunnel(len(data)) == data
    [seen] = websocket_server.requests
    assert (seen.method, seen.get(":protocol"), seen.path, seen.get(":scheme")) == ("CONNECT", "websocket", "/chat?x=1", "http")
    assert seen.get("sec-websocket-version") == "13"
    assert not {"sec-websocket-key", "connection", "upgrade"} & set(seen.names)


def test_a_websocket_of_http2_reaches_an_http2_endpoint(websocket_server, h2_client, h2_proxy, only_meshcore):
    for upstream in ({"protocol": "http2"}, {"protocol": "same"}, {"mesh_hop": "on"}):
        client = h2_client(h2_proxy(to=websocket_server, cluster=upstream))
        stream = websocket(client)
        assert client.response_head(stream).status == 200
        assert echoed(client, stream, b"\x81\x05hello") == b"\x81\x05hello"
        client.send_data(stream, end_stream=True)
        assert client.response(stream).complete


def test_a_client_that_leaves_ends_the_stream_of_its_websocket(h2_server, raw_client, h2_proxy, only_meshcore):
    ended = []

    def script(connection):
        request = connection.next_request(complete=False)
        connection.send_headers(request.stream, [(":status", "200")])
        ended.append(connection.wait_reset(request.stream))

    client = raw_client(h2_proxy(to=h2_server(script, settings={h2.ENABLE_CONNECT_PROTOCOL: 1}), upstream="http2"))
    assert client.get("/chat", UPGRADE).status == 101
    client.reset()
    eventually(lambda: ended == [h2.CANCEL])


@pytest.mark.parametrize("status", [400, 403, 302])
def test_an_endpoint_may_decline_a_websocket(status, h2_server, raw_client, h2_proxy, only_meshcore):
    def script(connection):
        request = connection.next_request(complete=False)
        connection.respond(request.stream, status, b"no", [("x-why", "because")])
        connection.read_to_end()

    client = raw_client(h2_proxy(to=h2_server(script, settings={h2.ENABLE_CONNECT_PROTOCOL: 1}), upstream="http2"))
    answer = client.get("/chat", UPGRADE)
    assert (answer.status, answer.text, answer.get("x-why"), answer.get("sec-websocket-accept")) == (status, "no", "because", None)


@pytest.mark.parametrize("settings", [None, {h2.ENABLE_CONNECT_PROTOCOL: 0}])
def test_an_endpoint_that_does_not_offer_it_is_sent_no_websocket(settings, h2_server, raw_client, h2_proxy, only_meshcore):
    server = h2_server(settings=settings)
    running = h2_proxy(to=server, upstream="http2")
    answer = raw_client(running).get("/chat", UPGRADE)
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "upstream_no_websocket")
    assert raw_client(running).get("/").status == 200
    assert [request.path for request in server.requests] == ["/"]
    assert running.stats().clusters[0].endpoints[0].failures == 0


def test_a_route_without_upgrades_sends_a_plain_request(h2_server, raw_client, h2_proxy, only_meshcore):
    server = h2_server(settings={h2.ENABLE_CONNECT_PROTOCOL: 1})
    assert raw_client(h2_proxy(to=server, upstream="http2", route={"upgrade": False})).get("/chat", UPGRADE).status == 200
    assert server.requests[0].method == "GET"


@pytest.mark.skipif(shutil.which("nghttpx", path="/usr/sbin:/usr/bin") is None, reason="nghttpx is not installed")
def test_a_websocket_passes_through_nghttpx_by_extended_connect(raw_server, raw_client, h2_proxy, only_meshcore):
    """A real peer behind: nghttpx takes extended CONNECT in front, and speaks HTTP/1.1 to the server behind it."""

    def script(connection):
        request = connection.read_request()
        assert request.get("upgrade").lower() == "websocket"
        key = request.get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        connection.switch(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while data := connection.receive_tunnel(1):
            connection.send(data)

    port = free_port()
    host, server_port = raw_server(script).address.split(":")
    command = ["nghttpx", f"--frontend=127.0.0.1,{port};no-tls", f"--backend={host},{server_port}", "--workers=1", "--errorlog-file=/dev/null", "--accesslog-file=/dev/null"]
    peer = subprocess.Popen(command, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listening(port))
        client = raw_client(h2_proxy(to=f"127.0.0.1:{port}", upstream="http2"))
        assert client.get("/chat", UPGRADE).status == 101
        client.send(b"\x81\x85abcdhello")
        assert client.receive_tunnel(11) == b"\x81\x85abcdhello"
    finally:
        peer.terminate()
        peer.wait(10)


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


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
