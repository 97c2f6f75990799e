"""One port takes anything: HTTP by its routes, all else as it is, and clients that wait for the server are not kept long."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading

import pytest

from tests.proxy.test_tcp import connect, echo, read_all, server  # noqa: F401 (fixtures)
from tests.scenario.clients import RawClient, request_bytes
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def detecting(proxy, raw_server):
    """`detecting(tcp_server, **listener)`: a proxy, its HTTP requests to a raw server, all else to tcp_server."""

    def start(tcp_server, **listener):
        return proxy(
            config=config(
                listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "detect", "tcp_route": "other", **listener}],
                routes=[{"name": "web", "to": "web"}, {"name": "other", "to": "other"}],
                clusters=[
                    {"name": "web", "endpoints": [raw_server().address]},
                    {"name": "other", "endpoints": [tcp_server.address]},
                ],
            )
        )

    return start


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 20])
def test_requests_are_answered_by_the_routes_however_they_are_cut(cut, detecting, server, raw_client):  # noqa: F811
    running = detecting(server(echo))
    client = raw_client(running, "db")
    head = request_bytes("GET", "/x")
    client.reader.expect("GET")
    client.send_pieces([head[:cut], head[cut:]] if cut else [head], gap_s=0.02)
    assert client.read_response().status == 200
    assert client.get("/again").status == 200
    eventually(lambda: running.stats().route("web").requests == 2)
    assert running.stats().route("other").requests == 0


@pytest.mark.parametrize("data", [b"PING\r\n", b"\0\1\2", b"GET key\r\n"])
def test_what_is_not_http_reaches_the_other_cluster_unread(data, detecting, server, connect):  # noqa: F811
    running = detecting(server(echo))
    client = connect(running)
    for octet in data:
        client.sendall(bytes([octet]))
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == data
    assert running.stats().route("web").requests == 0


@pytest.mark.parametrize("serves", [True, False])
def test_http_2_is_served_by_the_routes_unless_the_listener_leaves_it_alone(serves, detecting, server, connect):  # noqa: F811
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    running = detecting(server(echo), http2=serves)
    client = connect(running)
    for octet in preface:
        client.sendall(bytes([octet]))
    if serves:
        assert client.recv(9)[3:5] == b"\x04\0"     # a SETTINGS frame (RFC 9113 6.5)
        return
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == preface


def test_tls_passes_through_to_a_server_that_ends_it(detecting, server, connect, tmp_path):  # noqa: F811
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a.test",
         "-addext", "subjectAltName=DNS:a.test", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(certificate, key)

    def secret(sock):
        with there.wrap_socket(sock, server_side=True) as session:
            session.sendall(b"for you: " + session.recv(100))

    here = ssl.create_default_context(cafile=certificate)
    with here.wrap_socket(connect(detecting(server(secret))), server_hostname="a.test") as session:
        session.sendall(b"hello")
        assert session.recv(100) == b"for you: hello"


def test_a_client_that_waits_for_the_server_hears_it_after_the_timeout(detecting, server, connect):  # noqa: F811
    running = detecting(server(lambda sock: sock.sendall(b"220 ready\r\n")), detect_timeout="50ms")
    assert connect(running).recv(100) == b"220 ready\r\n"


def test_after_some_silent_clients_the_next_does_not_wait_as_long(detecting, server, connect):  # noqa: F811
    running = detecting(server(lambda sock: sock.sendall(b"220 ready\r\n")), detect_timeout="10ms")
    for _ in range(6):
        assert connect(running).recv(100) == b"220 ready\r\n"
    configuration = running.config.to_dict()
    configuration["listeners"][0]["detect_timeout"] = "1m"
    running.reload(configuration)
    assert connect(running).recv(100) == b"220 ready\r\n"  # a 64th of it; the whole is beyond any patience


def test_a_client_that_only_listens_is_served_at_once(detecting, server, connect):  # noqa: F811
    running = detecting(server(lambda sock: sock.sendall(b"news")), detect_timeout="1m")
    client = connect(running)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"news"


def test_half_a_request_line_and_then_silence_is_not_http(detecting, server, connect):  # noqa: F811
    running = detecting(server(echo), detect_timeout="50ms")
    client = connect(running)
    client.sendall(b"GE")
    assert client.recv(100) == b"GE"


def test_a_proxy_header_comes_before_the_first_octets_that_tell(detecting, server, connect, raw_client):  # noqa: F811
    running = detecting(server(echo), proxy_protocol="v1")
    header = b"PROXY TCP4 192.0.2.7 198.51.100.9 40001 443\r\n"
    client = connect(running)
    client.sendall(header + b"PING\r\n")
    assert client.recv(100) == b"PING\r\n"
    web = raw_client(running, "db")
    web.reader.expect("GET")
    web.send(header + request_bytes("GET", "/"))
    assert web.read_response().status == 200


def test_both_kinds_at_once_keep_apart(detecting, server, connect):  # noqa: F811
    running = detecting(server(echo))
    failures = []

    def raw():
        for _ in range(20):
            client = connect(running)
            client.sendall(b"\0binary")
            if client.recv(100) != b"\0binary":
                failures.append("raw")

    def web():
        for _ in range(20):
            client = RawClient(running.addresses["db"])
            if client.get().status != 200:
                failures.append("web")
            client.close()

    threads = [threading.Thread(target=work) for work in (raw, web) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 2)
    assert not failures
