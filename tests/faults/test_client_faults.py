"""Clients that dawdle, flood, vanish: others are served, limits hold, everything is given back."""

import random
import socket
import struct
import time

import pytest

from tests.conftest import SEED
from tests.faults.load import Load, open_connections
from tests.scenario.clients import RawClient, request_bytes
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")


def at_rest(running) -> bool:
    """Nothing is left of anybody."""
    stats = running.stats()
    worker, cluster = stats.workers[0], stats.cluster("backend")
    return (worker.connections, worker.in_flight, cluster.in_flight, cluster.queue_len, cluster.endpoints[0].active) == (0, 0, 0, 0, 0)


def test_hundreds_of_slow_heads_disturb_nobody_and_are_closed_at_their_deadline(raw_server, proxy):
    running = proxy(to=raw_server(), timeouts={"head": "500ms"})
    slow = open_connections(running.addresses["web"], 300, b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: ")
    with Load(running.addresses["web"], n_clients=2) as load:
        load.wait(300)
        assert set(load.answers) == {200}
        for sock in slow:
            sock.settimeout(10)
            while sock.recv(65536):
                pass
            sock.close()
    eventually(lambda: at_rest(running))
    assert running.stats().reasons["head_timeout"] == 300


def test_hundreds_of_slow_bodies_are_closed_and_blamed_on_no_endpoint(raw_server, proxy):
    running = proxy(to=raw_server(), limits={"body_min_rate_grace": "300ms"})
    slow = open_connections(running.addresses["web"], 200, b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nsome")
    with Load(running.addresses["web"], n_clients=2) as load:
        load.wait(200)
        assert set(load.answers) == {200}
        for sock in slow:
            sock.settimeout(10)
            while sock.recv(65536):
                pass
            sock.close()
    eventually(lambda: at_rest(running))
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_body_slower_than_the_least_rate_is_given_up_however_steady(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(), limits={"body_min_rate": 100_000, "body_min_rate_grace": "200ms"})
    client = raw_client(running)
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n")
    client.sock.settimeout(0.02)
    for _ in range(300):
        client.send(b"x" * 100)
        try:
            if client.receive() or client.end:
                break
        except TimeoutError:
            pass
    client.sock.settimeout(5)
    assert client.read_response().reason == "body_timeout"


def test_slow_readers_hold_bounded_memory_and_are_given_up(raw_server, proxy):
    running = proxy(to=raw_server(response(body=b"x" * 3_000_000)), route={"idle_timeout": "300ms"})
    before = running.stats().workers[0].memory_bytes
    slow = []
    for _ in range(30):
        client = RawClient(running.addresses["web"], receive_buffer=4096)
        client.request("GET", "/")
        slow.append(client)
    with Load(running.addresses["web"], n_clients=2) as load:
        load.wait(20)
        assert set(load.answers) == {200}
        assert running.stats().workers[0].memory_bytes - before < 64 << 20
    eventually(lambda: at_rest(running))
    for client in slow:
        client.close()
    assert running.stats().cluster("backend").endpoints[0].failures == 0


def test_flood_of_silent_connections_disturbs_nobody(raw_server, proxy):
    running = proxy(to=raw_server(), timeouts={"head": "500ms", "keep_alive": "500ms"})
    silent = open_connections(running.addresses["web"], 800)
    with Load(running.addresses["web"], n_clients=2) as load:
        load.wait(300)
        assert set(load.answers) == {200}
    for sock in silent:
        sock.close()
    eventually(lambda: at_rest(running))


def test_clients_that_vanish_at_any_moment_leave_nothing_behind(raw_server, proxy):
    """Resets and ends at random points of requests of every kind."""
    rng = random.Random(SEED)
    kinds = [
        request_bytes("GET", "/"),
        request_bytes("POST", "/", body=b"x" * 20_000),
        request_bytes("POST", "/", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n" * 50 + b"0\r\n\r\n",
        request_bytes("GET", "/large") * 3,
    ]
    server = raw_server(lambda c: _sized(c))
    running = proxy(to=server)
    for _ in range(400):
        data = rng.choice(kinds)
        sock = socket.create_connection(running.addresses["web"], 5)
        sock.sendall(data[: rng.randrange(len(data) + 1)])
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.003))
        if rng.random() < 0.3:
            sock.settimeout(0.005)
            try:
                sock.recv(rng.randrange(1, 5000))
            except TimeoutError:
                pass
        if rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    eventually(lambda: at_rest(running))
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.failures, endpoint.ejections) == (0, 0)
    with Load(running.addresses["web"], n_clients=2) as load:
        load.wait(50)
    assert set(load.answers) == {200}
    server.trouble.clear()


def _sized(connection):
    while True:
        request = connection.read_request()
        connection.send(response(body=b"x" * (200_000 if request.path == "/large" else 2)))


def test_thousand_clients_that_come_at_once_are_all_answered(raw_server, proxy):
    # The endpoint is spared the stampede: a few connections, the rest waits in the queue.
    running = proxy(to=raw_server(), cluster={"max_connections": 20, "queue_timeout": "10s"})
    sockets = open_connections(running.addresses["web"], 1000)
    for sock in sockets:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    for sock in sockets:
        sock.settimeout(10)
        data = b""
        while part := sock.recv(65536):
            data += part
        assert data.startswith(b"HTTP/1.1 200")
        sock.close()
    eventually(lambda: at_rest(running))


def test_garbage_of_every_kind_ends_in_a_refusal_or_an_answer(raw_server, proxy):
    """Random octets, and valid requests with one octet changed: never a hang, never a crash, never a blamed endpoint."""
    rng = random.Random(SEED)
    valid = request_bytes("POST", "/p", {"Transfer-Encoding": "chunked", "X-A": "b"}) + b"5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
    running = proxy(to=raw_server(), timeouts={"head": "300ms"}, limits={"body_min_rate_grace": "300ms"})
    for turn in range(300):
        data = bytearray(valid)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if turn % 10 == 0:
            data = bytearray(rng.randbytes(rng.randrange(1, 2000)))
        with socket.create_connection(running.addresses["web"], 5) as sock:
            sock.settimeout(5)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    eventually(lambda: at_rest(running))
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.failures, endpoint.ejections) == (0, 0)
