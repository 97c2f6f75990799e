"""Bytes that mean harm under TLS: floods of handshakes, of KeyUpdates and of empty records, garbage at any time. All bounded."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.proxies import raw_stats
from tests.scenario.servers import PATIENCE_S, eventually
from tests.scenario.tls import SERVER_NAME, pki, plain_socket, tls_client  # noqa: F401 (fixtures)
from tests.scenario.tls_records import DATA, HANDSHAKE, KEY_UPDATE_BOTH, RecordClient

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def record_client(pki):  # noqa: F811
    clients = []

    def connect(running):
        clients.append(RecordClient(running.addresses["web"], pki.client_context(), SERVER_NAME, pki.folder / f"keys{len(clients)}"))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def running(proxy, raw_server, pki):  # noqa: F811
    return proxy(to=raw_server(), listeners=pki.listener())


def answers(client) -> bool:
    client.sock.sendall(client.record(DATA, request_bytes("GET", "/")))
    return bool(client.sock.recv(65536))


def test_a_few_key_updates_and_empty_records_are_ordinary(running, record_client):
    client = record_client(running)
    for _ in range(5):
        client.sock.sendall(client.key_update() + client.key_update(KEY_UPDATE_BOTH) + client.record(DATA, b""))
        assert answers(client)
    client.sock.sendall(client.record(DATA, request_bytes("GET", "/"), padding=10_000))
    assert client.sock.recv(65536)


def test_key_updates_between_much_data_may_go_on(running, record_client):
    client = record_client(running)
    for _ in range(80):
        body = request_bytes("POST", "/", body=bytes(70_000))
        client.sock.sendall(b"".join(client.record(DATA, body[at : at + 16384]) for at in range(0, len(body), 16384)) + client.key_update())
        assert client.sock.recv(65536)


@pytest.mark.parametrize("spread", [False, True])
def test_a_flood_of_key_updates_is_closed(spread, running, record_client):
    client = record_client(running)
    assert answers(client)
    flood = [client.key_update(KEY_UPDATE_BOTH) for _ in range(3000)]
    try:
        for piece in flood if spread else [b"".join(flood)]:
            client.sock.sendall(piece)
    except OSError:
        pass
    assert client.is_closed()
    eventually(lambda: running.stats().listeners[0].active == 0)
    assert raw_stats(running)["workers"][0]["buffers_bytes"] == 0


def test_a_flood_of_empty_records_is_closed(running, record_client):
    client = record_client(running)
    try:
        client.sock.sendall(b"".join(client.record(DATA, b"") for _ in range(20_000)))
    except OSError:
        pass
    assert client.is_closed()
    eventually(lambda: running.stats().listeners[0].active == 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda c: c.record(DATA, b"GET")[:-1] + b"\0",       # a wrong seal
        lambda c: b"\x17\x03\x03\xff\xff" + bytes(70_000),   # longer than a record may be
        lambda c: c.record(HANDSHAKE, b"\x01\x00\x00\x02hi"),   # a ClientHello: renegotiation
        lambda c: c.record(99, b"x"),
        lambda c: b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_record_ends_the_connection(make, running, record_client):
    client = record_client(running)
    assert answers(client)
    client.sock.sendall(make(client))
    assert client.is_closed()
    eventually(lambda: running.stats().listeners[0].active == 0)


def test_garbage_instead_of_a_handshake_is_closed_at_any_length(running, rng):
    for n in (1, 5, 6, 50, 500, 20_000):
        hello = b"\x16\x03\x01" + min(n, 16000).to_bytes(2, "big") + b"\x01" + rng.randbytes(n)
        with plain_socket(running) as sock:
            try:
                sock.sendall(hello)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError:
                pass
    eventually(lambda: running.stats().listeners[0].active == 0)
    assert raw_stats(running)["workers"][0]["tls_handshaking"] == 0
    assert all(reason.startswith("tls_") for reason in running.stats().reasons)


def test_a_handshake_that_does_not_end_is_ended(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(), timeouts={"tls_handshake": "100ms"})
    silent, begun = plain_socket(running), plain_socket(running)
    begun.sendall(b"\x16\x03\x01\x02\x00\x01")
    for sock in (silent, begun):
        assert sock.recv(10) == b""
        sock.close()
    assert running.stats().reasons == {"tls_handshake_timeout": 2}


def test_more_handshakes_than_the_limit_are_shed_and_established_ones_go_on(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(), limits={"max_tls_handshakes": 3})
    established = tls_client(running)
    waiting = [plain_socket(running) for _ in range(3)]
    for sock in waiting:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    eventually(lambda: raw_stats(running)["workers"][0]["tls_handshaking"] == 3)
    assert established.get().status == 200
    with plain_socket(running) as late:
        late.sendall(b"\x16\x03\x01\x02\x00\x01")
        with pytest.raises(ConnectionResetError):
            late.recv(10)
    assert running.stats().reasons == {"tls_handshakes_shed": 1}
    for sock in waiting:
        sock.close()
    eventually(lambda: raw_stats(running)["workers"][0]["tls_handshaking"] == 0)
    assert tls_client(running).get().status == 200


def test_a_flood_of_handshakes_leaves_established_connections_their_turn(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(), limits={"max_tls_handshakes": 50})
    established = tls_client(running)
    ending = threading.Event()

    def flood() -> None:
        context = pki.client_context()
        while not ending.is_set():
            try:
                context.wrap_socket(plain_socket(running), server_hostname=SERVER_NAME).close()
            except OSError:
                pass

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert established.get().status == 200
    finally:
        ending.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    eventually(lambda: running.stats().listeners[0].active == 1)
