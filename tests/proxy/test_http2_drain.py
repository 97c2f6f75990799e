"""Leaving with HTTP/2 connections open: clients are told by GOAWAY, nothing they opened is lost, nothing new is begun."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.proxy.test_drain import draining
from tests.scenario import h2_frames as h2
from tests.scenario.h2_peers import H2Client, StreamReset
from tests.scenario.h2_proxies import h2_config
from tests.scenario.proxies import free_port
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

# Longer than any client here waits: what ends in time was not cut by the drain's own end.
LONG_S = 60


class Slow:
    """Answers when told to."""

    def __init__(self):
        self.release = threading.Event()

    def __call__(self, connection):
        while True:
            connection.read_request()
            assert self.release.wait(20)
            connection.send(response(body=b"late"))


def test_idle_client_is_told_and_closed_at_once(raw_server, h2_client, h2_proxy):
    running = h2_proxy(to=raw_server())
    client = h2_client(running)
    assert client.get().status == 200
    thread = draining(running, LONG_S)
    assert client.expect(h2.GOAWAY).error == h2.NO_ERROR
    assert client.read_to_end() == "fin"
    client.close()
    thread.join(10)
    assert not thread.is_alive()


def test_running_streams_are_finished_and_covered_by_goaway(raw_server, h2_client, h2_proxy):
    slow = Slow()
    server = raw_server(slow)
    running = h2_proxy(to=server)
    client = h2_client(running)
    streams = [client.request("GET", f"/{n}") for n in range(10)]
    server.wait_requests(10)
    thread = draining(running, LONG_S)
    goaway = client.expect(h2.GOAWAY)
    slow.release.set()
    assert [client.response(stream).text for stream in streams] == ["late"] * 10
    assert client.read_to_end() == "fin"
    assert goaway.error == h2.NO_ERROR
    assert int.from_bytes(client.reader.goaway.payload[:4], "big") >= streams[-1]
    thread.join(10)


def test_upload_that_runs_is_finished(raw_server, h2_client, h2_proxy):
    server = raw_server()
    running = h2_proxy(to=server)
    client = h2_client(running)
    stream = client.open("POST", "/", end_stream=False)
    client.send_body(stream, b"first", end_stream=False)
    eventually(lambda: server.accepted == 1)
    thread = draining(running, LONG_S)
    client.expect(h2.GOAWAY)
    client.send_body(stream, b"second")
    assert client.response(stream).status == 200
    assert server.requests[0].text == "firstsecond"
    thread.join(10)


def test_stream_opened_after_the_last_goaway_is_not_half_done(raw_server, h2_client, h2_proxy):
    """It is answered, or it lies above the last stream of GOAWAY, or it is refused: safe to send again."""
    slow = Slow()
    server = raw_server(slow)
    running = h2_proxy(to=server)
    client = h2_client(running)
    first = client.request("GET", "/first")
    server.wait_requests(1)
    thread = draining(running, LONG_S)
    client.expect(h2.GOAWAY)
    late = client.request("GET", "/late")
    slow.release.set()
    assert client.response(first).text == "late"
    client.read_to_end()
    message = client.reader.streams.get(late)
    last = int.from_bytes(client.reader.goaway.payload[:4], "big")
    answered = message is not None and message.complete
    assert answered or late > last or message is not None and message.reset == h2.REFUSED_STREAM
    assert answered == any(r.path == "/late" for r in server.requests)
    thread.join(10)


def test_stream_that_came_too_late_is_not_in_the_last_goaway(raw_server, h2_client, h2_proxy):
    """It was passed over, and yet the goodbye at the end named it: its client would wait for an answer, or not dare to ask again.
    The strict reader of the client finds a last stream that grows."""
    slow = Slow()
    server = raw_server(slow)
    running = h2_proxy(to=server)
    client = h2_client(running)
    first = client.request("GET", "/first")
    server.wait_requests(1)
    thread = draining(running, LONG_S)
    client.wait(lambda: client.reader.goaway and int.from_bytes(client.reader.goaway.payload[:4], "big") == first, "no more")
    client.request("GET", "/late")
    client.send(h2.ping())
    client.expect(h2.PING, flags=h2.ACK)
    slow.release.set()
    assert client.response(first).text == "late"
    assert client.read_to_end() == "fin"
    assert int.from_bytes(client.reader.goaway.payload[:4], "big") == first
    assert [request.path for request in server.requests] == ["/first"]
    thread.join(10)


def load(address, stop: threading.Event, results: list, lost: list) -> None:
    """A well-behaved client: many streams, a new connection after GOAWAY, again what was not processed."""
    with contextlib.suppress(ConnectionRefusedError):
        while not stop.is_set():
            client = H2Client(address)
            pending = {}
            while not stop.is_set() and client.reader.goaway is None and not client.end:
                while len(pending) < 10 and client.reader.goaway is None and not client.end:
                    pending[client.request("GET", f"/{len(results)}")] = True
                client.pump(0.01)
                for stream in [s for s in pending if (m := client.reader.streams.get(s)) is not None and m.ended]:
                    del pending[stream]
                    message = client.reader.streams[stream]
                    results.append(message.status if message.complete else -1 - message.reset)
            last = int.from_bytes(client.reader.goaway.payload[:4], "big") if client.reader.goaway is not None else 2**31
            for stream in pending:
                if stream <= last and not stop.is_set() or stream <= last and client.reader.goaway is None:
                    try:
                        results.append(client.response(stream).status)
                    except StreamReset:
                        results.append(-1 - client.reader.streams[stream].reset)
                    except (AssertionError, TimeoutError) as error:
                        lost.append(str(error))
            client.close()


def test_reloads_lose_nothing(raw_server, h2_proxy):
    server, other = raw_server(), raw_server()
    running = h2_proxy(to=server)
    stop, results, lost = threading.Event(), [], []
    clients = [threading.Thread(target=load, args=(running.addresses["web"], stop, results, lost)) for _ in range(3)]
    for thread in clients:
        thread.start()
    for n in range(20):
        eventually(lambda n=n: len(results) > 50 * n)
        running.reload(h2_config(to=[server, other] if n % 2 else [server]))
    stop.set()
    for thread in clients:
        thread.join(20)
    assert (set(results), lost) == ({200}, [])


def test_reload_that_changes_the_protocol_of_a_cluster_loses_nothing(raw_server, h2_server, h2_client, h2_proxy):
    one, two = raw_server(), h2_server()
    running = h2_proxy(to=one)
    client = h2_client(running)
    assert client.get().status == 200
    running.reload(h2_config(to=two, upstream="http2"))
    eventually(lambda: client.get().status == 200 and len(two.requests) > 0)
    running.reload(h2_config(to=one))
    before = len(one.requests)
    eventually(lambda: client.get().status == 200 and len(one.requests) > before)


def test_listener_that_is_taken_away_says_goaway(raw_server, h2_client, h2_proxy):
    server = raw_server()
    running = h2_proxy(to=server)
    client = h2_client(running)
    assert client.get().status == 200
    running.reload(h2_config(to=server, listeners=[{"name": "other", "address": "127.0.0.1:0"}]))
    client.expect(h2.GOAWAY)
    assert client.read_to_end() == "fin"


def test_sigterm_finishes_what_runs_and_loses_nothing(raw_server, tmp_path):
    slow = Slow()
    server = raw_server(slow)
    port = free_port()
    path = tmp_path / "mesh.yaml"
    path.write_text(f"""\
listeners:
- {{name: web, address: "127.0.0.1:{port}"}}
routes:
- {{name: all, to: backend}}
clusters:
- {{name: backend, endpoints: ["{server.address}"]}}
""")
    program = subprocess.Popen([sys.executable, "-m", "meshcore", "run", "-c", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, cwd=Path(__file__).parents[2])
    try:
        client = connected(port)
        streams = [client.request("GET", f"/{n}") for n in range(20)]
        server.wait_requests(20)
        program.send_signal(signal.SIGTERM)
        client.expect(h2.GOAWAY)
        slow.release.set()
        assert [client.response(stream).text for stream in streams] == ["late"] * 20
        assert client.read_to_end() == "fin"
        assert program.wait(20) == 0
    finally:
        program.kill()
        program.wait()


def connected(port: int) -> H2Client:
    deadline = time.monotonic() + 15
    while True:
        try:
            return H2Client(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
