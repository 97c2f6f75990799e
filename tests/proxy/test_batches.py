"""What arrives while the proxy stands still meets it as one batch: read together, answered together, each its own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from meshcore.cli.client import AdminClient

from tests.scenario.servers import PATIENCE_S, RawServer, eventually, response

CLIENTS = 24  # their events and those of as many upstream connections: more than one batch


def kernel_allows_io_uring() -> bool:
    parameters = ctypes.create_string_buffer(120)
    flags = 0x100 | 0x1000 | 0x2000  # COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN
    ctypes.memmove(ctypes.addressof(parameters) + 8, flags.to_bytes(4, "little"), 4)
    fd = ctypes.CDLL(None, use_errno=True).syscall(425, 4, parameters)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


class StandingProxy:
    """A `meshproxy` that can be stopped and continued by signal."""

    def __init__(self, directory, configuration):
        self.admin = f"unix:{directory}/admin"
        path = directory / "mesh.json"
        path.write_text(json.dumps({**configuration, "admin": {"address": self.admin}}))
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "meshcore", "run", "-c", str(path)], stdout=subprocess.PIPE, text=True
        )
        line = next(line for line in self.process.stdout if "http://127.0.0.1:" in line)
        self.addresses = {"web": ("127.0.0.1", int(line.split("http://127.0.0.1:")[1].split("/")[0].split()[0]))}
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stats(self):
        return AdminClient(self.admin).get_json("/stats")

    def stop(self):
        self.thaw()
        self.process.terminate()
        self.process.wait(PATIENCE_S)


@pytest.fixture(params=["auto", "off"], ids=["io_uring", "plain calls"])
def standing(request, tmp_path, only_meshcore):
    """`standing(server, **cluster)`: a StandingProxy in front of the server."""
    started = []

    def start(server, **cluster):
        started.append(
            StandingProxy(
                tmp_path,
                {
                    "io_uring": request.param,
                    "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
                    "routes": [{"name": "all", "to": "backend"}],
                    "clusters": [{"name": "backend", "endpoints": [server.address], **cluster}],
                },
            )
        )
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


def meeting_server(raw_server, n) -> RawServer:
    """Answers with the request's target; `/meet` only when n of them are there, so that n connections get pooled."""
    together = threading.Barrier(n)

    def script(connection):
        while True:
            message = connection.read_request()
            if message.path == "/meet":
                together.wait(PATIENCE_S)
            connection.send(response(body=message.path.encode()))

    return raw_server(script)


def pool_all(server, clients):
    """Bring every client's upstream connection into the pool."""
    for client in clients:
        client.request("GET", "/meet")
    assert [client.read_response().status for client in clients] == [200] * len(clients)
    assert server.accepted == len(clients)


def test_each_of_many_requests_that_arrive_together_gets_its_own_answer(standing, raw_server, raw_client):
    server = meeting_server(raw_server, CLIENTS)
    proxy = standing(server)
    clients = [raw_client(proxy) for _ in range(CLIENTS)]
    pool_all(server, clients)
    for turn in range(5):
        proxy.freeze()
        for number, client in enumerate(clients):
            client.request("GET", f"/{turn}/{number}")
        proxy.thaw()
        assert [client.read_response().text for client in clients] == [f"/{turn}/{n}" for n in range(CLIENTS)]
    assert server.accepted == CLIENTS


def test_busy_connections_are_served_through_io_uring_where_it_is_wanted_and_allowed(standing, raw_server, raw_client, request):
    server = meeting_server(raw_server, CLIENTS)
    proxy = standing(server)
    clients = [raw_client(proxy) for _ in range(CLIENTS)]
    pool_all(server, clients)
    proxy.freeze()
    for client in clients:
        client.request("GET", "/")
    proxy.thaw()
    for client in clients:
        client.read_response()
    calls = proxy.stats()["workers"][0]["batched_calls"]
    if request.node.name.endswith("[io_uring]") and kernel_allows_io_uring():
        assert calls >= CLIENTS
    else:
        assert calls == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_request_is_lost_or_repeated_when_its_pooled_connection_closes_in_the_same_moment(
        method, standing, raw_server, raw_client):
    server = meeting_server(raw_server, 12)
    proxy = standing(server)
    clients = [raw_client(proxy) for _ in range(12)]
    pool_all(server, clients)
    old = list(server.connections)
    proxy.freeze()
    for number, client in enumerate(clients):
        client.request(method, f"/{number}", body=b"once" if method == "POST" else b"")
    for connection in old:
        connection.half_close()
    proxy.thaw()
    assert [client.read_response().text for client in clients] == [f"/{n}" for n in range(12)]
    paths = [message.path for message in server.requests if message.path != "/meet"]
    assert sorted(paths, key=lambda path: int(path[1:])) == [f"/{n}" for n in range(12)]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("n", [1, 2, 12])
def test_bytes_that_came_before_a_request_left_are_never_its_answer(method, n, standing, raw_server, raw_client):
    server = meeting_server(raw_server, n)
    proxy = standing(server)
    clients = [raw_client(proxy) for _ in range(n)]
    pool_all(server, clients)
    old = list(server.connections)
    proxy.freeze()
    for number, client in enumerate(clients):
        client.request(method, f"/{number}", body=b"once" if method == "POST" else b"")
    for connection in old:
        connection.send(response(body=b"nobody asked"))
    proxy.thaw()
    assert [client.read_response().text for client in clients] == [f"/{number}" for number in range(n)]


