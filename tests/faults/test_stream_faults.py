"""Faults of HTTP/2 peers that random runs found, each alone: what is left of a stream, a session, an endpoint afterwards."""

import contextlib
import itertools
import socket
import threading
import time

import pytest

from tests.scenario import h2_frames as h2
from tests.scenario import h2_hpack
from tests.scenario.h2_links import answering
from tests.scenario.h2_proxies import h2_config
from tests.scenario.servers import eventually
from tests.scenario.tls import SERVER_NAME, pki  # noqa: F401

pytestmark = pytest.mark.usefixtures("only_meshcore")

LARGEST = {h2.INITIAL_WINDOW_SIZE: h2.LARGEST_WINDOW_BYTES}
ALL_OF_IT = h2.window_update(0, h2.LARGEST_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES)


def at_rest(running) -> dict:
    worker = running.stats().workers[0]
    return {"in_flight": worker.in_flight, "buffers_bytes": worker.buffers_bytes}


def silent(connection):
    connection.next_request(complete=False)
    connection.wait_closed()


@pytest.mark.parametrize("size", [10, 5000, 20_000])
def test_client_that_resets_behind_a_piece_of_its_body_leaves_no_buffer(h2_server, h2_client, h2_proxy, size):
    """The piece joined what is kept for a retry, in a larger buffer; then the smaller one was given back a second time, and
    two owners had it from there on."""
    server = h2_server(silent)
    running = h2_proxy(to=server, upstream="http2")
    client = h2_client(running)
    stream = client.open("POST", "/", end_stream=False)
    eventually(lambda: server.requests)
    client.send(h2.data(stream, b"x" * min(size, 16_000)) + h2.rst_stream(stream))
    eventually(lambda: at_rest(running)["in_flight"] == 0)
    assert at_rest(running) == {"in_flight": 0, "buffers_bytes": 0}


def test_session_that_outlives_its_endpoint_is_not_counted_on_the_next_one(h2_server, h2_client, h2_proxy):
    """The state of an endpoint that left was cleared for another's use while a session still pointed at it: its end then took a
    connection from one that had none."""
    leave = threading.Event()

    def stuck(connection):
        connection.send(ALL_OF_IT)
        connection.next_request(complete=False)
        assert leave.wait(20)

    old = h2_server(stuck, settings=LARGEST)
    new = [h2_server() for _ in range(3)]
    running = h2_proxy(to=old, upstream="http2", route={"idle_timeout": "200ms", "timeout": "200ms"})
    client = h2_client(running)
    stream = client.open("POST", "/", end_stream=False)
    eventually(lambda: old.requests)
    client.queue_body(stream, b"x" * 20_000_000, end_stream=False)
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended, "the end of the upload")
    eventually(lambda: at_rest(running)["in_flight"] == 0)
    for server in new:
        running.reload(h2_config(to=server, upstream="http2"))
    leave.set()
    eventually(lambda: running.stats().workers[0].upstream_connections == 0)
    assert running.stats().cluster("backend").endpoints[0].open_connections == 0
    assert client.get().status == 200
    assert running.stats().cluster("backend").endpoints[0].open_connections == 1


def test_client_that_reads_nothing_is_parted_with(raw_server, h2_client, h2_proxy):
    """Its streams ended by their deadlines, but the connection stayed for as long as the client liked: the resets could not leave."""
    server = raw_server(answering(body=b"x" * 30_000_000))
    running = h2_proxy(to=server, route={"idle_timeout": "200ms"}, timeouts={"keep_alive": "300ms", "linger": "100ms"})
    client = h2_client(running, settings=LARGEST, receive_buffer=4096)
    client.send(ALL_OF_IT)
    client.reads = False
    client.request("GET", "/")
    eventually(lambda: running.stats().workers[0].requests == 1)
    eventually(lambda: running.stats().listeners[0].active == 0)
    assert at_rest(running) == {"in_flight": 0, "buffers_bytes": 0}


@pytest.mark.parametrize("secure", [False, True])
def test_client_that_reads_nothing_is_parted_with_while_its_streams_come_and_go(secure, raw_server, h2_proxy, pki):  # noqa: F811
    """Each stream that ended began the connection's time anew, with all that waited to be sent."""
    server = raw_server(answering(body=b"x" * 30_000_000))
    running = h2_proxy(to=server, route={"idle_timeout": "10s"}, timeouts={"keep_alive": "400ms", "linger": "100ms"},
                       **({"listeners": pki.listener()} if secure else {}))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(running.addresses["web"])
        if secure:
            context = pki.client_context()
            context.set_alpn_protocols(["h2"])
            sock = context.wrap_socket(sock, server_hostname=SERVER_NAME)
        sock.sendall(h2.PREFACE + h2.settings(LARGEST) + ALL_OF_IT)

        def stream_comes_and_goes(ids=itertools.count(1, 2)):
            stream = next(ids)
            with contextlib.suppress(OSError):
                sock.sendall(h2.headers(stream, h2_hpack.stateless(h2_hpack.request())))
                time.sleep(0.05)
                sock.sendall(h2.rst_stream(stream))
            return running.stats().listeners[0].active == 0

        eventually(stream_comes_and_goes, timeout_s=5)
        sock.close()


def test_endpoint_that_reads_nothing_is_parted_with(h2_server, h2_client, h2_proxy):
    """As above; every later request was put behind the one that could not be sent."""
    leave = threading.Event()

    def stuck(connection):
        connection.send(ALL_OF_IT)
        connection.next_request(complete=False)
        leave.wait(20)

    server = h2_server(stuck, settings=LARGEST)
    running = h2_proxy(to=server, upstream="http2", route={"idle_timeout": "200ms", "timeout": "200ms"}, cluster={"pool": {"idle_timeout": "300ms"}})
    client = h2_client(running)
    stream = client.open("POST", "/", end_stream=False)
    eventually(lambda: server.requests)
    client.queue_body(stream, b"x" * 20_000_000, end_stream=False)
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended, "the end of the upload")
    eventually(lambda: running.stats().cluster("backend").endpoints[0].open_connections == 0)
    leave.set()
