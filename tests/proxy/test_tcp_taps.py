"""Taps of connections that are relayed as they are: that one is open, to whom, and how many octets passed."""

import socket

import pytest

from meshcore.taps import TapEvent, format_line
from tests.proxy.test_sni import hello
from tests.proxy.test_tap_engine import Watching
from tests.proxy.test_tcp import connect, echo, read_all, server, tcp_proxy  # noqa: F401 (fixtures)
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, refusing_port
from tests.scenario.tls import pki  # noqa: F401

pytestmark = pytest.mark.usefixtures("only_meshcore")


def exchanged(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    return read_all(client)


def test_a_connection_is_seen_in_two_events(server, tcp_proxy, connect):  # noqa: F811
    running = tcp_proxy(server(lambda sock: sock.sendall(b"got %d" % len(read_all(sock)))))
    watching = Watching(running)
    client = connect(running)
    assert exchanged(client, b"x" * 1000) == b"got 1000"
    opened, ended = watching.first(2)
    assert [event.kind for event in (opened, ended)] == ["open", "end"]
    assert (opened.worker, opened.stream) == (ended.worker, ended.stream)
    assert (opened.scheme, opened.route, opened.cluster) == ("tcp", "db", "backend")
    assert opened.src == "127.0.0.1:%d" % client.getsockname()[1] and opened.dst == running.stats().clusters[0].endpoints[0].address
    assert (ended.request_bytes, ended.response_bytes, ended.status, ended.reason) == (1000, 8, 200, "")


def test_one_that_found_no_endpoint_ends_with_its_reason(tcp_proxy, connect):  # noqa: F811
    running = tcp_proxy(f"127.0.0.1:{refusing_port()}", route={"retries": {"max_attempts": 1}})
    watching = Watching(running)
    with pytest.raises(ConnectionResetError):
        connect(running).recv(1)
    opened, ended = watching.first(2)
    assert (opened.kind, ended.kind, ended.status, ended.reason) == ("open", "end", 502, "upstream_connect_failed")


@pytest.mark.parametrize("asked, seen", [
    ({"scheme": "tcp"}, True), ({"scheme": "http"}, False), ({"scheme": "https"}, False), ({"method": "GET"}, False), ({"path": "/"}, False),
    ({"route": "db"}, True), ({"to": "backend"}, True), ({"from_": "127.0.0.1"}, True), ({"from_": "10.0.0.0/8"}, False),
    ({"authority": "a.test"}, False), ({"status": "200"}, True), ({"status": "5xx"}, False),
])
def test_a_session_sees_those_it_asks_for(asked, seen, server, tcp_proxy, connect):  # noqa: F811
    running = tcp_proxy(server(echo))
    all_of_it, watching = Watching(running), Watching(running, **asked)
    assert exchanged(connect(running), b"hello") == b"hello"
    all_of_it.first(2)
    if seen:
        assert [event.kind for event in watching.first(2)] == ["open", "end"]
    else:
        assert exchanged(connect(running), b"again") == b"again"
        all_of_it.first(4)
        assert not watching.events


def test_whom_a_client_asked_for_is_told(proxy, server, pki):  # noqa: F811
    running = proxy(
        config=config(
            listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tls_routes": ["b"], "tcp_route": "other"}],
            routes=[{"name": "b", "match": {"sni": "*.b.test"}, "to": "backend"}, {"name": "other", "to": "backend"}],
            to=server(echo).address,
        )
    )
    watching, wanted = Watching(running), Watching(running, authority="x.b.test")
    for name in ("c.test", "x.b.test"):
        with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
            octets = hello(pki, name)[0]
            assert exchanged(sock, octets) == octets
    assert [(event.authority, event.route) for event in watching.first(4) if event.kind == "open"] == [("c.test", "other"), ("x.b.test", "b")]
    assert [event.authority for event in wanted.first(2)] == ["x.b.test", ""]


def test_its_lines_name_both_directions():
    opened = TapEvent(kind="open", worker=1, stream=2, src="10.0.0.7:1", dst="10.0.0.9:5432", scheme="tcp")
    assert format_line(opened) == "open id=1:2 src=10.0.0.7:1 dst=10.0.0.9:5432"
    named = TapEvent(kind="open", worker=1, stream=2, src="10.0.0.7:1", dst="10.0.0.9:443", scheme="tcp", authority="a.test")
    assert format_line(named) == "open id=1:2 src=10.0.0.7:1 dst=10.0.0.9:443 :authority=a.test"
    ended = TapEvent(kind="end", worker=1, stream=2, src="10.0.0.7:1", dst="10.0.0.9:5432", scheme="tcp", duration_us=5, request_bytes=3, response_bytes=7)
    assert format_line(ended) == "end id=1:2 src=10.0.0.7:1 dst=10.0.0.9:5432 duration=5µs request-length=3B response-length=7B"
