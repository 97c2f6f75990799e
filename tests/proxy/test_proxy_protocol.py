"""PROXY headers: who begins with one, who is told by one, and nobody by accident."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from tests.scenario.proxies import config
from tests.scenario.servers import eventually
from tests.proxy.test_tcp import connect, echo, read_all, server  # noqa: F401 (fixtures)

pytestmark = pytest.mark.usefixtures("only_meshcore")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.9 40001 443\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::7 2001:db8::9 40001 443\r\n"
V2 = SIGNATURE + b"\x21\x11" + struct.pack("!H4s4sHH", 12, bytes([192, 0, 2, 7]), bytes([198, 51, 100, 9]), 40001, 443)
V2_LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


@pytest.fixture
def http_proxy(proxy, raw_server):
    def start(version, **more):
        listener = {"name": "web", "address": "127.0.0.1:0", "proxy_protocol": version}
        return proxy(config=config(to=raw_server(), listeners=[listener], **more))

    return start


@pytest.mark.parametrize(
    ("version", "header", "seen"),
    [
        ("v1", V1, "192.0.2.7"),
        ("v2", V2, "192.0.2.7"),
        ("any", V1, "192.0.2.7"),
        ("any", V2, "192.0.2.7"),
        ("v1", V1_SIX, "2001:db8::7"),
        ("v1", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        ("v2", V2_LOCAL, "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("cut", ["together", "apart", "octets"])
def test_the_client_a_header_names_is_the_client_that_endpoints_are_told(
        cut, version, header, seen, proxy, raw_server, raw_client):
    backend = raw_server()
    listener = {"name": "web", "address": "127.0.0.1:0", "proxy_protocol": version}
    client = raw_client(proxy(config=config(to=backend, listeners=[listener])))
    client.reader.expect("GET")
    if cut == "together":
        client.send(header + REQUEST)
    elif cut == "apart":
        client.send_pieces([header, REQUEST])
    else:
        client.send_pieces([bytes([octet]) for octet in header] + [REQUEST])
    assert client.read_response().status == 200
    assert backend.requests[0].get("x-forwarded-for") == seen
    client.reader.expect("GET")
    client.send(REQUEST)  # once per connection, not per request
    assert client.read_response().status == 200
    assert backend.requests[1].get("x-forwarded-for") == seen


@pytest.mark.parametrize(
    ("version", "bytes_sent"),
    [
        ("v1", REQUEST),
        ("v2", REQUEST),
        ("any", REQUEST),
        ("v1", V2 + REQUEST),
        ("v2", V1 + REQUEST),
        ("v1", b"PROXY TCP4 192.0.2.7\r\n" + REQUEST),
        ("any", b"PROXY TCP4 192.0.2.300 198.51.100.9 1 2\r\n" + REQUEST),
        ("v1", b"PROXY " + b"x" * 200),
    ],
)
def test_a_connection_without_a_valid_header_of_its_version_is_reset_and_counted(version, bytes_sent, http_proxy, raw_client):
    running = http_proxy(version)
    client = raw_client(running)
    client.send(bytes_sent)
    assert client.read_to_end() == "rst"
    assert running.stats().reasons == {"bad_proxy_header": 1}
    assert running.stats().route("all").requests == 0


def test_a_header_that_does_not_come_ends_the_connection_in_time(http_proxy, raw_client):
    running = http_proxy("any", timeouts={"head": "100ms"})
    client = raw_client(running)
    client.send(V1[:20])
    assert client.read_to_end() in ("fin", "rst")


def test_a_balancer_that_connects_and_leaves_is_no_fault(http_proxy, raw_client):
    running = http_proxy("v2")
    raw_client(running).close()
    eventually(lambda: running.stats().listeners[0].accepted == 1 and running.stats().listeners[0].active == 0)
    assert running.stats().reasons == {}


def test_a_header_on_a_listener_that_expects_none_is_an_ordinary_bad_request(proxy, raw_server, raw_client):
    client = raw_client(proxy(to=raw_server()))
    client.reader.expect("GET")
    client.send(V1 + REQUEST)
    assert client.read_response().status == 400


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_endpoint_is_told_the_client_before_its_first_byte(version, server, proxy, connect):  # noqa: F811
    backend = server(read_all)
    running = proxy(
        config=config(
            routes=[{"name": "db", "to": "backend"}],
            clusters=[{"name": "backend", "endpoints": [backend.address], "proxy_protocol": version}],
            listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"}],
        )
    )
    client = connect(running)
    own, there = client.getsockname(), running.addresses["db"]
    client.sendall(b"hello")
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: backend.results)
    if version == "v1":
        expected = f"PROXY TCP4 127.0.0.1 127.0.0.1 {own[1]} {there[1]}\r\n".encode()
    else:
        loopback = bytes([127, 0, 0, 1])
        expected = SIGNATURE + b"\x21\x11" + struct.pack("!H4s4sHH", 12, loopback, loopback, own[1], there[1])
    assert backend.results == [expected + b"hello"]


def test_the_name_of_a_client_passes_from_proxy_to_proxy(server, proxy, connect):  # noqa: F811
    backend = server(echo)
    inner = proxy(
        config=config(
            to=backend,
            routes=[{"name": "db", "to": "backend"}],
            listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db", "proxy_protocol": "v2"}],
        )
    )
    outer = proxy(
        config=config(
            routes=[{"name": "db", "to": "inner"}],
            clusters=[{"name": "inner", "endpoints": ["127.0.0.1:%d" % inner.addresses["db"][1]], "proxy_protocol": "v2"}],
            listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"}],
        )
    )
    client = connect(outer)
    client.sendall(b"through both")
    assert client.recv(100) == b"through both"
    with contextlib.closing(connect(inner)) as stranger, contextlib.suppress(ConnectionResetError):
        stranger.sendall(b"no header")
        assert stranger.recv(100) == b""
    eventually(lambda: inner.stats().reasons.get("bad_proxy_header") == 1)
