"""Endpoints that die, hang, lie or vanish: what clients see of it is bounded and honest."""

import random
import threading
import time

import pytest

from tests.conftest import SEED
from tests.faults.load import Load
from tests.scenario.servers import BlackHole, RawServer, eventually, refusing_port, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

EAGER = {"retry_budget": {"ratio_percent": 100, "min_per_second": 100}}


def test_killed_endpoint_fails_no_idempotent_request(endpoint_process, proxy):
    processes = [endpoint_process() for _ in range(3)]
    running = proxy(to=processes, cluster=EAGER, route={"retries": {"max_attempts": 3}})
    with Load(running.addresses["web"], path="/id/1") as load:
        load.wait(200)
        processes[0].kill()
        load.wait(1000)
    assert set(load.answers) == {200}, (load.answers, load.reasons)


def test_killed_endpoint_fails_at_most_the_requests_it_held(endpoint_process, proxy):
    processes = [endpoint_process() for _ in range(3)]
    running = proxy(to=processes, cluster=EAGER)
    with Load(running.addresses["web"], method="POST", path="/id/1") as load:
        load.wait(200)
        processes[0].kill()
        load.wait(1000)
    assert set(load.answers) <= {200, 502}
    assert load.answers[502] <= 8, load.reasons
    assert set(load.reasons) <= {"upstream_reset"}


def test_black_hole_is_ejected_and_costs_each_request_at_most_one_connect_timeout(raw_server, proxy):
    hole, good = BlackHole(), raw_server()
    breaker = {"consecutive_failures": 3, "backoff": "30s", "panic_percent": 0}
    running = proxy(to=[hole, good], cluster={**EAGER, "balancer": "round_robin", "connect_timeout": "100ms", "breaker": breaker})
    with Load(running.addresses["web"], n_clients=4) as load:
        load.wait(300)
    assert set(load.answers) == {200}
    assert running.stats().cluster("backend").endpoints[0].ejected
    hole.stop()


def test_frozen_endpoint_is_left_alone_and_comes_back_when_it_thaws(endpoint_process, proxy):
    frozen, good = endpoint_process(), endpoint_process()
    breaker = {"consecutive_failures": 3, "backoff": "100ms", "max_backoff": "200ms", "panic_percent": 0}
    running = proxy(to=[frozen, good], cluster={"balancer": "round_robin", "breaker": breaker}, route={"timeout": "100ms"})

    def state():
        return running.stats().cluster("backend").endpoints[0]

    with Load(running.addresses["web"], n_clients=4, path="/id/1") as load:
        load.wait(100)
        assert set(load.answers) == {200}
        frozen.freeze()
        eventually(lambda: state().ejected)
        load.wait(500)
        assert set(load.reasons) == {"upstream_response_timeout"}
        frozen.thaw()
        eventually(lambda: not state().ejected)
        before = state().successes
        load.wait(300)
        assert state().successes > before


def test_cluster_that_is_wholly_down_answers_fast_and_recovers(proxy):
    port = refusing_port()
    breaker = {"consecutive_failures": 3, "backoff": "100ms", "max_backoff": "200ms", "panic_percent": 0}
    running = proxy(to=f"127.0.0.1:{port}", cluster={"breaker": breaker})
    with Load(running.addresses["web"], n_clients=4) as load:
        load.wait(500)
        assert set(load.reasons) == {"upstream_connect_failed", "all_ejected"}
        # No retry storm: one try, one probe at a time.
        assert running.stats().cluster("backend").endpoints[0].connects < 100
        server = RawServer(port=port)
        try:
            eventually(lambda: load.answers[200] > 100)
        finally:
            server.stop()
    assert load.slowest_s < 5


def test_partly_failing_endpoint_is_not_amplified_beyond_the_budget(raw_server, proxy):
    rng = random.Random(SEED)

    def one_in_ten_slams(connection):
        while True:
            connection.read_request()
            if rng.random() < 0.1:
                return
            connection.send(response())

    server = raw_server(one_in_ten_slams)
    running = proxy(to=server, cluster={"breaker": {"consecutive_failures": 0}, "retry_budget": {"ratio_percent": 20, "min_per_second": 0}},
                    route={"retries": {"max_attempts": 5}})
    with Load(running.addresses["web"], n_clients=4) as load:
        load.wait(600)
    # Stale replays are part of it: a slammed pooled connection is a reset like any other.
    assert len(server.requests) <= sum(load.answers.values()) * 1.2 + 10


def test_every_reset_in_the_middle_of_a_body_is_visible(raw_server, proxy):
    def cutting(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
        time.sleep(0.002)
        connection.reset()

    running = proxy(to=raw_server(cutting), cluster={"breaker": {"consecutive_failures": 0}})
    with Load(running.addresses["web"]) as load:
        load.wait(200)
    assert 200 not in load.answers
    assert load.answers["cut"] >= 190


def test_servers_that_close_pooled_connections_at_any_moment_lose_no_idempotent_request(raw_server, proxy):
    """The stale-pool race: a server may close an idle connection in the very moment a request is on its way."""

    def leaving_soon(connection):
        connection.sock.settimeout(random.Random(f"{SEED}:{connection.number}").uniform(0.0005, 0.004))
        try:
            while True:
                connection.answer()
        except TimeoutError:
            pass

    running = proxy(to=raw_server(leaving_soon), cluster=EAGER)
    pauses = random.Random(SEED)

    with Load(running.addresses["web"], n_clients=8) as load:
        for _ in range(20):
            load.wait(60)
            time.sleep(pauses.uniform(0, 0.005))
    assert set(load.answers) == {200}, (load.answers, load.reasons)
    assert running.stats().cluster("backend").endpoints[0].ejections == 0


def test_server_that_only_closes_its_sending_side_is_not_used_again(raw_server, proxy):
    def half_closing(connection):
        connection.answer()
        connection.half_close()
        connection.wait_closed()

    server = raw_server(half_closing)
    with Load(proxy(to=server).addresses["web"], n_clients=4) as load:
        load.wait(200)
    assert set(load.answers) == {200}


def test_server_that_answers_before_it_is_asked_poisons_nobody(raw_server, proxy):
    """Response-queue poisoning: unasked responses must never be matched to the next request."""

    def overeager(connection):
        n = 0
        while True:
            request = connection.read_request()
            n += 1
            connection.send(response(body=request.target) + (response(body=b"poison") if n % 3 == 0 else b""))

    running = proxy(to=raw_server(overeager))
    wrong = []

    def client(number: int) -> None:
        from tests.scenario.clients import RawClient

        visitor = RawClient(running.addresses["web"])
        for turn in range(60):
            if visitor.get(f"/{number}/{turn}").text != f"/{number}/{turn}":
                wrong.append((number, turn))
        visitor.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
