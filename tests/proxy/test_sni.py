"""TLS that is not ended here: connections go where the name in their ClientHello says, and not an octet is changed."""

import socket
import ssl
import threading

import pytest

from tests.proxy.test_tcp import echo, read_all, server  # noqa: F401 (fixtures)
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S
from tests.scenario.tls import over_tls, pki, tls_client  # noqa: F401

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def names(pki, raw_server):  # noqa: F811
    """TLS servers by name, each with a certificate of its own: {"a.test": server, ...}."""
    return {name: raw_server(over_tls(pki.server_context(pki.root.leaf(name)))) for name in ("a.test", "x.b.test", "b.test")}


@pytest.fixture
def by_name(proxy, names, raw_server, server):  # noqa: F811
    """`by_name(**listener)`: a proxy on one port: a.test and *.b.test as TLS, HTTP to `web`, all else to `other`."""

    def start(**listener):
        routes = [
            {"name": "a", "match": {"sni": "a.test"}, "to": "a"},
            {"name": "b", "match": {"sni": "*.b.test"}, "to": "b"},
            {"name": "other", "to": "other"},
            {"name": "web", "to": "web"},
        ]
        ends = {"a": names["a.test"].address, "b": names["x.b.test"].address, "web": raw_server().address, "other": server(echo).address}
        listener = {"protocol": "detect", "tls_routes": ["a", "b"], "tcp_route": "other", "routes": ["web"], **listener}
        return proxy(
            config=config(
                listeners=[{"name": "web", "address": "127.0.0.1:0", **{key: value for key, value in listener.items() if value is not None}}],
                routes=[route for route in routes if route["name"] != "web" or listener["routes"]],
                clusters=[{"name": name, "endpoints": [address]} for name, address in ends.items() if name != "web" or listener["routes"]],
            )
        )

    return start


def hello(pki, name: str | None) -> tuple[bytes, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:  # noqa: F811
    context = pki.client_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read(), session, incoming, outgoing


@pytest.mark.parametrize("protocol", ["detect", "tcp"])
def test_each_name_reaches_its_own_server(protocol, by_name, names, tls_client):  # noqa: F811
    running = by_name(protocol=protocol, **({"routes": None} if protocol == "tcp" else {}))
    for name in ("a.test", "x.b.test"):
        client = tls_client(running, name=name)         # the certificate is that of its server: nobody ended TLS between
        assert client.get("/").status == 200
    assert [len(names[name].requests) for name in ("a.test", "x.b.test")] == [1, 1]


def test_one_port_takes_a_hello_http_and_anything_else(by_name, raw_client, h2_client, tls_client):  # noqa: F811
    running = by_name()
    assert raw_client(running).get("/").status == 200
    assert h2_client(running).get("/").status == 200
    assert tls_client(running, name="a.test").get("/").status == 200
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(b"\0 anything else")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"\0 anything else"


@pytest.mark.parametrize("name", ["c.test", "b.test", "a.test.c.test", None])
def test_a_name_of_no_route_goes_where_all_else_does(name, by_name, pki):  # noqa: F811
    running = by_name()
    octets, *_ = hello(pki, name)
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == octets


def test_without_a_tcp_route_a_name_of_no_route_is_reset(by_name, pki, tls_client):  # noqa: F811
    running = by_name(tcp_route=None)
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(hello(pki, "c.test")[0])
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    assert running.stats().reasons == {"route_not_found": 1}
    assert tls_client(running, name="a.test").get().status == 200


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("cut", ["segments", "records"])
def test_a_hello_in_pieces_goes_the_same_way(cut, size, by_name, names, pki):  # noqa: F811
    running = by_name()
    octets, session, incoming, outgoing = hello(pki, "a.test")
    if cut == "records":
        message = octets[5:]
        octets = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for at in range(0, len(message), max(size, 3)) if (part := message[at : at + max(size, 3)]))
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(octets), size):
            sock.sendall(octets[at : at + size])
        while True:
            incoming.write(sock.recv(65536))
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
        assert session.getpeercert()["subjectAltName"] == (("DNS", "a.test"),)


def test_a_hello_that_never_ends_is_given_a_handshakes_time(proxy, server):  # noqa: F811
    running = proxy(
        config=config(
            listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tls_routes": ["a"], "tcp_route": "other"}],
            routes=[{"name": "a", "match": {"sni": "a.test"}, "to": "backend"}, {"name": "other", "to": "backend"}],
            to=server(echo).address, timeouts={"tls_handshake": "200ms"},
        )
    )  # fmt: skip
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc")
        with pytest.raises(ConnectionResetError):       # what it said was looked at, and never taken
            sock.recv(100)
    assert running.stats().reasons == {"tls_handshake_timeout": 1}


def test_a_server_that_speaks_first_is_heard_on_a_port_that_routes_by_name(proxy, server):  # noqa: F811
    def greeting(sock) -> None:
        sock.sendall(b"hello")
        echo(sock)

    running = proxy(
        config=config(
            listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tls_routes": ["a"], "tcp_route": "other", "detect_timeout": "50ms"}],
            routes=[{"name": "a", "match": {"sni": "a.test"}, "to": "backend"}, {"name": "other", "to": "backend"}],
            to=server(greeting).address,
        )
    )  # fmt: skip
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        assert sock.recv(5) == b"hello"


def test_a_listener_with_tls_ends_what_is_not_passed_by(by_name, pki, tls_client, raw_client):  # noqa: F811
    own = pki.root.leaf("own.test").write(pki.folder, "own")
    running = by_name(tls={"certificates": [own]})
    assert tls_client(running, name="own.test").get("/").status == 200
    assert tls_client(running, name="a.test").get("/").status == 200         # with the certificate of its own server
    requests = {row.name: row for row in running.stats().routes}
    assert requests["web"].requests == 1
    assert running.stats().listeners[0].tls_handshakes == 1


def test_what_only_looks_like_a_hello_is_as_good_as_any_bytes(by_name):
    running = by_name()
    data = b"\x16\x03\x01\x00\x20\x01" + b"\0" * 31
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == data


def test_many_hellos_at_a_time_each_find_their_server(by_name, names, tls_client):  # noqa: F811
    running = by_name()
    failed: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            assert tls_client(running, name=("a.test", "x.b.test")[number % 2]).get().status == 200
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [len(names[name].requests) for name in ("a.test", "x.b.test")] == [8, 8]


def test_behind_a_proxy_header_names_count_too(by_name, names, pki):  # noqa: F811
    running = by_name(proxy_protocol="v1")
    octets, session, incoming, outgoing = hello(pki, "a.test")
    with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n" + octets[:60])
        sock.sendall(octets[60:])
        while True:
            incoming.write(sock.recv(65536))
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
        assert session.getpeercert()["subjectAltName"] == (("DNS", "a.test"),)


def test_a_tcp_listener_that_routes_by_name_reads_no_requests(proxy, server):  # noqa: F811
    running = proxy(
        config=config(
            listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tls_routes": ["a"], "tcp_route": "other"}],
            routes=[{"name": "a", "match": {"sni": "a.test"}, "to": "backend"}, {"name": "other", "to": "backend"}],
            to=server(echo).address,
        )
    )
    for data in (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with socket.create_connection(running.addresses["web"], PATIENCE_S) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == data
