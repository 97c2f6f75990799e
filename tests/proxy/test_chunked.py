"""Chunked bodies: read strictly, re-framed, never passed on raw."""

import pytest

from tests.scenario.clients import random_pieces, request_bytes
from tests.scenario.servers import chunked, eventually

CHUNKED = {"Transfer-Encoding": "chunked"}


def random_chunks(rng, n: int) -> list[bytes]:
    return [rng.randbytes(rng.choice([1, 2, 15, 16, 17, 255, 4096, 20_000])) for _ in range(n)]


def encoded(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"


def test_chunked_request_keeps_its_body_and_stays_chunked(raw_server, proxy, raw_client, rng):
    server = raw_server()
    client = raw_client(proxy(to=server))
    chunks = random_chunks(rng, 40)
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + encoded(chunks))
    assert client.read_response().status == 200
    assert bytes(server.requests[0].body) == b"".join(chunks)
    assert server.requests[0].framing == "chunked"


def test_chunked_request_cut_anywhere_keeps_its_body(raw_server, proxy, raw_client, rng):
    server = raw_server()
    client = raw_client(proxy(to=server))
    for number in range(10):
        chunks = random_chunks(rng, 8)
        client.reader.expect("POST")
        client.send_pieces(random_pieces(request_bytes("POST", "/", CHUNKED) + encoded(chunks), rng, 100))
        assert client.read_response().status == 200
        assert bytes(server.requests[number].body) == b"".join(chunks)
    assert server.accepted == 1


def test_chunked_response_cut_anywhere_keeps_its_body(raw_server, proxy, raw_client, rng):
    bodies = [random_chunks(rng, 8) for _ in range(10)]

    def in_pieces(connection):
        for chunks in bodies:
            connection.read_request()
            for piece in random_pieces(chunked(*chunks), rng, 100):
                connection.send(piece)

    server = raw_server(in_pieces)
    client = raw_client(proxy(to=server))
    for chunks in bodies:
        assert bytes(client.get().body) == b"".join(chunks)


def test_empty_chunked_bodies_are_complete(raw_server, proxy, raw_client):
    server = raw_server(chunked())
    client = raw_client(proxy(to=server))
    for _ in range(2):
        client.reader.expect("POST")
        client.send(request_bytes("POST", "/", CHUNKED) + b"0\r\n\r\n")
        assert client.read_response().body_bytes == 0
    assert [r.body_bytes for r in server.requests] == [0, 0]


def test_chunk_extensions_end_at_the_proxy_in_both_directions(raw_server, proxy, raw_client):
    # The readers of both sides refuse a chunk size that is not plain.
    server = raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n")
    client = raw_client(proxy(to=server))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b'3 ; a = "\\"" ;b\r\nabc\r\n0;z=1\r\n\r\n')
    assert client.read_response().text == "hello"
    assert bytes(server.requests[0].body) == b"abc"


def test_a_hundred_thousand_tiny_chunks_are_joined(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"1\r\nz\r\n" * 100_000 + b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert server.requests[0].body_bytes == 100_000
    assert len(server.requests[0].raw) < 400_000


def test_chunked_response_to_a_1_0_client_ends_with_the_connection(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(chunked(b"hel", b"lo"))))
    client.request("GET", "/", version="1.0")
    client.read_to_end()
    answer = client.read_response()
    assert (answer.text, answer.all("transfer-encoding")) == ("hello", [])


def test_chunked_response_to_a_1_0_keep_alive_client_is_not_kept(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(chunked(b"hello"))))
    client.request("GET", "/", {"Connection": "keep-alive"}, version="1.0")
    client.read_to_end()
    answer = client.read_response()
    assert answer.text == "hello"
    assert "keep-alive" not in (answer.get("connection") or "")


@pytest.mark.parametrize("body", [b"5\r\nhelloX\r\n0\r\n\r\n", b"Z\r\n", b"5\nhello\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n"])
def test_malformed_chunk_of_a_client_is_its_own_fault(raw_server, proxy, raw_client, only_meshcore, body):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"3\r\nabc\r\n" + body)
    assert client.read_response().status == 400
    assert client.read_to_end() == "fin"
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.failures, endpoint.ejections) == (0, 0)
    assert server.requests == []


@pytest.mark.parametrize("body", [b"Z\r\n", b"5\nhello\r\n", b"5\r\nhelloX\r\n", b"FFFFFFFFFFFFFFFFF\r\n"])
def test_malformed_chunk_of_an_upstream_is_visible_and_blamed(raw_server, proxy, raw_client, only_meshcore, body):
    running = proxy(to=raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + body))
    client = raw_client(running)
    client.request("GET", "/")
    message = client.read_message()
    assert message is None or message.status == 502
    eventually(lambda: running.stats().cluster("backend").endpoints[0].failures == 1)


def test_chunk_line_above_the_limit_is_refused(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), limits={"chunk_line": 64}))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"1;" + b"x" * 100 + b"\r\na\r\n0\r\n\r\n")
    assert client.read_response().status in (400, 413, 431)


def test_chunk_extensions_above_their_total_are_refused(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), limits={"chunk_extension_total": 1024}))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + (b"1;" + b"x" * 100 + b"\r\na\r\n") * 20 + b"0\r\n\r\n")
    assert client.read_response().status in (400, 413, 431)
