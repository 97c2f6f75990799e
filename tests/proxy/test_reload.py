"""A new configuration: applied whole or not at all, and only what changed feels it."""

import threading

import pytest

from meshcore.errors import ConfigError, EngineError
from tests.proxy.test_upgrade import UPGRADE, echoing
from tests.scenario.proxies import config
from tests.scenario.servers import eventually, refusing_port, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

FIXED = [{"name": "web", "address": "127.0.0.1:0"}]


def fixed(name: str, **match):
    return {"name": name, "match": match, "respond": {"status": 200, "body": name}}


def test_new_route_serves_the_next_request_of_an_open_connection(proxy, raw_client):
    running = proxy(to=[], routes=[fixed("old")])
    client = raw_client(running)
    assert client.get().text == "old"
    running.reload(config(to=[], routes=[fixed("new")]))
    eventually(lambda: client.get().text == "new")


def test_address_of_a_listener_stays(proxy, raw_client):
    running = proxy(to=[], routes=[fixed("old")])
    before = running.addresses["web"]
    running.reload(config(to=[], routes=[fixed("new")]))
    assert running.addresses["web"] == before
    assert raw_client(running).get().status == 200


def test_diff_names_what_changed(raw_server, proxy):
    server, other = raw_server(), raw_server()
    running = proxy(to=server)
    difference = running.reload(config(to=[server, other]))
    assert difference.clusters_changed == ("backend",)
    assert difference.endpoints_added == {"backend": (other.address,)}
    assert difference.routes_unchanged == 1
    assert not running.reload(config(to=[server, other]))


def test_broken_configuration_changes_nothing(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    client.get()
    with pytest.raises(ConfigError, match="nowhere"):
        running.reload(config(to=server, routes=[{"name": "all", "to": "nowhere"}]))
    assert client.get().status == 200
    assert raw_client(running).get().status == 200
    assert server.accepted == 1


def test_listener_whose_address_is_taken_changes_nothing(raw_server, proxy, raw_client):
    server, taken = raw_server(), raw_server()
    running = proxy(to=server)
    listeners = [*FIXED, {"name": "second", "address": taken.address}]
    with pytest.raises(OSError, match=taken.address):
        running.reload(config(to=server, routes=[fixed("new")], listeners=listeners))
    assert raw_client(running).get().text == "ok"
    assert list(running.addresses) == ["web"]


def test_unchanged_cluster_keeps_its_connections(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    client.get()
    for number in range(5):
        running.reload(config(to=server, routes=[{"name": "all", "to": "backend"}, fixed(f"extra-{number}", path=f"/{number}")]))
        assert client.get().status == 200
    assert server.accepted == 1


def test_unchanged_parts_keep_their_counters(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    client.get()
    running.reload(config(to=server, routes=[{"name": "all", "to": "backend"}, fixed("extra", path="/x")]))
    client.get()

    def counted():
        stats = running.stats()
        return stats.route("all").requests, stats.cluster("backend").endpoints[0].requests

    # The answer may be here a moment before it is counted.
    eventually(lambda: counted() == (2, 2))


def test_ejected_endpoint_stays_ejected(raw_server, proxy, raw_client):
    dead, good = f"127.0.0.1:{refusing_port()}", raw_server()
    breaker = {"breaker": {"consecutive_failures": 1, "backoff": "30s", "panic_percent": 0}, "balancer": "round_robin"}
    running = proxy(to=[dead, good], cluster=breaker)
    client = raw_client(running)
    for _ in range(4):
        client.get()
    assert running.stats().cluster("backend").endpoints[0].ejected
    running.reload(config(to=[dead, good], cluster=breaker, routes=[{"name": "all", "to": "backend"}, fixed("x", path="/x")]))
    assert running.stats().cluster("backend").endpoints[0].ejected


def test_endpoint_added_gets_traffic_and_endpoint_removed_gets_none(raw_server, proxy, raw_client):
    old, new = raw_server(), raw_server()
    running = proxy(to=old)
    client = raw_client(running)
    client.get()
    running.reload(config(to=new))
    eventually(lambda: client.get().status == 200 and new.requests)
    before = len(old.requests)
    for _ in range(10):
        assert client.get().status == 200
    assert len(old.requests) == before
    eventually(lambda: old.connections[0].ended)


def test_exchange_in_flight_keeps_its_endpoint(raw_server, proxy, raw_client):
    asked, release = threading.Event(), threading.Event()

    def slow(connection):
        connection.read_request()
        asked.set()
        assert release.wait(10)
        connection.send(response(body=b"old answer"))

    running = proxy(to=raw_server(slow))
    client = raw_client(running)
    client.request("GET", "/")
    assert asked.wait(10)
    running.reload(config(to=raw_server()))
    release.set()
    assert client.read_response().text == "old answer"
    assert client.get().text == "ok"


def test_tunnel_outlives_reloads(raw_server, proxy, raw_client):
    server = raw_server(echoing)
    running = proxy(to=server)
    client = raw_client(running)
    assert client.get("/chat", UPGRADE).status == 101
    for number in range(10):
        running.reload(config(to=server, routes=[{"name": "all", "to": "backend"}, fixed(f"x{number}", path="/x")]))
        client.send(b"still there")
        assert client.receive_tunnel(11) == b"still there"


def test_body_in_flight_outlives_the_removal_of_its_route(raw_server, proxy, raw_client):
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
    running.reload(config(to=[], routes=[fixed("new")]))
    release.set()
    assert client.read_response().text == "halfrest"


def test_listener_added_is_served_and_listener_removed_refuses(proxy, raw_client):
    both = [*FIXED, {"name": "second", "address": "127.0.0.1:0"}]
    running = proxy(to=[], routes=[fixed("it")])
    running.reload(config(to=[], routes=[fixed("it")], listeners=both))
    address = running.addresses["second"]
    assert raw_client(address).get().text == "it"
    running.reload(config(to=[], routes=[fixed("it")]))
    assert "second" not in running.addresses

    def refused() -> bool:
        try:
            raw_client(address)
            return False
        except ConnectionRefusedError:
            return True

    eventually(refused)
    assert raw_client(running).get().text == "it"


def test_new_limits_hold_for_open_connections(proxy, raw_client):
    running = proxy(to=[], routes=[fixed("it")])
    client = raw_client(running)
    assert client.get("/" + "p" * 1000).status == 200
    running.reload(config(to=[], routes=[fixed("it")], limits={"target_size": "256"}))
    client.send(b"GET /" + b"p" * 1000 + b" HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert client.read_response().reason == "target_too_long"


def test_a_hundred_reloads_leave_no_memory_behind(raw_server, proxy, raw_client):
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    for number in range(100):
        running.reload(config(to=server, routes=[{"name": "all", "to": "backend"}, *[fixed(f"r{number}-{n}", path=f"/{n}") for n in range(20)]]))
        if number == 10:
            early = running.stats().workers[0].memory_bytes
    client.get()
    late = running.stats().workers[0].memory_bytes
    assert late <= early * 1.5 + 65536


def test_more_workers_do_not_lose_a_reload(raw_server, proxy, raw_client):
    running = proxy(to=[], routes=[fixed("old")], workers=2)
    clients = [raw_client(running) for _ in range(16)]
    assert {client.get().text for client in clients} == {"old"}
    running.reload(config(to=[], routes=[fixed("new")], workers=2))
    eventually(lambda: {client.get().text for client in clients} == {"new"})
