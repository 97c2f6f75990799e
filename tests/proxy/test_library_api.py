"""`meshcore.Proxy` as a library: its life, its forms, its errors."""

import asyncio
import json
import signal
import subprocess
import sys

import pytest

import meshcore
from meshcore.errors import ConfigError
from tests.scenario.other_thread import signal_another_thread
from tests.scenario.proxies import config
from tests.scenario.servers import eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")


def fixed(body="hello"):
    return config(to=[], routes=[{"name": "fixed", "respond": {"status": 200, "body": body}}])


def test_context_manager_starts_and_stops(raw_client):
    with meshcore.Proxy(fixed()) as proxy:
        host, port = address = proxy.addresses["web"]
        assert host == "127.0.0.1" and port > 0
        assert raw_client(address).get().text == "hello"
    with pytest.raises(OSError):
        raw_client(address)


def test_async_context_manager_starts_and_stops(raw_client):
    async def scenario():
        async with meshcore.Proxy(fixed()) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.addresses["web"])
            writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(scenario()).endswith(b"hello")


def test_configuration_may_be_yaml_text_or_a_file(raw_client, tmp_path):
    text = "listeners: [{name: web, address: '127.0.0.1:0'}]\nroutes: [{name: fixed, respond: {body: hello}}]\n"
    path = tmp_path / "mesh.yaml"
    path.write_text(text)
    for given in (text, str(path), path):
        with meshcore.Proxy(given) as proxy:
            assert raw_client(proxy).get().text == "hello"


def test_configuration_may_be_a_config(raw_client):
    from meshcore.config import from_dict

    with meshcore.Proxy(from_dict(fixed())) as proxy:
        assert raw_client(proxy).get().text == "hello"


def test_wrong_configuration_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="timeuot"):
        meshcore.Proxy({**fixed(), "timeuot": {}})


def test_address_in_use_is_an_error_that_names_it(raw_server):
    taken = raw_server().address
    with pytest.raises((OSError, meshcore.errors.MeshError), match=taken.split(":")[1]):
        with meshcore.Proxy({**fixed(), "listeners": [{"name": "web", "address": taken}]}):
            pass


def test_stats_are_frozen_and_count(raw_client):
    with meshcore.Proxy(fixed()) as proxy:
        client = raw_client(proxy)
        for _ in range(3):
            client.get()
        eventually(lambda: proxy.stats().route("fixed").requests == 3)
        stats = proxy.stats()
        assert (stats.requests, stats.route("fixed").requests, stats.route("fixed").status_class[2]) == (3, 3, 3)
        with pytest.raises(AttributeError):
            stats.seconds = 0
        assert json.dumps(stats.to_dict())


def test_proxies_live_side_by_side(raw_client):
    with meshcore.Proxy(fixed("one")) as one, meshcore.Proxy(fixed("two")) as two:
        assert raw_client(one).get().text == "one"
        assert raw_client(two).get().text == "two"
        assert (one.stats().requests, two.stats().requests) == (1, 1)


def test_proxy_can_be_stopped_twice_and_is_gone():
    proxy = meshcore.Proxy(fixed())
    proxy.start()
    proxy.stop()
    proxy.stop()


def test_a_program_that_waits_for_its_proxy_ends_by_a_signal_that_another_thread_takes():
    code = (
        "import json, sys, meshcore\n"
        "with meshcore.Proxy(json.loads(sys.argv[1]), install_signals=True) as proxy:\n"
        "    print('up', flush=True)\n"
        "    print('ended:', proxy.wait(), flush=True)\n"
    )
    command = [sys.executable, "-c", code, json.dumps(fixed())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout.readline() == "up\n"
            signal_another_thread(program.pid, signal.SIGTERM)
            assert program.communicate(timeout=20)[0] == "ended: True\n"
        finally:
            program.kill()


def test_workers_share_one_address(raw_client):
    with meshcore.Proxy({**fixed(), "workers": 2}) as proxy:
        clients = [raw_client(proxy) for _ in range(32)]
        assert {client.get().text for client in clients} == {"hello"}
        stats = proxy.stats()
        assert len(stats.workers) == 2
        assert sum(worker.requests for worker in stats.workers) == 32
        assert all(worker.accepted > 0 for worker in stats.workers)


def test_many_lives_leave_no_descriptor_and_no_thread(raw_client):
    import os
    import threading

    def inventory():
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))

    with meshcore.Proxy(fixed()) as proxy:
        raw_client(proxy).get()
    before = inventory()
    for _ in range(20):
        with meshcore.Proxy(fixed()) as proxy:
            client = raw_client(proxy)
            client.get()
            client.close()
    after = inventory()
    assert all(b <= a + 1 for a, b in zip(before, after)), (before, after)


def test_stopped_proxy_holds_no_descriptor():
    import os

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    proxy = meshcore.Proxy(fixed())
    proxy.start()
    proxy.stop()
    assert descriptors() == before
    assert proxy.stats().requests == 0


def test_repr_is_worth_logging():
    with meshcore.Proxy(fixed()) as proxy:
        assert "Proxy" in repr(proxy) and str(proxy.addresses["web"][1]) in repr(proxy)


def test_ipv6_listener_serves(raw_client):
    import socket

    with meshcore.Proxy({**fixed(), "listeners": [{"name": "web", "address": "[::1]:0"}]}) as proxy:
        with socket.create_connection(tuple(proxy.addresses["web"][:2]), 5) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
            sock.settimeout(5)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_proxy_that_was_never_started_can_be_dropped():
    meshcore.Proxy(fixed())
