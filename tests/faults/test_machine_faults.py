"""Too few descriptors, too many reloads, a process that is killed: the proxy sheds, survives, recovers."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.faults.load import Load, open_connections
from tests.scenario.proxies import config
from tests.scenario.servers import eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")

STARVED = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import meshcore
proxy = meshcore.Proxy(json.loads(sys.argv[1]))
proxy.start()
print(proxy.addresses["web"][1], flush=True)
for line in sys.stdin:
    print(json.dumps(proxy.stats().to_dict()["workers"]), flush=True)
"""


@pytest.fixture
def starved(raw_server):
    """A proxy in a process of 64 descriptors: its process and its address."""
    import json

    server = raw_server()
    given = config(to=server, timeouts={"head": "1s", "keep_alive": "1s"}, limits={"max_connections": 1000})
    process = subprocess.Popen([sys.executable, "-c", STARVED, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process, ("127.0.0.1", int(process.stdout.readline()))
    process.kill()
    process.wait(10)


def cpu_seconds(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_proxy_without_descriptors_lives_and_recovers(starved):
    process, address = starved
    flood = open_connections(address, 200)
    time.sleep(0.3)
    assert process.poll() is None
    for sock in flood:
        sock.close()

    def served() -> bool:
        try:
            with socket.create_connection(address, 2) as sock:
                sock.settimeout(2)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                return sock.recv(65536).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    eventually(served)


def test_proxy_without_descriptors_does_not_spin(starved):
    process, address = starved
    flood = open_connections(address, 200)
    time.sleep(0.2)
    before = cpu_seconds(process.pid)
    time.sleep(0.6)
    # A loop that meets EMFILE again and again burns a whole core; backing off costs next to nothing.
    assert cpu_seconds(process.pid) - before < 0.3
    for sock in flood:
        sock.close()


def test_upstream_connection_that_finds_no_descriptor_is_an_answer_not_a_crash(starved):
    process, address = starved
    clients = open_connections(address, 40)
    for sock in clients:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    statuses = []
    for sock in clients:
        sock.settimeout(5)
        try:
            statuses.append(sock.recv(65536).split(b" ", 2)[1:2])
        except (TimeoutError, ConnectionResetError):
            statuses.append([b"cut"])
    assert process.poll() is None
    assert [b"200"] in statuses
    for sock in clients:
        sock.close()


def test_storm_of_reloads_under_load_fails_no_request(raw_server, proxy):
    servers = [raw_server() for _ in range(3)]
    running = proxy(to=servers)
    with Load(running.addresses["web"], n_clients=6) as load:
        for number in range(100):
            chosen = [servers[number % 3], servers[(number + 1) % 3]]
            extra = [{"name": f"r{number}-{n}", "match": {"path": f"/{n}"}, "respond": {"status": 200}} for n in range(number % 7)]
            running.reload(config(to=chosen, routes=[*extra, {"name": "all", "to": "backend"}]))
        load.wait(100)
    assert set(load.answers) == {200}, (load.answers, load.reasons)


def test_reloads_from_several_threads_are_serialised(raw_server, proxy):
    server = raw_server()
    running = proxy(to=server)
    trouble = []

    def reload_often(name: str) -> None:
        try:
            for number in range(20):
                running.reload(config(to=server, routes=[{"name": f"{name}-{number}", "to": "backend"}]))
        except Exception as error:
            trouble.append(error)

    with Load(running.addresses["web"], n_clients=2) as load:
        threads = [threading.Thread(target=reload_often, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not trouble
    assert set(load.answers) == {200}


def test_broken_reloads_under_load_change_nothing(raw_server, proxy):
    server = raw_server()
    running = proxy(to=server)
    with Load(running.addresses["web"], n_clients=4) as load:
        for _ in range(30):
            with pytest.raises(Exception):
                running.reload(config(to=server, routes=[{"name": "all", "to": "nowhere"}]))
        load.wait(50)
    assert set(load.answers) == {200}
    assert server.accepted <= 4


def test_stats_and_taps_taken_all_the_time_disturb_nothing(raw_server, proxy):
    running = proxy(to=raw_server(), workers=2)
    stopping = threading.Event()

    def look() -> None:
        while not stopping.is_set():
            running.stats()
            session = running.tap(max_rps=100)
            session.close()

    looking = threading.Thread(target=look)
    looking.start()
    with Load(running.addresses["web"], n_clients=4) as load:
        load.wait(1000)
    stopping.set()
    looking.join(10)
    assert set(load.answers) == {200}
    assert running.stats().requests == load.answers[200]


def test_killed_proxy_leaves_an_address_that_can_be_bound_at_once(raw_server):
    """No stale socket, no lock file: a supervisor's restart takes over without waiting."""
    import json

    given = config(to=raw_server())
    address = None
    for _ in range(3):
        if address:
            given["listeners"][0]["address"] = "127.0.0.1:%d" % address[1]
        process = subprocess.Popen([sys.executable, "-c", STARVED, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            address = ("127.0.0.1", int(process.stdout.readline()))
            with socket.create_connection(address, 5) as sock:
                sock.settimeout(5)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
                os.kill(process.pid, signal.SIGKILL)
                process.wait(10)
        finally:
            process.kill()
            process.wait(10)


def test_many_open_connections_cost_little_each(raw_server, proxy):
    """Idle connections hold no buffers: what a thousand of them cost is counted by the worker itself."""
    running = proxy(to=raw_server())
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(1000, soft // 4)
    before = running.stats().workers[0].memory_bytes
    idle = open_connections(running.addresses["web"], n, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    for sock in idle:
        sock.settimeout(10)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    stats = running.stats()
    assert stats.workers[0].connections == n
    assert stats.workers[0].memory_bytes - before <= n * 512 + (1 << 20)
    for sock in idle:
        sock.close()
