"""Exchanges waiting for an upstream connection: first come first served, bounded in number and time."""

import threading

import pytest

from tests.scenario.proxies import config
from tests.scenario.servers import eventually, response

ONE = {"max_connections": 1}


class Gate:
    """A script that holds every answer until the gate is opened."""

    def __init__(self):
        self.open = threading.Event()

    def __call__(self, connection):
        while True:
            request = connection.read_request()
            assert self.open.wait(10)
            connection.send(response(body=request.target))


def queued(running) -> int:
    return running.stats().cluster("backend").queue_len


def test_request_above_the_connection_limit_waits_its_turn(raw_server, proxy, raw_client, only_meshcore):
    gate = Gate()
    server = raw_server(gate)
    running = proxy(to=server, cluster=ONE)
    clients = [raw_client(running) for _ in range(3)]
    for number, client in enumerate(clients):
        client.request("GET", f"/{number}")
        eventually(lambda number=number: queued(running) == number)
    gate.open.set()
    assert [client.read_response().text for client in clients] == ["/0", "/1", "/2"]
    assert server.accepted == 1
    assert [r.path for r in server.requests] == ["/0", "/1", "/2"]


@pytest.mark.parametrize("balancer", ["round_robin", "random", "least_request"])
def test_a_request_waits_for_no_endpoint_while_another_has_room(balancer, raw_server, proxy, raw_client, only_meshcore):
    """Who was picked while at its limit made the request wait, whatever the others had free."""
    gate = Gate()
    busy, free = raw_server(gate), raw_server()
    cluster = {**ONE, "balancer": balancer, "queue_timeout": "30s"}
    running = proxy(to=busy, cluster=cluster)
    holding, client = raw_client(running), raw_client(running)
    holding.request("GET", "/held")
    eventually(lambda: len(busy.requests) == 1)
    running.reload(config(to=[busy, free], cluster=cluster))
    assert [client.get(f"/{n}").status for n in range(20)] == [200] * 20
    assert len(free.requests) == 20
    gate.open.set()
    assert holding.read_response().status == 200


def test_who_waits_gets_the_connection_that_becomes_free_whosever_it_is(raw_server, proxy, raw_client, only_meshcore):
    gates = Gate(), Gate()
    servers = [raw_server(gate) for gate in gates]
    running = proxy(to=servers, cluster={**ONE, "balancer": "random", "queue_timeout": "30s"})
    clients = [raw_client(running) for _ in range(8)]
    for client in clients:
        client.request("GET", "/")
    eventually(lambda: queued(running) == 6)
    gates[0].open.set()
    for _ in range(7):
        eventually(lambda: len(servers[0].requests) == 7)
    gates[1].open.set()
    assert [client.read_response().status for client in clients] == [200] * 8


def test_full_queue_is_answered_at_once(raw_server, proxy, raw_client, only_meshcore):
    gate = Gate()
    running = proxy(to=raw_server(gate), cluster={**ONE, "max_queue": 1})
    first, second = raw_client(running), raw_client(running)
    first.request("GET", "/1")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    second.request("GET", "/2")
    eventually(lambda: queued(running) == 1)
    answer = raw_client(running).get("/3")
    assert (answer.status, answer.reason) == (503, "queue_full")
    assert running.stats().cluster("backend").queue_overflow == 1
    gate.open.set()
    assert [c.read_response().status for c in (first, second)] == [200, 200]


def test_wait_in_the_queue_has_an_end(raw_server, proxy, raw_client, only_meshcore):
    gate = Gate()
    running = proxy(to=raw_server(gate), cluster={**ONE, "queue_timeout": "100ms"})
    first = raw_client(running)
    first.request("GET", "/1")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    answer = raw_client(running).get("/2")
    assert (answer.status, answer.reason) == (503, "queue_timeout")
    assert running.stats().cluster("backend").queue_timeouts == 1
    assert running.stats().cluster("backend").endpoints[0].failures == 0
    gate.open.set()
    assert first.read_response().status == 200


def test_client_that_leaves_the_queue_frees_its_place(raw_server, proxy, raw_client, only_meshcore):
    gate = Gate()
    server = raw_server(gate)
    running = proxy(to=server, cluster={**ONE, "max_queue": 1})
    first, leaving, third = (raw_client(running) for _ in range(3))
    first.request("GET", "/1")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    leaving.request("GET", "/2")
    eventually(lambda: queued(running) == 1)
    leaving.reset()
    eventually(lambda: queued(running) == 0)
    third.request("GET", "/3")
    eventually(lambda: queued(running) == 1)
    gate.open.set()
    assert [c.read_response().text for c in (first, third)] == ["/1", "/3"]
    assert [r.path for r in server.requests] == ["/1", "/3"]


def test_queued_request_is_served_when_the_connection_before_it_breaks(raw_server, proxy, raw_client, only_meshcore):
    gate = threading.Event()

    def breaking_first(connection):
        connection.read_request()
        if connection.number == 0:
            assert gate.wait(10)
            return
        connection.send(response())

    running = proxy(to=raw_server(breaking_first), cluster=ONE, route={"retries": {"max_attempts": 1}})
    first, second = raw_client(running), raw_client(running)
    first.request("POST", "/1")
    eventually(lambda: running.stats().cluster("backend").in_flight == 1)
    second.request("POST", "/2")
    eventually(lambda: queued(running) == 1)
    gate.set()
    assert first.read_response().reason == "upstream_reset"
    assert second.read_response().status == 200


def test_queue_of_many_is_emptied_in_order(raw_server, proxy, raw_client, only_meshcore):
    gate = Gate()
    server = raw_server(gate)
    running = proxy(to=server, cluster={"max_connections": 2})
    clients = [raw_client(running) for _ in range(40)]
    for client in clients:
        client.request("GET", "/")
    eventually(lambda: queued(running) == 38)
    gate.open.set()
    assert [client.read_response().status for client in clients] == [200] * 40
    assert server.accepted == 2
