"""Bodies of every size and framing, both directions: exact, streamed, bounded; and a cut one visibly cut."""

import hashlib
import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import PeerGone, chunked, eventually, response

SIZES = [0, 1, 2, 1000, 16_383, 16_384, 16_385, 65_536, 131_072, 262_145, 1 << 20, 5_000_003]


def pattern(size: int) -> bytes:
    """Bytes in which every offset is told from its neighbours."""
    block = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(64))
    return (block * (size // len(block) + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_response_by_length_is_delivered_exactly(raw_server, proxy, raw_client, size):
    client = raw_client(proxy(to=raw_server(response(body=pattern(size)))))
    for _ in range(2):
        answer = client.get()
        assert answer.body_bytes == size
        assert bytes(answer.body) == pattern(size)[: len(answer.body)]
        assert answer.get("content-length") == str(size)


@pytest.mark.parametrize("size", SIZES)
def test_request_by_length_is_delivered_exactly(raw_server, proxy, raw_client, size):
    server = raw_server()
    client = raw_client(proxy(to=server))
    for number in range(2):
        assert client.post("/", pattern(size), {"Content-Length": str(size)}).status == 200
        seen = server.requests[number]
        assert seen.body_bytes == size
        assert bytes(seen.body) == pattern(size)[: len(seen.body)]


def test_response_until_close_is_delivered_whole(raw_server, proxy, raw_client):
    def until_close(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + pattern(300_000))

    client = raw_client(proxy(to=raw_server(until_close)))
    answer = client.get()
    assert bytes(answer.body) == pattern(300_000)
    assert answer.framing in ("chunked", "close")


def test_response_until_close_keeps_a_1_1_client_connected(raw_server, proxy, raw_client, only_meshcore):
    def until_close(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    client = raw_client(proxy(to=raw_server(until_close)))
    assert [client.get().text for _ in range(2)] == ["hello", "hello"]


def test_empty_response_until_close_is_complete(raw_server, proxy, raw_client):
    def until_close(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

    assert raw_client(proxy(to=raw_server(until_close))).get().body_bytes == 0


def test_head_keeps_the_length_and_has_no_body(raw_server, proxy, raw_client):
    server = raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    client = raw_client(proxy(to=server))
    for _ in range(2):
        client.request("HEAD", "/")
        answer = client.read_response()
        assert (answer.get("content-length"), answer.body_bytes) == ("12345", 0)
    assert server.accepted == 1


def test_head_of_a_chunked_resource_has_no_body(raw_server, proxy, raw_client):
    server = raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client = raw_client(proxy(to=server))
    for _ in range(2):
        client.request("HEAD", "/")
        assert client.read_response().status == 200
    assert server.accepted == 1


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_status_has_no_body(raw_server, proxy, raw_client, status):
    server = raw_server(response(status, b""))
    client = raw_client(proxy(to=server))
    for _ in range(2):
        assert client.get().status == status
    assert server.accepted == 1


def test_not_modified_may_keep_its_length(raw_server, proxy, raw_client):
    server = raw_server(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n")
    client = raw_client(proxy(to=server))
    assert [client.get().get("etag") for _ in range(2)] == ['"x"', '"x"']


# --- streaming ---------------------------------------------------------------------------------------------------------


def test_response_is_passed_on_as_it_comes(raw_server, proxy, raw_client):
    half_seen = threading.Event()

    def halves(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        assert half_seen.wait(5)
        connection.send(b"rest")

    client = raw_client(proxy(to=raw_server(halves)))
    client.request("GET", "/")
    while client.reader.partial is None or client.reader.partial.body != b"half":
        assert client.receive()
    half_seen.set()
    assert client.read_response().text == "halfrest"


def test_chunked_response_is_passed_on_as_it_comes(raw_server, proxy, raw_client):
    half_seen = threading.Event()

    def halves(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        assert half_seen.wait(5)
        connection.send(b"4\r\nrest\r\n0\r\n\r\n")

    client = raw_client(proxy(to=raw_server(halves)))
    client.request("GET", "/")
    while client.reader.partial is None or client.reader.partial.body != b"half":
        assert client.receive()
    half_seen.set()
    assert client.read_response().text == "halfrest"


def test_request_is_passed_on_as_it_comes(raw_server, proxy, raw_client):
    half_seen = threading.Event()

    def watching(connection):
        connection.read_head()
        while connection.reader.partial is not None and connection.reader.partial.body != b"half":
            connection.reader.feed(connection.receive())
        half_seen.set()
        connection.answer()

    client = raw_client(proxy(to=raw_server(watching)))
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\nhalf")
    assert half_seen.wait(5)
    client.send(b"rest")
    assert client.read_response().status == 200


def test_client_that_does_not_read_stops_the_upstream(raw_server, proxy, raw_client, only_meshcore):
    sent = [0]

    def endless(connection):
        connection.read_request()
        connection.sock.settimeout(0.3)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                sent[0] += connection.sock.send(b"x" * 65536)
        except (TimeoutError, ConnectionError):
            pass
        raise PeerGone

    running = proxy(to=raw_server(endless))
    client = raw_client(running, receive_buffer=8192)
    client.request("GET", "/")
    eventually(lambda: sent[0] > 0)
    raw_client(running).sock.close()
    client.receive(100)
    previous = -1
    while previous != sent[0]:
        previous = sent[0]
        threading.Event().wait(0.1)
    # Kernel buffers on four socket ends hold megabytes; a proxy without bounds would hold all of it.
    assert sent[0] < 64 << 20


def test_upstream_that_does_not_read_stops_the_client(raw_server, proxy, raw_client, only_meshcore):
    release = threading.Event()

    def not_reading(connection):
        connection.read_head()
        release.wait(10)
        raise PeerGone

    client = raw_client(proxy(to=raw_server(not_reading)))
    client.sock.settimeout(0.3)
    sent = 0
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n")
    with pytest.raises(TimeoutError):
        while sent < 512 << 20:
            sent += client.sock.send(b"x" * 65536)
    release.set()
    assert sent < 64 << 20


# --- early ends --------------------------------------------------------------------------------------------------------


def test_early_final_response_is_delivered_and_the_connection_closed(raw_server, proxy, raw_client):
    def refusing(connection):
        connection.read_head()
        connection.send(response(413, b"too much"))
        connection.wait_closed()

    client = raw_client(proxy(to=raw_server(refusing)))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nsome")
    answer = client.read_response()
    assert (answer.status, answer.text) == (413, "too much")
    client.send(b"x" * 99_996)
    client.read_to_end()


def cut_after(data: bytes, how: str):
    def script(connection):
        connection.read_request()
        connection.send(data)
        # The proxy must have read it, else a reset overtakes it.
        threading.Event().wait(0.03)
        if how == "rst":
            connection.reset()

    return script


TRUNCATED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "length-large": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 400_000,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "chunked-mid-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
    "chunked-mid-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
    "chunked-mid-trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
def test_cut_response_is_visibly_cut(raw_server, proxy, raw_client, data, how):
    client = raw_client(proxy(to=raw_server(cut_after(data, how))))
    client.request("GET", "/")
    client.read_to_end()
    assert not client.reader.messages, "a truncated response was delivered as complete"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_response_counts_as_a_failure_of_the_endpoint(raw_server, proxy, raw_client, only_meshcore, how):
    running = proxy(to=raw_server(cut_after(TRUNCATED["length"], how)))
    client = raw_client(running)
    client.request("GET", "/")
    client.read_to_end()
    eventually(lambda: running.stats().cluster("backend").endpoints[0].failures == 1)


def test_reset_of_a_response_until_close_is_visibly_cut(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(cut_after(b"HTTP/1.1 200 OK\r\n\r\nhello", "rst"))))
    client.request("GET", "/")
    assert not (client.read_to_end() == "fin" and client.reader.messages)


def test_cut_response_is_visible_to_a_1_0_client_by_its_length(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(cut_after(TRUNCATED["length"], "fin"))))
    client.request("GET", "/", version="1.0")
    client.read_to_end()
    assert not client.reader.messages


def test_cut_chunked_response_is_visible_to_a_1_0_client_as_a_reset(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(cut_after(TRUNCATED["chunked"], "fin"))))
    client.request("GET", "/", version="1.0")
    assert client.read_to_end() == "rst"


# --- limits ------------------------------------------------------------------------------------------------------------


def test_declared_body_above_the_route_limit_is_refused(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server, route={"max_body": "10"}))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.reason) == (413, "body_too_large")
    assert client.read_to_end() == "fin"
    assert server.accepted == 0


def test_body_at_the_route_limit_passes(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), route={"max_body": 10}))
    assert client.post("/", b"0123456789").status == 200


def test_chunked_body_that_grows_above_the_route_limit_is_refused(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    running = proxy(to=server, route={"max_body": 10})
    client = raw_client(running)
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", {"Transfer-Encoding": "chunked"}) + b"6\r\nabcdef\r\n6\r\nghijkl\r\n0\r\n\r\n")
    assert client.read_response().reason == "body_too_large"
    assert server.requests == []
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_chunked_response_and_length_request_cross_without_mixing(raw_server, proxy, raw_client):
    server = raw_server(lambda c: [c.send(chunked(bytes(c.read_request().body), b"!")) for _ in range(9)])
    client = raw_client(proxy(to=server))
    for n in (1, 1000, 70_000):
        assert client.post("/", pattern(n)).body_bytes == n + 1
