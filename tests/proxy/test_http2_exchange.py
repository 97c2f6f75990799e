"""One exchange with HTTP/2 on either side, or on both: what a message says arrives, whatever carries it."""

import pytest

from tests.proxy.test_bodies import SIZES, pattern
from tests.scenario.h2_links import answering, sends_http2
from tests.scenario.servers import response

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FROBNICATE"]


def method_of(message) -> str:
    return message.method.decode() if isinstance(message.method, bytes) else message.method


@pytest.mark.parametrize("method", METHODS)
def test_method_path_and_authority_arrive(link, method):
    client, server, *_ = link()
    body = None if method in ("GET", "OPTIONS", "DELETE") else b"content"
    stream = client.request(method, "/a/b?c=d&e=%20", [("x-kept", "k")], body or (b"" if not hasattr(client, "response") else None))
    answer = client.response(stream) if stream else client.read_response()
    assert answer.status == 200
    seen = server.requests[0]
    assert (method_of(seen), seen.path) == (method, "/a/b?c=d&e=%20")
    assert (seen.get("host") or seen.get(":authority")) == "a.test"
    assert (seen.get("x-kept"), bytes(seen.body)) == ("k", body or b"")


@pytest.mark.parametrize("size", SIZES)
def test_response_is_delivered_exactly(link, size):
    client, *_ = link(answering(body=pattern(size)))
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.body_bytes) == (200, size)
        assert bytes(answer.body) == pattern(size)[: len(answer.body)]


@pytest.mark.parametrize("size", SIZES)
def test_request_is_delivered_exactly(link, size):
    client, server, *_ = link()
    for number in range(2):
        assert client.post("/", pattern(size), {"content-length": str(size)}).status == 200
        assert server.requests[number].body_bytes == size
        assert bytes(server.requests[number].body) == pattern(size)[: len(server.requests[number].body)]


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_request_of_unknown_length_is_delivered_exactly(h2_server, raw_server, h2_client, h2_proxy, size):
    for server, upstream in ((raw_server(), "http1"), (h2_server(), "http2")):
        if upstream == "http2" and not speaks_upstream():
            continue
        assert h2_client(h2_proxy(to=server, upstream=upstream)).post("/", pattern(size)).status == 200
        assert server.requests[0].body_bytes == size


def speaks_upstream() -> bool:
    from tests.scenario.h2_proxies import chosen_speaks_http2_upstream

    return chosen_speaks_http2_upstream()


def test_megabytes_pass_both_ways_at_once(link):
    def echo(connection):
        while True:
            if sends_http2(connection):
                request = connection.next_request()
                connection.respond(request.stream, body=bytes(request.body))
            else:
                request = connection.read_request()
                connection.send(response(body=bytes(request.body)))

    client, *_ = link(echo)
    body = pattern(1_000_000)
    assert bytes(client.post("/", body).body) == body


@pytest.mark.parametrize("status", [200, 201, 204, 206, 301, 304, 404, 418, 500, 503])
def test_status_arrives(link, status):
    client, *_ = link(answering(status, b"" if status in (204, 304) else b"text", {"x-kept": "k"}))
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.get("x-kept"), answer.text) == (status, "k", "" if status in (204, 304) else "text")


def test_answer_to_head_has_the_length_and_no_body(link):
    def head(connection):
        while True:
            if sends_http2(connection):
                request = connection.next_request()
                connection.send_headers(request.stream, [(":status", "200"), ("content-length", "1234")], end_stream=True)
            else:
                connection.read_request()
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")

    client, *_ = link(head)
    for _ in range(2):
        stream = client.request("HEAD", "/")
        answer = client.response(stream) if stream else client.read_response()
        assert (answer.status, answer.get("content-length"), answer.body_bytes) == (200, "1234", 0)


def test_length_of_a_body_is_kept(link):
    client, server, *_ = link()
    client.post("/", b"five5", {"content-length": "5"})
    assert server.requests[0].get("content-length") == "5"


def test_repeated_fields_keep_their_order_and_number(link):
    client, server, *_ = link(answering(fields={"x-a": "1"}))
    client.get("/", [("x-many", "1"), ("x-other", "o"), ("x-many", "2"), ("x-many", "")])
    assert server.requests[0].all("x-many") == ["1", "2", ""]


def test_set_cookie_is_never_joined(h2_client, h2_proxy, raw_server):
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2, c\r\nContent-Length: 0\r\n\r\n"
    assert h2_client(h2_proxy(to=raw_server(head))).get().all("set-cookie") == ["a=1", "b=2, c"]


