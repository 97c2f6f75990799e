"""The mesh hop: requests of HTTP/1 ride one HTTP/2 connection between two proxies, and are what they were behind it."""

import pytest

from meshcore import Binding, BoundCluster, BoundEndpoint
from meshcore.config import Cluster
from tests.proxy.named import NamedProxy
from tests.proxy.test_upgrade import UPGRADE, echoing
from tests.scenario import h2_frames as h2
from tests.scenario.servers import answering, chunked, response
from tests.scenario.tls import CLIENT_ID, pki, tls_client  # noqa: F401

pytestmark = pytest.mark.usefixtures("only_meshcore")

MARKED = [("l5d-orig-proto", "HTTP/1.1")]
HOP = {"mesh_hop": "on"}
POST = b"POST /p?q=1 HTTP/1.1\r\nHost: a.test\r\n"
REQUESTS = {
    "plain": b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: a.test:81\r\nX-One: 1\r\nX-One: 2\r\nAccept: */*\r\n\r\n",
    "of 1.0": b"GET / HTTP/1.0\r\n\r\n",
    "of 1.0, kept alive": b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    "absolute-form": b"GET http://b.test:8080/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "absolute-form without a path": b"OPTIONS http://b.test HTTP/1.1\r\nHost: b.test\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "an extension method": b"PURGE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a body by length": POST + b"Content-Length: 5\r\nContent-Type: text/x\r\n\r\nhello",
    "a body of no octets": POST + b"Content-Length: 0\r\n\r\n",
    "a chunked body": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n",
    "a large body": POST + b"Content-Length: 300000\r\n\r\n" + bytes(300_000),
    "trailers": POST + b"Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: abc\r\nContent-Length: 9\r\n\r\n",
    "trailers wanted": b"GET /trailers HTTP/1.1\r\nHost: a.test\r\nTE: trailers, gzip\r\nConnection: te\r\n\r\n",
    "fields of its hop": b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\r\n",
    "an upgrade nobody offers": b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "cookies": b"GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a=b; c=d\r\nAuthorization: Basic eA==\r\n\r\n",
    "an expectation": POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "a claim to ride": b"GET / HTTP/1.1\r\nHost: a.test\r\nl5d-orig-proto: HTTP/1.0\r\n\r\n",
    "no content": b"DELETE /none HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "not modified": b"GET /same HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: x\r\n\r\n",
    "an answer until the end": b"GET /close HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "an answer with a phrase": b"GET /phrase HTTP/1.1\r\nHost: a.test\r\n\r\n",
}
ANSWERS = {
    "/trailers": chunked(b"hello", trailers="X-Sum: abc\r\n"),
    "/none": response(204),
    "/same": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
    "/phrase": response(200, b"ok", reason="Quite Fine"),
}


def serving(connection):
    while True:
        request = connection.read_request()
        if request.path == "/close":
            connection.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            return
        answer = ANSWERS.get(request.path) or response(200, b"" if request.method == b"HEAD" else b"ok", {"Set-Cookie": "a=b", "X-Two": "2"})
        connection.send(answer)


@pytest.fixture
def pair(proxy):
    """`pair(server, hop="on")`: a proxy before another before `server`. Returns both."""

    def start(server, hop: str = "on", **words):
        far = proxy(to=server, listeners=[{"name": "web", "address": "127.0.0.1:0", "mesh_hop": hop}], **words)
        return proxy(to=f"127.0.0.1:{far.addresses['web'][1]}", cluster={"mesh_hop": hop}, **words), far

    return start


def essence(message, *, of_request: bool):
    """All that a message says, but the order and the case of its field names, and who it came through at what time."""
    fields = sorted((name.lower(), value) for name, value in message.fields if name.lower() not in (b"x-request-id", b"traceparent", b"date"))
    line = (message.method, message.target) if of_request else (message.status, message.first_line)
    return line, message.version, fields, message.framing, bytes(message.body), sorted((name.lower(), value) for name, value in message.trailers)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_same_with_and_without_the_hop(name, pair, raw_server, raw_client):
    seen = {}
    for hop in ("off", "on"):
        server = raw_server(serving)
        near, far = pair(server, hop, route={"upgrade": True})
        client = raw_client(near)
        client.reader.expect(REQUESTS[name].split()[0])
        client.send(REQUESTS[name])
        answer = client.read_response()
        seen[hop] = essence(server.requests[0], of_request=True), essence(answer, of_request=False)
        assert far.stats().requests == 1
    (request_off, answer_off), (request_on, answer_on) = seen["off"], seen["on"]
    assert request_on == request_off
    assert answer_on == answer_off


def test_connections_of_http1_share_one_of_the_hop(pair, raw_server, raw_client):
    near, far = pair(raw_server())
    clients = [raw_client(near) for _ in range(8)]
    for client in clients * 3:
        assert client.get().status == 200
    assert far.stats().listeners[0].accepted == 1
    assert near.stats().listeners[0].accepted == 8


@pytest.mark.parametrize("line, mark", [
    ("GET / HTTP/1.1", "HTTP/1.1"), ("GET / HTTP/1.0", "HTTP/1.0"), ("GET http://a.test/ HTTP/1.1", "HTTP/1.1; absolute-form"),
    ("GET http://a.test/ HTTP/1.0", "HTTP/1.0; absolute-form"),
])
def test_what_rides_says_what_it_was(line, mark, h2_server, proxy, raw_client):
    server = h2_server()
    client = raw_client(proxy(to=server, cluster=HOP))
    client.reader.expect("GET")
    client.send(f"{line}\r\nHost: a.test\r\nl5d-orig-proto: HTTP/3\r\n\r\n".encode())
    assert client.read_response().status == 200
    [seen] = server.requests
    assert (seen.get("l5d-orig-proto"), seen.get(":authority"), seen.get(":path")) == (mark, "a.test", "/")


def test_http2_rides_unmarked(h2_server, h2_proxy, h2_client):
    server = h2_server()
    assert h2_client(h2_proxy(to=server, cluster=HOP)).get().status == 200
    assert server.requests[0].all("l5d-orig-proto") == []


def test_an_upgrade_goes_in_http1_beside_the_hop(pair, raw_server, raw_client):
    near, far = pair(raw_server(lambda connection: echoing(connection) if connection.number else connection.answer()))
    assert raw_client(near).get().status == 200
    client = raw_client(near)
    assert client.get("/chat", UPGRADE).status == 101
    client.send(b"\x81\x05hello")
    assert client.receive_tunnel(7) == b"\x81\x05hello"
    assert far.stats().listeners[0].accepted == 2


def test_a_far_side_that_speaks_as_its_client_did_speaks_http1(raw_server, proxy, raw_client):
    server = raw_server()
    far = proxy(to=server, cluster={"protocol": "same"}, listeners=[{"name": "web", "address": "127.0.0.1:0", "mesh_hop": "on"}])
    near = proxy(to=f"127.0.0.1:{far.addresses['web'][1]}", cluster=HOP)
    assert raw_client(near).post("/", b"hello").text == "ok"
    assert server.requests[0].body == b"hello"


def test_a_request_of_http2_is_not_restored(h2_server, h2_client, h2_proxy):
    server = h2_server()
    running = h2_proxy(to=server, cluster={"protocol": "same"}, listeners=[{"name": "web", "address": "127.0.0.1:0", "mesh_hop": "on"}])
    for fields in ([], [("l5d-orig-proto", "HTTP/2.0")], [("l5d-orig-proto", "HTTP/1.1"), ("l5d-orig-proto", "HTTP/1.1")], [("l5d-orig-proto", "HTTP/1.12")]):
        assert h2_client(running).get(fields=fields).status == 200
    assert [message.all("l5d-orig-proto") for message in server.requests] == [[]] * 4


@pytest.mark.parametrize("trusted", [False, True])
def test_a_mark_is_not_believed_where_no_hop_ends(trusted, h2_server, h2_client, h2_proxy):
    server = h2_server()
    listener = {"name": "web", "address": "127.0.0.1:0", "trust_mesh_headers": trusted}
    assert h2_client(h2_proxy(to=server, cluster={"protocol": "same"}, listeners=[listener])).get(fields=MARKED).status == 200
    assert server.requests[0].all("l5d-orig-proto") == []         # spoken to in HTTP/2, and told nothing


@pytest.mark.parametrize("known", [False, True])
def test_under_tls_only_a_client_with_a_certificate_is_believed(known, raw_server, h2_server, proxy, pki, raw_client):  # noqa: F811
    servers = {"h1": raw_server(), "h2": h2_server()}
    listeners = pki.mutual(client_auth="optional")
    listeners[0]["mesh_hop"] = "on"
    far = proxy(to=servers["h1" if known else "h2"], cluster={"protocol": "same"}, listeners=listeners)
    near_tls = {"tls": pki.upstream()["tls"] | (pki.client_files if known else {})}
    near = proxy(to=f"127.0.0.1:{far.addresses['web'][1]}", cluster={**HOP, **near_tls})
    assert raw_client(near).get().status == 200
    [seen] = servers["h1" if known else "h2"].requests
    assert seen.get("l5d-client-id") == (CLIENT_ID if known else None)


def test_under_tls_an_upgrade_takes_a_connection_of_http1_beside_the_hop(raw_server, proxy, pki, raw_client):  # noqa: F811
    server = raw_server(lambda connection: echoing(connection) if connection.number else connection.answer())
    listeners = pki.mutual()
    listeners[0]["mesh_hop"] = "on"
    far = proxy(to=server, listeners=listeners)
    near = proxy(to=f"127.0.0.1:{far.addresses['web'][1]}", cluster={**HOP, "tls": pki.upstream()["tls"] | pki.client_files})
    assert raw_client(near).get().status == 200
    client = raw_client(near)
    assert client.get("/chat", UPGRADE).status == 101
    client.send(b"\x81\x05hello")
    assert client.receive_tunnel(7) == b"\x81\x05hello"
    assert far.stats().listeners[0].accepted == 2


def test_endpoints_with_and_without_the_hop_stand_side_by_side(raw_server, proxy, raw_client):
    behind, plain = raw_server(), raw_server()
    far = proxy(to=behind, listeners=[{"name": "web", "address": "127.0.0.1:0", "mesh_hop": "on"}])
    endpoints = (
        BoundEndpoint(address=f"127.0.0.1:{far.addresses['web'][1]}", protocol="mesh_hop"),
        BoundEndpoint(address=plain.address),
    )
    both = BoundCluster(name="both", endpoints=endpoints, settings=Cluster(name="both", balancer="round_robin"))
    near = NamedProxy({"a.test:80": Binding(clusters=(both,))})
    try:
        clients = [raw_client(near) for _ in range(4)]
        for client in clients * 3:
            assert client.post("/", b"hello").status == 200
        assert (len(behind.requests), len(plain.requests)) == (6, 6)
        assert far.stats().listeners[0].accepted == 1
        assert {seen.get("l5d-orig-proto") for seen in (*behind.requests, *plain.requests)} == {None}
    finally:
        near.stop()


def test_an_endpoint_that_ends_a_stream_is_an_error_of_http1(h2_server, proxy, raw_client):
    def refusing(connection):
        request = connection.next_request()
        connection.send(h2.rst_stream(request.stream, h2.INTERNAL_ERROR))
        connection.read_to_end()

    client = raw_client(proxy(to=h2_server(refusing), cluster=HOP, route={"retries": {"max_attempts": 1}}))
    answer = client.get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "upstream_reset")


def test_a_client_of_http1_that_leaves_ends_its_stream_and_no_other(h2_server, proxy, raw_client):
    ended = []

    def script(connection):
        by_path = {request.path: request for request in (connection.next_request(), connection.next_request())}
        leaving.reset()
        ended.append(connection.wait_reset(by_path["/slow"].stream))
        connection.respond(by_path["/"].stream)
        connection.read_to_end()

    running = proxy(to=h2_server(script), cluster=HOP)
    leaving, staying = raw_client(running), raw_client(running)
    leaving.request("GET", "/slow")
    staying.request("GET", "/")
    assert staying.read_response().status == 200
    assert ended == [h2.CANCEL]


def test_answers_in_one_read_are_each_given_to_who_asked(raw_server, pair, raw_client):
    near, _ = pair(raw_server(answering(lambda message: response(200, message.target))))
    clients = [raw_client(near) for _ in range(20)]
    for number, client in enumerate(clients):
        client.request("GET", f"/{number}")
    assert [client.read_response().body for client in clients] == [f"/{number}".encode() for number in range(20)]
