"""Moments that rarely coincide: an early answer and an unsent body, a reload and a waiting filter, a drain and a slow reader.

Each was a way to lose or mix up a message; what they share is that no single peer misbehaves.
"""

import socket
import threading

import pytest

import meshcore
from tests.scenario.clients import request_bytes
from tests.scenario.proxies import config, free_port
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")


class Gate:
    """A filter that waits to be let on; then does what it is told."""

    def __init__(self, then=lambda message: None):
        self.entered, self.release, self.then = threading.Event(), threading.Event(), then

    def __call__(self, message):
        self.entered.set()
        assert self.release.wait(10)
        return self.then(message)


@pytest.fixture
def filtered():
    """`filtered(on_request=…, on_response=…, **words)`: a started proxy with a filter on the route `all`."""
    running = []

    def start(on_request=None, on_response=None, **words):
        proxy = meshcore.Proxy(config(**words))
        if on_request is not None:
            proxy.on_request(route="all")(on_request)
        if on_response is not None:
            proxy.on_response(route="all")(on_response)
        proxy.start()
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        proxy.stop()


def gauges(proxy) -> dict:
    stats = proxy.stats()
    return {
        "in_flight": sum(worker.in_flight for worker in stats.workers),
        "buffers": sum(worker.buffers_bytes for worker in stats.workers),
        "active": sum(endpoint.active for cluster in stats.clusters for endpoint in cluster.endpoints),
    }


AT_REST = {"in_flight": 0, "buffers": 0, "active": 0}


# --- answers that come before the request is out -----------------------------------------------------------------------

@pytest.mark.parametrize("with_head", [True, False])
def test_connection_with_an_unsent_request_is_never_used_again(raw_server, proxy, raw_client, with_head):
    go_on = threading.Event()

    def hasty(connection):
        if connection.number == 0:
            connection.reader.feed(connection.sock.recv(16))
            connection.send(response(body=b"hasty"))
            assert go_on.wait(10)
            assert connection.read_request().body == b"x" * 60000
        while True:
            connection.answer(body=b"second")

    server = raw_server(hasty)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    running = proxy(to=server)
    client = raw_client(running)
    head = b"PUT /first HTTP/1.1\r\nHost: a.test\r\nContent-Length: 60000\r\n\r\n"
    client.reader.expect("PUT")
    if with_head:
        client.send(head + b"x" * 60000)
    else:
        client.send(head)
        eventually(lambda: server.accepted == 1)
        client.send(b"x" * 60000)
    assert client.read_response().text == "hasty"
    other = raw_client(running)
    other.request("GET", "/second")
    threading.Event().wait(0.05)
    go_on.set()
    assert other.read_response().text == "second"
    assert server.requests[-1].target == b"/second"
    other.close()
    client.close()
    eventually(lambda: gauges(running) == AT_REST)


def test_early_answer_does_not_stop_the_rest_of_the_request(raw_server, proxy, raw_client):
    def both_ways(connection):
        connection.sock.recv(16)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        received = 16
        while received < 60000:
            received += len(connection.receive())
        connection.send(b"cd")

    server = raw_server(both_ways)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client = raw_client(proxy(to=server))
    client.request("PUT", "/", body=b"x" * 60000)
    assert client.read_response().text == "abcd"


