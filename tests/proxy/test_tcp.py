"""TCP listeners: any bytes, relayed as they are, each direction until its own end."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading

import meshcore
import pytest

from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, BlackHole, eventually, refusing_port, reset

pytestmark = pytest.mark.usefixtures("only_meshcore")


class TcpServer:
    """Runs `script(socket)` for each connection; keeps what scripts return in `results`."""

    def __init__(self, script):
        self.results = []
        self.sockets = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            self.sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self.results.append(self._script(sock))
        except OSError as error:
            self.results.append(error)
        finally:
            sock.close()

    def stop(self):
        self._listener.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def server():
    started = []

    def start(script):
        started.append(TcpServer(script))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def tcp_proxy(proxy):
    """`tcp_proxy(*servers, cluster={}, route={}, …)`: a proxy with a TCP listener `db` in front of them."""

    def start(*servers, route=None, **more):
        return proxy(
            config=config(
                to=list(servers),
                routes=[{"name": "db", "to": "backend", **(route or {})}],
                listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"}],
                **more,
            )
        )

    return start


@pytest.fixture
def connect():
    opened = []

    def to(running, listener="db"):
        sock = socket.create_connection(running.addresses[listener], PATIENCE_S)
        opened.append(sock)
        return sock

    yield to
    for sock in opened:
        sock.close()


def read_all(sock):
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


def echo(sock):
    while data := sock.recv(65536):
        sock.sendall(data)


def test_bytes_pass_both_ways_unchanged(server, tcp_proxy, connect, rng):
    client = connect(tcp_proxy(server(echo)))
    for size in (1, 5, 1000, 70_000):
        data = rng.randbytes(size)
        client.sendall(data)
        got = b""
        while len(got) < size:
            got += client.recv(65536)
        assert got == data


def test_what_looks_like_a_broken_http_request_is_not_read_as_one(server, tcp_proxy, connect):
    client = connect(tcp_proxy(server(echo)))
    bad = b"GET / HTTP/9.9\r\nContent-Length: x\r\n\r\n\0\0"
    client.sendall(bad)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == bad


def test_a_server_that_speaks_first_is_heard_before_the_client_says_a_word(server, tcp_proxy, connect):
    def greeting(sock):
        sock.sendall(b"220 ready\r\n")
        return sock.recv(100)

    client = connect(tcp_proxy(server(greeting)))
    assert client.recv(100) == b"220 ready\r\n"


@pytest.mark.parametrize("ends_first", ["client", "server"])
def test_each_direction_ends_by_itself(ends_first, server, tcp_proxy, connect):
    def sums_up(sock):
        data = read_all(sock)
        sock.sendall(hashlib.sha256(data).digest())

    def speaks_and_listens(sock):
        sock.sendall(b"all I have to say")
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)

    backend = server(sums_up if ends_first == "client" else speaks_and_listens)
    client = connect(tcp_proxy(backend))
    if ends_first == "client":
        client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == hashlib.sha256(b"x" * 100_000).digest()
    else:
        assert read_all(client) == b"all I have to say"
        client.sendall(b"and yet I speak")
        client.close()
        eventually(lambda: backend.results == [b"and yet I speak"])


@pytest.mark.parametrize("direction", ["up", "down"])
def test_megabytes_arrive_whole_when_the_reader_is_slow(direction, server, tcp_proxy, connect):
    data = random.Random(7).randbytes(1 << 20) * 12

    def slowly(sock):
        digest, n = hashlib.sha256(), 0
        while part := sock.recv(200_000):
            digest.update(part)
            n += len(part)
        return n, digest.hexdigest()

    def pours(sock):
        sock.sendall(data)

    backend = server(slowly if direction == "up" else pours)
    running = tcp_proxy(backend)
    client = connect(running)
    if direction == "up":
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        result = backend.results[0]
    else:
        result = slowly(client)
        client.close()
    assert result == (len(data), hashlib.sha256(data).hexdigest())
    assert running.stats().workers[0].buffers_bytes == 0
    eventually(lambda: running.stats().workers[0].in_flight == 0)
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.bytes_out if direction == "up" else endpoint.bytes_in) == len(data)


def test_both_directions_at_once_neither_mix_nor_block(server, tcp_proxy, connect):
    data = random.Random(8).randbytes(1 << 20) * 6
    client = connect(tcp_proxy(server(echo)))
    received = []
    reader = threading.Thread(target=lambda: received.append(read_all(client)))
    reader.start()
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    reader.join(PATIENCE_S * 3)
    assert received == [data]


def test_a_reset_reaches_the_other_side(server, tcp_proxy, connect):
    backend = server(lambda sock: sock.recv(100) + sock.recv(100))
    client = connect(tcp_proxy(backend))
    client.sendall(b"begun")
    eventually(lambda: backend.sockets)
    reset(client)
    eventually(lambda: backend.results)


def test_a_client_of_a_dead_endpoint_is_led_to_a_living_one(server, tcp_proxy, connect):
    running = tcp_proxy(f"127.0.0.1:{refusing_port()}", server(echo), cluster={"balancer": "round_robin"})
    for _ in range(4):
        client = connect(running)
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    assert running.stats().cluster("backend").retries >= 1


def test_a_client_that_no_endpoint_takes_is_reset_and_the_reason_counted(tcp_proxy, connect):
    running = tcp_proxy(f"127.0.0.1:{refusing_port()}")
    with pytest.raises(ConnectionResetError):
        connect(running).recv(100)
    eventually(lambda: running.stats().reasons.get("upstream_connect_failed") == 1)


def test_a_connect_that_takes_too_long_ends_the_connection(tcp_proxy, connect):
    hole = BlackHole()
    try:
        running = tcp_proxy(hole.address, cluster={"connect_timeout": "50ms"}, route={"retries": {"max_attempts": 1}})
        with pytest.raises(ConnectionResetError):
            connect(running).recv(100)
        assert running.stats().reasons == {"upstream_connect_timeout": 1}
    finally:
        hole.stop()


def test_a_quiet_connection_ends_after_its_idle_timeout_and_a_busy_one_does_not(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo), route={"tunnel_idle_timeout": "300ms"})
    busy, quiet = connect(running), connect(running)
    ended = threading.Event()

    def chat():
        while not ended.is_set():
            busy.sendall(b"x")
            assert busy.recv(1) == b"x"
            ended.wait(0.02)

    chatting = threading.Thread(target=chat)
    chatting.start()
    with contextlib.suppress(ConnectionResetError):
        assert quiet.recv(1) == b""
    eventually(lambda: running.stats().reasons.get("tunnel_timeout") == 1)
    ended.set()
    chatting.join(PATIENCE_S)
    busy.sendall(b"still here")
    assert busy.recv(100) == b"still here"


def test_connections_above_an_endpoints_limit_wait_in_the_queue(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo), cluster={"max_connections": 1, "queue_timeout": "30s"})
    first, second = connect(running), connect(running)
    first.sendall(b"first")
    assert first.recv(100) == b"first"
    second.sendall(b"second")
    eventually(lambda: running.stats().cluster("backend").queue_len == 1)
    first.close()
    assert second.recv(100) == b"second"


def test_connections_count_as_requests_of_listener_route_cluster_and_endpoint(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo))
    for _ in range(3):
        client = connect(running)
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        client.close()
    eventually(lambda: running.stats().route("db").requests == 3)
    stats = running.stats()
    assert stats.listeners[0].requests == 3
    assert stats.route("db").success_percent == 100
    assert stats.cluster("backend").requests == 3
    assert stats.cluster("backend").endpoints[0].successes == 3
    assert stats.listeners[0].bytes_in == stats.listeners[0].bytes_out == 15


def test_clients_above_the_connection_limit_are_reset_without_a_word(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo), limits={"max_connections": 1})
    first = connect(running)
    first.sendall(b"first")
    assert first.recv(100) == b"first"
    with contextlib.suppress(ConnectionResetError):
        assert connect(running).recv(100) == b""
    assert running.stats().listeners[0].refused == 1


def test_http_and_tcp_listeners_live_side_by_side(server, raw_server, proxy, connect, raw_client):
    web, database = raw_server(), server(echo)
    running = proxy(
        config=config(
            listeners=[
                {"name": "web", "address": "127.0.0.1:0"},
                {"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"},
            ],
            routes=[{"name": "db", "to": "database"}, {"name": "all", "to": "web"}],
            clusters=[
                {"name": "web", "endpoints": [web.address]},
                {"name": "database", "endpoints": [database.address]},
            ],
        )
    )
    client = connect(running)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    assert raw_client(running).get().status == 200
    eventually(lambda: running.stats().route("all").requests == 1)


def test_connections_outlive_a_reload_and_new_ones_follow_it(server, proxy, connect):
    old, new = server(echo), server(lambda sock: sock.sendall(b"new"))

    def to(backend):
        return config(
            to=backend,
            routes=[{"name": "db", "to": "backend"}],
            listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"}],
        )

    running = proxy(config=to(old))
    before = connect(running)
    before.sendall(b"1")
    assert before.recv(1) == b"1"
    running.reload(to(new))
    assert connect(running).recv(3) == b"new"
    before.sendall(b"2")
    assert before.recv(1) == b"2"


def test_many_connections_at_once_keep_apart(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo))
    clients = [connect(running) for _ in range(100)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.sendall(b"%d/%d;" % (turn, number))
        for number, client in enumerate(clients):
            assert client.recv(100) == b"%d/%d;" % (turn, number)


def test_a_stop_ends_open_connections(server, tcp_proxy, connect):
    running = tcp_proxy(server(echo), timeouts={"drain": "100ms"})
    client = connect(running)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    running.stop()
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_a_filter_on_a_route_of_tcp_listeners_alone_is_refused(server):
    configuration = config(
        to=server(echo).address,
        routes=[{"name": "db", "to": "backend"}],
        listeners=[{"name": "db", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "db"}],
    )
    running = meshcore.Proxy(configuration)
    running.on_request(route="db")(lambda request: None)
    with pytest.raises(meshcore.ConfigError, match="nothing would call it"):
        running.start()
    running.stop()
