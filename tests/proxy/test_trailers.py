"""Trailer sections: forwarded as trailers when harmless, dropped otherwise, never merged into the head."""

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import chunked

CHUNKED = {"Transfer-Encoding": "chunked"}
FORBIDDEN = ["Content-Length: 9", "Transfer-Encoding: chunked", "Host: evil.test", "Authorization: Bearer x", "Connection: close",
             "Content-Type: text/evil", "Set-Cookie: a=b", "Content-Encoding: gzip", "Trailer: x", "TE: trailers", "Cache-Control: no-store"]


def test_request_trailer_reaches_the_upstream_as_a_trailer(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-More:  two \r\n\r\n")
    assert client.read_response().status == 200
    seen = server.requests[0]
    assert (seen.trailer("x-checksum"), seen.trailer("x-more")) == ("abc", "two")
    assert "x-checksum" not in seen.names


def test_response_trailer_reaches_a_client_that_takes_trailers(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(chunked(b"hello", trailers="X-Checksum: abc\r\n"))
    client = raw_client(proxy(to=server))
    answer = client.get("/", {"TE": "trailers"})
    assert (answer.text, answer.trailer("x-checksum")) == ("hello", "abc")


def test_client_that_takes_trailers_says_so_to_the_upstream_hop_by_hop(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    raw_client(proxy(to=server)).get("/", {"TE": "trailers, deflate", "Connection": "TE"})
    # RFC 9110 10.1.4: TE is hop-by-hop; a proxy may send its own, listed in Connection.
    assert server.requests[0].all("te") in ([], ["trailers"])


@pytest.mark.parametrize("line", FORBIDDEN)
def test_forbidden_request_trailer_is_dropped(raw_server, proxy, raw_client, only_meshcore, line):
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"5\r\nhello\r\n0\r\n" + line.encode() + b"\r\nX-Kept: yes\r\n\r\n")
    assert client.read_response().status == 200
    assert [name.lower() for name, _ in server.requests[0].trailers] == [b"x-kept"]


@pytest.mark.parametrize("line", FORBIDDEN)
def test_forbidden_response_trailer_is_dropped(raw_server, proxy, raw_client, only_meshcore, line):
    server = raw_server(chunked(b"hello", trailers=line + "\r\nX-Kept: yes\r\n"))
    client = raw_client(proxy(to=server))
    for _ in range(2):
        answer = client.get("/", {"TE": "trailers"})
        assert [name.lower() for name, _ in answer.trailers] == [b"x-kept"]
        assert answer.text == "hello"


def test_trailer_section_above_its_limit_is_refused(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server, limits={"trailer_size": 256}))
    client.reader.expect("POST")
    client.send(request_bytes("POST", "/", CHUNKED) + b"0\r\nX-Long: " + b"x" * 1000 + b"\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.reason) == (400, "bad_trailer")


def test_response_trailer_is_not_sent_to_a_1_0_client(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(chunked(b"hello", trailers="X-Checksum: abc\r\n"))))
    client.request("GET", "/", version="1.0")
    client.read_to_end()
    assert client.read_response().text == "hello"


def test_connection_stays_in_step_after_trailers(raw_server, proxy, raw_client):
    server = raw_server(chunked(b"hello", trailers="X-Checksum: abc\r\n"))
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().text == "hello"
    assert server.accepted == 1
