"""Differences for who tells statistics on: each once, only of what had traffic, connections apart from requests."""

import time

import pytest

from meshcore.stats import Histogram
from tests.proxy.named import NamedProxy, binding
from tests.proxy.test_tcp import connect, read_all, server, tcp_proxy  # noqa: F401 (fixtures)
from tests.scenario.proxies import config
from tests.scenario.servers import eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")


def settled(running, requests: int):
    """A client has its answer a moment before it is counted."""
    eventually(lambda: sum(cluster.requests for cluster in running.stats().clusters) >= requests)


def test_each_difference_is_told_once_and_what_was_idle_is_left_out(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(lambda connection: [connection.send(response(503 if request.target == b"/bad" else 200))
                                                      for request in iter(connection.read_request, None)]),
                    routes=[{"name": "busy", "match": {"prefix": "/"}, "to": "backend"}, {"name": "idle", "to": "backend"}])  # fmt: skip
    client, counts = raw_client(running), running.counts()
    assert counts.take() == ([], [], {})
    for path in ("/", "/", "/bad"):
        client.get(path)
    settled(running, 3)
    routes, endpoints, reasons = counts.take()
    (route,), (endpoint,) = routes, endpoints
    assert (route.name, route.labels, route.requests, route.successes, route.failures) == ("busy", None, 3, 2, 1)
    assert (endpoint.name, endpoint.labels, endpoint.requests, endpoint.successes, endpoint.failures) == ("backend", {}, 3, 2, 1)
    assert Histogram.of_changes([route.latency]).count == Histogram.of_changes([endpoint.latency]).count == 3
    assert counts.take() == ([], [], {})
    client.get("/")
    settled(running, 4)
    (route,), _, _ = counts.take()
    assert (route.requests, route.successes, Histogram.of_changes([route.latency]).count) == (1, 1, 1)


def test_what_was_counted_before_the_first_look_and_reasons_are_told(proxy, raw_client):
    running = proxy(to=[])
    raw_client(running).get("/")
    counts = running.counts()
    eventually(lambda: running.stats().reasons)
    assert counts.take().reasons == {"no_endpoint": 1}
    assert counts.take().reasons == {}


def test_a_route_in_the_place_of_another_counts_from_zero(raw_server, proxy, raw_client):
    """States are remembered by slot, and a reload gives a slot away: the next one's first requests were taken for the old one's."""
    to = raw_server()
    running = proxy(to=to, routes=[{"name": "old", "to": "backend"}])
    counts = running.counts()
    for _ in range(5):
        raw_client(running).get("/")
    settled(running, 5)
    assert [(one.name, one.requests) for one in counts.take().routes] == [("old", 5)]
    running.reload(config(to=to, routes=[{"name": "between", "to": "backend"}]))
    running.reload(config(to=to, routes=[{"name": "new", "to": "backend"}]))
    for _ in range(5):
        raw_client(running).get("/")
    settled(running, 10)
    assert [(one.name, one.requests) for one in counts.take().routes] == [("new", 5)]


def test_what_names_are_bound_to_is_told_with_its_labels(raw_server, raw_client):
    proxy = NamedProxy()
    try:
        proxy.bind("web.test:80", binding(raw_server(), labels={"pod": "web-1"}))
        counts = proxy.proxy.counts()
        counts.take()
        assert raw_client(proxy).get("/", host="web.test").status == 200
        eventually(lambda: any(cluster.requests for cluster in proxy.stats().clusters))
        (endpoint,) = counts.take().endpoints
        assert (endpoint.labels, endpoint.requests) == ({"pod": "web-1"}, 1)
    finally:
        proxy.stop()


def test_connections_are_told_while_they_last_and_are_no_requests(server, tcp_proxy, connect):  # noqa: F811
    def script(sock):
        while data := sock.recv(1000):
            sock.sendall(b"." * (2 * len(data)))

    running = tcp_proxy(server(script))
    counts = running.counts()
    client = connect(running)
    client.sendall(b"x" * 100)
    assert len(client.recv(1000)) == 200
    deadline, seen = time.monotonic() + 10, []
    while sum(one.bytes_in for one in seen) < 200:
        assert time.monotonic() < deadline, seen
        seen += counts.take().endpoints
    assert (sum(one.tcp_opened for one in seen), sum(one.bytes_out for one in seen), seen[-1].tcp_open) == (1, 100, 1)
    client.close()
    while seen[-1].tcp_open:
        assert time.monotonic() < deadline, seen
        seen += counts.take().endpoints
    assert sum(one.requests + one.tcp_failed for one in seen) == 0, seen
    assert sum(one.bytes_in for one in seen) == 200
