"""Idle upstream connections: kept, shared, bounded, watched."""

import threading

from tests.scenario.servers import eventually, response


def test_concurrent_requests_open_as_many_connections_and_then_share_them(raw_server, proxy, raw_client, only_meshcore):
    together = threading.Barrier(4)

    def meeting(connection):
        while True:
            request = connection.read_request()
            if request.path == "/meet":
                together.wait(5)
            connection.send(response())

    server = raw_server(meeting)
    running = proxy(to=server)
    clients = [raw_client(running) for _ in range(4)]
    for client in clients:
        client.request("GET", "/meet")
    assert [client.read_response().status for client in clients] == [200] * 4
    assert server.accepted == 4
    for client in clients * 3:
        assert client.get().status == 200
    assert server.accepted == 4


def test_idle_connections_above_the_limit_are_closed(raw_server, proxy, raw_client, only_meshcore):
    together = threading.Barrier(4)

    def meeting(connection):
        connection.read_request()
        together.wait(5)
        connection.send(response())
        connection.wait_closed()

    server = raw_server(meeting)
    running = proxy(to=server, cluster={"pool": {"max_idle": 1, "idle_timeout": "60s"}})
    clients = [raw_client(running) for _ in range(4)]
    for client in clients:
        client.request("GET", "/")
    for client in clients:
        client.read_response()
    eventually(lambda: sum(c.ended is not None for c in server.connections) == 3)
    assert running.stats().cluster("backend").endpoints[0].idle == 1


def test_no_idle_connection_is_kept_when_the_limit_is_zero(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server, cluster={"pool": {"max_idle": 0}}))
    for _ in range(3):
        assert client.get().status == 200
    assert server.accepted == 3


def test_idle_connection_is_closed_after_its_timeout(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    running = proxy(to=server, cluster={"pool": {"idle_timeout": "50ms"}})
    client = raw_client(running)
    client.get()
    eventually(lambda: server.connections[0].ended == "fin")
    assert running.stats().cluster("backend").endpoints[0].idle == 0
    assert client.get().status == 200
    assert server.accepted == 2


def test_connection_is_retired_after_its_number_of_requests(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=server, cluster={"pool": {"max_requests_per_connection": 2}}))
    for _ in range(6):
        assert client.get().status == 200
    assert server.accepted == 3


def test_unasked_octets_on_an_idle_connection_close_it(raw_server, proxy, raw_client):
    def talkative(connection):
        connection.answer()
        connection.send(response(body=b"evil"))
        connection.wait_closed()

    server = raw_server(talkative)
    client = raw_client(proxy(to=server))
    for number in range(3):
        assert client.get().text == "ok"
        eventually(lambda number=number: len(server.connections) == number + 1 and server.connections[number].ended)


def test_surplus_octets_behind_a_response_close_the_connection(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(response() + response(body=b"evil"))
    client = raw_client(proxy(to=server))
    for _ in range(3):
        assert client.get().text == "ok"
    assert server.accepted == 3


def test_endpoints_do_not_share_connections(raw_server, proxy, raw_client, only_meshcore):
    servers = [raw_server(response(body=name)) for name in (b"one", b"two")]
    client = raw_client(proxy(to=servers, cluster={"balancer": "round_robin"}))
    answers = [client.get().text for _ in range(6)]
    assert sorted(answers) == ["one"] * 3 + ["two"] * 3
    assert [server.accepted for server in servers] == [1, 1]


def test_counters_of_an_endpoint_tell_its_connections(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server())
    client = raw_client(running)
    for _ in range(3):
        client.get()
    eventually(lambda: running.stats().cluster("backend").endpoints[0].idle == 1)
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.connects, endpoint.open_connections, endpoint.idle, endpoint.requests, endpoint.active) == (1, 1, 1, 3, 0)


def test_unix_socket_endpoint_is_spoken_to(proxy, raw_client, only_meshcore, tmp_path):
    import socket

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "backend.sock"))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(response(body=b"by path"))
        connection.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    assert raw_client(proxy(to=f"unix:{tmp_path}/backend.sock")).get().text == "by path"
    listener.close()
