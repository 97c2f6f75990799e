"""Persistent connections: when one serves the next request, when it must not."""

from tests.scenario.servers import chunked, response


def test_requests_of_one_client_share_one_upstream_connection(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    for number in range(5):
        assert client.get(f"/{number}").status == 200
    assert server.accepted == 1
    assert [r.path for r in server.requests] == ["/0", "/1", "/2", "/3", "/4"]


def test_clients_one_after_another_share_the_pool(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    for _ in range(3):
        client = raw_client(running)
        client.get()
        client.close()
    assert server.accepted == 1


def test_close_asked_by_the_client_is_granted(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server()))
    answer = client.get("/", {"Connection": "close"})
    assert "close" in answer.get("connection").lower()
    assert client.read_to_end() == "fin"


def test_close_asked_by_the_client_is_not_passed_on(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    running = proxy(to=server)
    for _ in range(2):
        raw_client(running).get("/", {"Connection": "close"})
    assert server.accepted == 1


def test_http_1_0_client_is_answered_and_closed(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server()))
    assert client.get(version="1.0").text == "ok"
    assert client.read_to_end() == "fin"


def test_http_1_0_client_that_asks_for_it_is_kept(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server()))
    for _ in range(2):
        answer = client.get("/", {"Connection": "keep-alive"}, version="1.0")
        assert answer.get("connection", "").lower() == "keep-alive"
    assert client.end is None


def test_close_of_the_upstream_leaves_the_client_connected(raw_server, proxy, raw_client):
    def closing(connection):
        connection.answer(headers={"Connection": "close"})

    server = raw_server(closing)
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().status == 200
    assert server.accepted == 3


def test_http_1_0_upstream_connection_is_not_reused(raw_server, proxy, raw_client):
    server = raw_server(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client = raw_client(proxy(to=server))
    for _ in range(2):
        assert client.get().text == "ok"
    assert server.accepted == 2


def test_idle_client_is_closed_cleanly_after_the_keep_alive_timeout(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(), timeouts={"keep_alive": "100ms"}))
    client.get()
    assert client.read_to_end() == "fin"


def test_client_that_never_speaks_is_closed_after_the_head_timeout(raw_server, proxy, raw_client):
    client = raw_client(proxy(to=raw_server(), timeouts={"head": "100ms", "keep_alive": "100ms"}))
    assert client.read_to_end() == "fin"


def test_last_request_of_a_connection_is_told_to_close(raw_server, proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=raw_server(), limits={"max_requests_per_connection": 3}))
    answers = [client.get() for _ in range(3)]
    assert [a.get("connection") for a in answers] == [None, None, "close"]
    assert client.read_to_end() == "fin"


def test_empty_lines_before_a_request_are_skipped(raw_server, proxy, raw_client):
    # RFC 9112 2.2: a server SHOULD ignore at least one empty line received before the request line.
    client = raw_client(proxy(to=raw_server()))
    client.send(b"\r\n")
    assert client.get().status == 200
    client.send(b"\r\n")
    assert client.get().status == 200


def test_chunked_response_leaves_both_connections_usable(raw_server, proxy, raw_client):
    server = raw_server(chunked(b"hel", b"lo"))
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().text == "hello"
    assert server.accepted == 1


def test_client_that_resets_while_idle_disturbs_nobody(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    leaving = raw_client(running)
    leaving.get()
    leaving.reset()
    assert raw_client(running).get().status == 200
    assert server.accepted == 1


def test_response_with_an_odd_reason_phrase_is_delivered(raw_server, proxy, raw_client):
    for line in (b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200\r\n", b"HTTP/1.1 299 Quite \xe4 Reason\r\n"):
        server = raw_server(line + b"Content-Length: 2\r\n\r\nok")
        assert raw_client(proxy(to=server)).get().text == "ok"


def test_head_then_get_keeps_the_connection_in_step(raw_server, proxy, raw_client):
    server = raw_server(lambda connection: [connection.answer(body=b"x" * 1000) for _ in range(9)])
    client = raw_client(proxy(to=server))
    client.request("HEAD", "/")
    head = client.read_response()
    assert head.get("content-length") in ("0", "1000", None)
    assert client.get().body_bytes == 1000


def test_no_content_then_get_keeps_the_connection_in_step(raw_server, proxy, raw_client):
    server = raw_server(lambda connection: [connection.send(a) for a in (response(204), response(body=b"next")) if connection.read_request()])
    client = raw_client(proxy(to=server))
    assert client.get().status == 204
    assert client.get().text == "next"