def test_cookie_crumbs_are_joined_for_http1(raw_server, h2_client, h2_proxy):
    server = raw_server()
    h2_client(h2_proxy(to=server)).get("/", [("cookie", "a=1"), ("x-between", "x"), ("cookie", "b=2"), ("cookie", "c=3")])
    assert server.requests[0].all("cookie") == ["a=1; b=2; c=3"]


def test_te_trailers_is_kept_end_to_end(link, only_meshcore):
    client, server, *_ = link()
    client.get("/", [("te", "trailers"), *([("connection", "te")] if not hasattr(client, "response") else [])])
    assert server.requests[0].all("te") == ["trailers"]


def test_connection_fields_of_http1_do_not_enter_http2(raw_client, h2_client, h2_server, raw_server, h2_proxy, only_meshcore):
    server = h2_server()
    client = raw_client(h2_proxy(to=server, upstream="http2"))
    client.get("/", {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5", "Proxy-Connection": "keep-alive"})
    assert not {"connection", "x-hop", "keep-alive", "proxy-connection", "transfer-encoding", "host"} & set(server.requests[0].names)
    answer = b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok"
    assert not {"connection", "x-hop", "keep-alive"} & set(h2_client(h2_proxy(to=raw_server(answer))).get().names)


def test_chunked_upload_of_http1_becomes_data(raw_client, h2_server, h2_proxy, only_meshcore):
    server = h2_server()
    client = raw_client(h2_proxy(to=server, upstream="http2"))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert client.read_response().status == 200
    assert (server.requests[0].text, server.requests[0].trailer("x-sum")) == ("hello world", "1")


def test_http1_client_gets_the_answer_of_unknown_length_chunked(raw_client, h2_server, h2_proxy, only_meshcore):
    answer = raw_client(h2_proxy(to=h2_server(answering(body=b"streamed")), upstream="http2")).get()
    assert (answer.text, answer.framing) == ("streamed", "chunked")


# --- trailers and interim responses ------------------------------------------------------------------------------------


def test_trailers_of_a_response_arrive(link, only_meshcore):
    client, *_ = link(answering(body=b"hello", trailers={"x-checksum": "abc", "x-more": "2"}))
    for _ in range(2):
        answer = client.get("/", {"te": "trailers"})
        assert (answer.text, answer.trailer("x-checksum"), answer.trailer("x-more")) == ("hello", "abc", "2")
        assert "x-checksum" not in answer.names


def test_trailers_of_a_request_arrive(raw_server, h2_server, h2_client, h2_proxy, only_meshcore):
    for server, upstream in ((raw_server(), "http1"), (h2_server(), "http2")):
        client = h2_client(h2_proxy(to=server, upstream=upstream))
        assert client.post("/", b"hello", trailers=[("x-checksum", "abc")]).status == 200
        assert (server.requests[0].text, server.requests[0].trailer("x-checksum")) == ("hello", "abc")


def test_request_of_trailers_without_a_body_arrives(h2_server, h2_client, h2_proxy, only_meshcore):
    server = h2_server()
    h2_client(h2_proxy(to=server, upstream="http2")).post("/", b"", trailers=[("x-only", "1")])
    assert (server.requests[0].body_bytes, server.requests[0].trailer("x-only")) == (0, "1")


def test_interim_responses_arrive(link, only_meshcore):
    def hinting(connection):
        while True:
            if sends_http2(connection):
                request = connection.next_request()
                for _ in range(2):
                    connection.send_headers(request.stream, [(":status", "103"), ("link", "</a>")])
                connection.respond(request.stream)
            else:
                connection.read_request()
                connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + response())

    client, *_ = link(hinting)
    for _ in range(2):
        answer = client.get()
        assert [(i.status, i.get("link")) for i in answer.interim] == [(103, "</a>")] * 2
        assert (answer.status, answer.text) == (200, "ok")


def test_continue_is_asked_for_and_passed_on(raw_server, h2_client, h2_proxy, only_meshcore):
    def continuing(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.answer()

    client = h2_client(h2_proxy(to=raw_server(continuing)))
    stream = client.open("POST", "/", {"expect": "100-continue", "content-length": "5"}, end_stream=False)
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.interim, "100 Continue")
    client.send_body(stream, b"hello")
    assert client.response(stream).status == 200