def test_client_that_stops_its_body_at_an_early_answer_gets_all_of_it(raw_server, proxy, raw_client):
    def early(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            threading.Event().wait(0.05)
            connection.send(b"1\r\nx\r\n")
        connection.send(b"0\r\n\r\n")
        connection.wait_closed()

    limits = {"body_min_rate": 1000, "body_min_rate_grace": "100ms"}
    client = raw_client(proxy(to=raw_server(early), limits=limits))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhello")
    assert client.read_response().body == b"x" * 8


# --- pieces -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cut", range(1, 8))
def test_request_behind_a_cut_last_chunk_stays_whole(raw_server, proxy, raw_client, cut):
    server = raw_server()
    client = raw_client(proxy(to=server))
    first = b"POST /1 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    at = len(first) - cut
    client.reader.expect("POST")
    client.reader.expect("GET")
    client.send(first[:at])
    eventually(lambda: server.accepted == 1)
    threading.Event().wait(0.02)
    client.send(first[at:] + request_bytes("GET", "/2"))
    assert [client.read_response().status for _ in range(2)] == [200, 200]
    assert [(r.method, r.target) for r in server.requests] == [(b"POST", b"/1"), (b"GET", b"/2")]


# --- reloads -------------------------------------------------------------------------------------------------------------

def listening(*names_and_ports, status: int):
    """A configuration of direct answers: every listener has its own route of its own status."""
    return config(
        clusters=[],
        routes=[{"name": f"r{port}", "respond": {"status": status}} for _, port in names_and_ports],
        listeners=[{"name": name, "address": f"127.0.0.1:{port}", "routes": [f"r{port}"]} for name, port in names_and_ports],
    )


def test_connection_of_a_removed_listener_is_never_served_by_a_new_one(proxy, raw_client):
    kept, old, new = free_port(), free_port(), free_port()
    running = proxy(config=listening(("kept", kept), ("old", old), status=200))
    client = raw_client(running, "old")
    eventually(lambda: running.stats().workers[0].connections == 1)
    running.reload(listening(("kept", kept), status=201))
    running.reload(listening(("kept", kept), status=202))
    running.reload(listening(("kept", kept), ("new", new), status=203))
    client.request("GET", "/")
    message = client.read_message()
    assert message is None or message.status == 503
    client.read_to_end()
    eventually(lambda: running.stats().workers[0].connections == 0)
    assert [listener.active for listener in running.stats().listeners] == [0, 0]


def test_cluster_picked_by_name_during_a_reload_is_the_one_of_that_name(raw_server, filtered, raw_client):
    def pick(request):
        request.cluster = "second"

    gate = Gate(pick)
    first, second, third = raw_server(), raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"), raw_server()
    rows = [{"name": "backend", "endpoints": [first.address]}, {"name": "second", "endpoints": [second.address]}]
    more = [{"name": f"more{i}", "endpoints": [third.address]} for i in range(300)]
    running = filtered(gate, clusters=rows)
    client = raw_client(running)
    client.request("GET", "/")
    assert gate.entered.wait(10)
    running.reload(config(clusters=more + rows))
    gate.release.set()
    assert client.read_response().text == "second"


def test_no_request_of_a_new_route_slips_past_its_filter(raw_server, raw_client):
    server = raw_server()
    plain = config(to=server, routes=[{"name": "all", "match": {"path": "/old"}, "to": "backend"}])
    both = config(to=server, routes=plain["routes"] + [{"name": "guarded", "match": {"path": "/guarded"}, "to": "backend"}])
    with meshcore.Proxy(plain) as running:
        stop = threading.Event()
        seen = set()

        def knock():
            while not stop.is_set():
                client = raw_client(running)
                for _ in range(20):
                    seen.add(client.get("/guarded").status)
                client.close()

        threads = [threading.Thread(target=knock, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        # Registered for every route, so that the route is guarded from its first moment.
        running.on_request(route="*")(lambda request: meshcore.Response(403) if request.path == "/guarded" else None)
        for _ in range(15):
            running.reload(both)
            running.reload(plain)
        running.reload(both)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert seen <= {403, 404} and not server.requests


def test_request_queued_for_a_cluster_that_is_removed_is_still_served(raw_server, proxy, raw_client):
    asked, release = threading.Event(), threading.Event()

    def slow(connection):
        while True:
            connection.read_request()
            asked.set()
            assert release.wait(10)
            connection.send(response(body=b"served"))

    running = proxy(to=raw_server(slow), cluster={"max_connections": 1, "queue_timeout": "8s"})
    clients = [raw_client(running) for _ in range(3)]
    for client in clients:
        client.request("GET", "/")
    assert asked.wait(10)
    eventually(lambda: running.stats().clusters[0].queue_len == 2)
    running.reload(config(clusters=[], routes=[{"name": "all", "respond": {"status": 204}}]))
    release.set()
    assert [client.read_response().text for client in clients] == ["served"] * 3


def test_stop_while_requests_wait_for_a_filter_is_clean(raw_server, filtered, raw_client):
    gate = Gate()
    running = filtered(gate, to=raw_server())
    padding = [(f"x-{i}", "y" * 8000) for i in range(3)]
    clients = [raw_client(running) for _ in range(60)]
    for client in clients:
        client.request("GET", "/", padding)
    assert gate.entered.wait(10)
    eventually(lambda: running.stats().workers[0].filters_waiting == 60)
    stopping = threading.Thread(target=running.stop, daemon=True)
    stopping.start()
    threading.Event().wait(0.1)
    gate.release.set()
    stopping.join(10)
    assert not stopping.is_alive()


# --- leaving -------------------------------------------------------------------------------------------------------------

def test_drain_waits_for_output_a_slow_client_has_not_taken(raw_server, proxy, raw_client):
    size = 8_000_000
    running = proxy(to=raw_server(response(body=b"x" * size)))
    client = raw_client(running, receive_buffer=4096)
    assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 65536
    client.request("GET", "/")
    received = 0
    while size + 200 - received > 400_000:
        received += len(client.receive(min(65536, size + 200 - received - 400_000 + 1)))
    # What is left is in the proxy's and the kernel's buffers: the exchange may be over, the answer is not.
    threading.Event().wait(0.05)
    leaving = threading.Thread(target=running.drain, args=(10,), daemon=True)
    leaving.start()
    threading.Event().wait(0.05)
    assert client.read_response().body_bytes == size
    leaving.join(10)
    assert not leaving.is_alive()


# --- tunnels ---------------------------------------------------------------------------------------------------------------

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def test_client_that_finishes_and_then_resets_ends_the_tunnel(raw_server, proxy, raw_client):
    half_closed, over = threading.Event(), threading.Event()

    def silent(connection):
        connection.read_head()
        connection.switch(SWITCH)
        connection.wait_closed()
        half_closed.set()
        over.wait(10)                   # it never sends: no write of its own tells that nobody reads any more

    running = proxy(to=raw_server(silent))
    client = raw_client(running)
    client.send(UPGRADE)
    assert client.receive().startswith(b"HTTP/1.1 101")
    client.half_close()
    assert half_closed.wait(10)
    client.reset()
    eventually(lambda: gauges(running) == AT_REST)
    over.set()


# --- filters ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sent, changed", [("GET", "HEAD"), ("HEAD", "GET"), ("GET", "CONNECT")])
def test_filter_may_not_change_what_an_answer_looks_like(raw_server, filtered, raw_client, sent, changed):
    def change(request):
        request.method = changed

    running = filtered(change, to=raw_server())
    client = raw_client(running)
    client.request(sent, "/")
    answer = client.read_response()
    assert (answer.status, answer.get("x-mesh-reason")) == (500, "filter_error")


def test_request_a_filter_made_unsafe_is_not_repeated(raw_server, filtered, raw_client):
    def change(request):
        request.method = "POST"

    def dies(connection):
        connection.read_request()
        connection.reset()

    server = raw_server(dies)
    client = raw_client(filtered(change, to=server, route={"retries": {"max_attempts": 3, "on": ["reset"]}}))
    assert client.get("/").status == 502
    assert len(server.requests) == 1


def test_answer_of_a_filter_larger_than_any_buffer_arrives_whole(raw_server, filtered, raw_client):
    body = bytes(range(256)) * 40_000
    running = filtered(lambda request: meshcore.Response(200, body), to=raw_server())
    client = raw_client(running, receive_buffer=4096)
    client.request("GET", "/")
    threading.Event().wait(0.1)
    assert client.read_response().body_bytes == len(body)


def test_body_goes_on_after_the_response_filter_spoke(raw_server, filtered, raw_client):
    def both_ways(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        got = b""
        while len(got) < 5:
            got += connection.receive()
        connection.send(got)

    gate = Gate()
    client = raw_client(filtered(on_response=gate, to=raw_server(both_ways)))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n")
    assert gate.entered.wait(10)
    client.send(b"hello")
    threading.Event().wait(0.05)
    gate.release.set()
    assert client.read_response().text == "hello"