class HeldAnswers:
    """A server whose answers all leave while the proxy stands still."""

    def __init__(self, raw_server, n, body=None):
        self.n = n
        self.body = body
        self._together = threading.Barrier(n + 1)
        self.server = raw_server(self._script)

    def _script(self, connection):
        while True:
            message = connection.read_request()
            self._together.wait(PATIENCE_S)
            connection.send(response(body=self.body or message.path.encode()))
            self._together.wait(PATIENCE_S)

    def answer(self):
        """Let all answers leave; they have when this returns."""
        self._together.wait(PATIENCE_S)
        self._together.wait(PATIENCE_S)


def test_an_answer_that_does_not_fit_into_a_full_socket_arrives_whole_once_its_client_reads(standing, raw_server, raw_client):
    n = 6
    answers = HeldAnswers(raw_server, n, body=bytes(range(256)) * 30)  # with its head just small enough to be held back
    proxy = standing(answers.server)
    clients = [raw_client(proxy, receive_buffer=4096) for _ in range(n)]
    sent = 0
    while sent < 3000:
        for client in clients:
            client.request("GET", "/")
        sent += 1
        try:
            answers.server.wait(lambda server: len(server.requests) == n * sent, timeout_s=0.5)
        except AssertionError:
            break  # a client whose answer is not out yet is not asked for its next request
        proxy.freeze()
        answers.answer()
        proxy.thaw()
    assert sent < 3000, "no socket was ever full"
    for client in clients:
        for _ in range(sent - 1):
            assert client.read_response().body == answers.body
    answers.server.wait_requests(n * sent)
    answers.answer()
    for client in clients:
        assert client.read_response().body == answers.body


def test_an_answer_reaches_a_client_that_stopped_sending_in_the_same_moment(standing, raw_server, raw_client):
    answers = HeldAnswers(raw_server, CLIENTS)
    proxy = standing(answers.server)
    clients = [raw_client(proxy) for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.request("GET", f"/{number}")
    answers.server.wait_requests(CLIENTS)
    proxy.freeze()
    answers.answer()
    for client in clients:
        client.half_close()
    proxy.thaw()
    for number, client in enumerate(clients):
        assert client.read_response().text == f"/{number}"
        assert client.read_to_end() == "fin"


@pytest.mark.parametrize("first", ["answer", "reset"])
def test_clients_that_vanish_in_the_moment_of_their_answer_disturb_no_other(first, standing, raw_server, raw_client):
    answers = HeldAnswers(raw_server, CLIENTS)
    proxy = standing(answers.server)
    clients = [raw_client(proxy) for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.request("GET", f"/{number}")
    answers.server.wait_requests(CLIENTS)
    proxy.freeze()
    if first == "answer":
        answers.answer()
    for client in clients[::2]:
        client.reset()
    if first == "reset":
        answers.answer()
    proxy.thaw()
    for number in range(1, CLIENTS, 2):
        assert clients[number].read_response().text == f"/{number}"
    eventually(lambda: proxy.stats()["workers"][0]["in_flight"] == 0)
    eventually(lambda: proxy.stats()["workers"][0]["connections"] == CLIENTS // 2)
    eventually(lambda: proxy.stats()["workers"][0]["buffers_bytes"] == 0)


def many_turns(proxy, answers, clients, turns):
    """Requests and answers that arrive together, so often that the ring keeps the files of their connections."""
    for turn in range(turns):
        proxy.freeze()
        for number, client in enumerate(clients):
            client.request("GET", f"/{turn}/{number}")
        proxy.thaw()
        answers.server.wait(lambda server: len(server.requests) == answers.n * (turn + 1))
        proxy.freeze()
        answers.answer()
        proxy.thaw()
        assert [client.read_response().text for client in clients] == [f"/{turn}/{n}" for n in range(answers.n)]


@pytest.mark.parametrize("turns", [3, 40])
def test_a_connection_ends_at_once_however_often_it_was_used(turns, standing, raw_server, raw_client):
    answers = HeldAnswers(raw_server, 8)
    proxy = standing(answers.server, pool={"idle_timeout": "1s"})
    clients = [raw_client(proxy) for _ in range(8)]
    many_turns(proxy, answers, clients, turns)
    eventually(lambda: all(connection.closed for connection in answers.server.connections))
    clients[0].request("GET", "/last")
    answers.server.wait_requests(8 * turns + 1)
    proxy.process.terminate()  # what is idle is closed now; the process stays for what is not answered
    assert [client.read_to_end() for client in clients[1:]] == ["fin"] * 7
    assert proxy.process.poll() is None


def test_the_place_of_a_connection_that_ended_serves_the_next_one(standing, raw_server, raw_client):
    answers = HeldAnswers(raw_server, 8)
    proxy = standing(answers.server, pool={"idle_timeout": "1s"})
    for _ in range(2):
        clients = [raw_client(proxy) for _ in range(8)]
        many_turns(proxy, answers, clients, 40)
        for client in clients:
            client.close()
        eventually(lambda: all(connection.closed for connection in answers.server.connections))
        answers.server.requests.clear()
    eventually(lambda: proxy.stats()["workers"][0]["connections"] == 0)
