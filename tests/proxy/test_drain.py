"""Leaving: no new work, nothing running is cut, everything idle goes at once."""

import socket
import threading

import pytest

from tests.proxy.test_upgrade import UPGRADE, echoing
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")


class Slow:
    """Answers when told to."""

    def __init__(self):
        self.asked, self.release = threading.Event(), threading.Event()

    def __call__(self, connection):
        connection.read_request()
        self.asked.set()
        assert self.release.wait(10)
        connection.send(response(body=b"late"))


def draining(running, timeout_s: float = 5) -> threading.Thread:
    """Drain, then stop, as on SIGTERM; in a thread of its own."""

    def leave():
        running.drain(timeout_s)
        running.stop()

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    return thread


def test_idle_connections_are_closed_at_once(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    used, unused = raw_client(running), raw_client(running)
    used.get()
    eventually(lambda: running.stats().workers[0].connections == 2)
    assert running.drain(2) is True
    assert (used.read_to_end(), unused.read_to_end()) == ("fin", "fin")


def test_running_exchange_is_finished_and_told_to_close(raw_server, proxy, raw_client):
    slow = Slow()
    running = proxy(to=raw_server(slow))
    client = raw_client(running)
    client.request("GET", "/")
    assert slow.asked.wait(10)
    thread = draining(running)
    threading.Timer(0.05, slow.release.set).start()
    answer = client.read_response()
    assert (answer.text, answer.get("connection")) == ("late", "close")
    assert client.read_to_end() == "fin"
    thread.join(10)
    assert not thread.is_alive()


def test_running_download_is_finished(raw_server, proxy, raw_client):
    release = threading.Event()

    def halves(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        assert release.wait(10)
        connection.send(b"rest")

    running = proxy(to=raw_server(halves))
    client = raw_client(running)
    client.request("GET", "/")
    client.receive()
    thread = draining(running)
    release.set()
    assert client.read_response().text == "halfrest"
    assert client.read_to_end() == "fin"
    thread.join(10)


def test_new_connections_are_refused_once_drained(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    address = running.addresses["web"]
    running.drain(5)
    with pytest.raises(OSError):
        raw_client(address)


def test_connections_waiting_in_the_accept_queue_are_still_served(raw_server, proxy, raw_client):
    """Closing a listener resets what its queue holds: it is accepted to the last one first."""
    running = proxy(to=raw_server())
    address = running.addresses["web"]
    waiting = []
    for _ in range(200):
        sock = socket.create_connection(address, 5)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        waiting.append(sock)
    thread = draining(running)
    for sock in waiting:
        sock.settimeout(10)
        data = b""
        while part := sock.recv(65536):
            data += part
        assert data.startswith(b"HTTP/1.1 200"), data[:100]
        sock.close()
    thread.join(10)


def test_drain_that_takes_too_long_cuts_what_is_left(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(echoing))
    client = raw_client(running)
    assert client.get("/chat", UPGRADE).status == 101
    thread = draining(running, 0.2)
    client.read_to_end()
    thread.join(10)
    assert not thread.is_alive()


def test_request_on_a_kept_connection_in_the_same_moment_is_answered_or_closed_unread(raw_server, proxy, raw_client):
    """RFC 9112 9.5: a server may close at any time; it must not take a request and then drop it half done."""
    server = raw_server()
    running = proxy(to=server)
    clients = [raw_client(running) for _ in range(50)]
    for client in clients:
        client.get("/warm")
    thread = draining(running)
    for client in clients:
        client.request("GET", "/late")
    answered = sum(1 for client in clients if client.read_message() is not None)
    thread.join(10)
    assert answered == sum(r.path == "/late" for r in server.requests)


def test_drain_tells_whether_anything_was_left(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(echoing))
    client = raw_client(running)
    assert client.get("/chat", UPGRADE).status == 101
    assert running.drain(0.05) is False
    client.close()
    assert running.drain(5) is True


def test_stop_without_drain_ends_everything(raw_server, proxy, raw_client):
    slow = Slow()
    running = proxy(to=raw_server(slow))
    client = raw_client(running)
    client.request("GET", "/")
    assert slow.asked.wait(10)
    running.stop()
    client.read_to_end()
    slow.release.set()
