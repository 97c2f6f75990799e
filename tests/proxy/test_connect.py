"""CONNECT: only on routes that say so, forwarded to the upstream, a tunnel after 2xx."""

from tests.scenario.clients import request_bytes
from tests.scenario.servers import response

ACCEPT = b"HTTP/1.1 200 Connection Established\r\n\r\n"


def tunnelling(connection):
    connection.read_request()
    connection.switch(ACCEPT)
    while data := connection.receive():
        connection.send(data)


def test_connect_is_refused_unless_the_route_allows_it(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.request("CONNECT", "a.test:443", host="a.test:443")
    answer = client.read_response()
    assert (answer.status, answer.reason) == (405, "method_not_allowed")
    assert server.requests == []


def test_connect_on_an_allowed_route_is_a_tunnel(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(tunnelling)
    client = raw_client(proxy(to=server, route={"connect": True}))
    client.request("CONNECT", "a.test:443", host="a.test:443")
    answer = client.read_response()
    assert (answer.status, answer.all("content-length"), answer.all("transfer-encoding")) == (200, [], [])
    client.send(b"\x16\x03\x01 hello")
    assert client.receive_tunnel(9) == b"\x16\x03\x01 hello"
    assert (server.requests[0].method, server.requests[0].path) == (b"CONNECT", "a.test:443")


def test_octets_sent_with_connect_reach_the_tunnel(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(tunnelling), route={"connect": True}))
    client.reader.expect("CONNECT")
    client.send(request_bytes("CONNECT", "a.test:443", host="a.test:443") + b"early")
    assert client.read_response().status == 200
    assert client.receive_tunnel(5) == b"early"


def test_refusal_of_the_upstream_is_an_ordinary_response(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(response(403, b"not there"))
    client = raw_client(proxy(to=server, route={"connect": True}))
    client.request("CONNECT", "a.test:443", host="a.test:443")
    answer = client.read_response()
    assert (answer.status, answer.text) == (403, "not there")


def test_connect_is_routed_by_its_authority(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(tunnelling)
    running = proxy(to=server, routes=[
        {"name": "inside", "match": {"host": "inside.test"}, "to": "backend", "connect": True},
        {"name": "rest", "respond": {"status": 403}},
    ])
    client = raw_client(running)
    client.request("CONNECT", "inside.test:443", host="inside.test:443")
    assert client.read_response().status == 200
    other = raw_client(running)
    other.reader.expect("GET")  # a refusal is an ordinary response
    other.send(request_bytes("CONNECT", "outside.test:443", host="outside.test:443"))
    assert other.read_response().status in (403, 405)


def test_end_of_one_side_of_a_connect_tunnel_reaches_the_other(raw_server, proxy, raw_client, only_meshcore):
    def counting(connection):
        connection.read_request()
        connection.switch(ACCEPT)
        n = 0
        while data := connection.receive():
            n += len(data)
        connection.send(b"%d" % n)

    client = raw_client(proxy(to=raw_server(counting), route={"connect": True}))
    client.request("CONNECT", "a.test:443", host="a.test:443")
    client.read_response()
    client.send(b"x" * 100_000)
    client.half_close()
    client.read_to_end()
    assert bytes(client.reader.tunnel) == b"100000"
