"""What is tried again, where, and how often; and what never is."""

import time

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import BlackHole, eventually, refusing_port, response

IDEMPOTENT = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
ROUND = {"balancer": "round_robin", "breaker": {"consecutive_failures": 0}, "retry_budget": {"ratio_percent": 100, "min_per_second": 100}}


def slamming(connection):
    """Take the request, close without a word."""
    connection.read_request()


def resetting(connection):
    connection.read_request()
    connection.reset()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connection_is_tried_elsewhere_whatever_the_method(raw_server, proxy, raw_client, only_meshcore, method):
    server = raw_server()
    running = proxy(to=[f"127.0.0.1:{refusing_port()}", server], cluster=ROUND)
    client = raw_client(running)
    for _ in range(6):
        client.request(method, "/")
        assert client.read_response().status == 200
    assert len(server.requests) == 6
    assert running.stats().cluster("backend").retries == 1, "it is passed over then"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("balancer", ["round_robin", "random", "peak_ewma"])
def test_as_many_as_refuse_are_passed_by_without_attempts_or_budget(raw_server, proxy, raw_client, only_meshcore, method, balancer):
    """Two tries and a budget were the bound: with five of six gone, and still listed, most requests failed."""
    server = raw_server()
    dead = [f"127.0.0.1:{refusing_port()}" for _ in range(5)]
    poor = {"balancer": balancer, "retry_budget": {"ratio_percent": 0, "min_per_second": 0}}
    running = proxy(to=[*dead, server], cluster=poor)
    for _ in range(20):
        client = raw_client(running)
        client.request(method, "/")
        assert client.read_response().status == 200
    stats = running.stats().cluster("backend")
    assert stats.budget_exhausted == 0
    assert max(one.connect_failures for one in stats.endpoints[:5]) == 1


def test_one_attempt_means_one_even_where_it_was_refused(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=[f"127.0.0.1:{refusing_port()}", raw_server()], cluster=ROUND, route={"retries": {"max_attempts": 1}})
    statuses = [raw_client(running).get().status for _ in range(8)]
    assert statuses.count(502) == 1 and statuses.count(200) == 7


def test_refusals_do_not_use_up_the_attempts_at_others(raw_server, proxy, raw_client, only_meshcore):
    bad, good = raw_server(slamming), raw_server()
    dead = [f"127.0.0.1:{refusing_port()}" for _ in range(3)]
    running = proxy(to=[*dead, bad, good], cluster={**ROUND, "balancer": "random"})
    for _ in range(20):
        assert raw_client(running).get().status == 200


def test_where_everybody_refuses_attempts_and_budget_count(proxy, raw_client, only_meshcore):
    running = proxy(to=[f"127.0.0.1:{refusing_port()}" for _ in range(4)], cluster=ROUND)
    assert raw_client(running).get().reason == "upstream_connect_failed"
    connects = running.stats().cluster("backend").endpoints
    before = sum(one.connects for one in connects)
    assert before <= 6, "each once, and what the attempts allow"
    assert raw_client(running).get().reason == "upstream_connect_failed"
    assert sum(one.connects for one in running.stats().cluster("backend").endpoints) - before == 2


def test_refused_connection_with_a_waiting_body_is_tried_elsewhere(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    client = raw_client(proxy(to=[f"127.0.0.1:{refusing_port()}", server], cluster=ROUND))
    for number in range(4):
        assert client.post("/", b"b" * 100_000).status == 200
        assert server.requests[number].body_bytes == 100_000


def test_black_hole_costs_its_connect_timeout_once(raw_server, proxy, raw_client, only_meshcore):
    hole, server = BlackHole(), raw_server()
    client = raw_client(proxy(to=[hole, server], cluster={**ROUND, "connect_timeout": "100ms"}))
    for _ in range(2):
        assert client.get().status == 200
    hole.stop()


@pytest.mark.parametrize("breaking", [slamming, resetting])
@pytest.mark.parametrize("method", IDEMPOTENT)
def test_idempotent_request_is_tried_elsewhere_after_a_reset(raw_server, proxy, raw_client, only_meshcore, method, breaking):
    bad, good = raw_server(breaking), raw_server()
    client = raw_client(proxy(to=[bad, good], cluster=ROUND))
    for _ in range(4):
        client.request(method, "/")
        assert client.read_response().status == 200
    assert len(good.requests) == 4
    assert len(bad.requests) >= 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "FROBNICATE"])
def test_other_request_is_never_sent_twice(raw_server, proxy, raw_client, only_meshcore, method):
    servers = [raw_server(slamming), raw_server(slamming)]
    client = raw_client(proxy(to=servers, cluster=ROUND))
    client.request(method, "/")
    answer = client.read_response()
    assert (answer.status, answer.reason) == (502, "upstream_reset")
    assert sum(len(server.requests) for server in servers) == 1


def test_nothing_is_tried_again_after_the_first_response_octet(raw_server, proxy, raw_client, only_meshcore):
    def half_a_head(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nX-Half: ")

    def half_a_body(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    for script in (half_a_head, half_a_body):
        servers = [raw_server(script), raw_server(script)]
        client = raw_client(proxy(to=servers, cluster=ROUND))
        client.request("GET", "/")
        message = client.read_message()
        assert message is None or message.status == 502
        assert sum(len(server.requests) for server in servers) == 1


def test_last_failure_is_the_one_reported(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=[f"127.0.0.1:{refusing_port()}", f"127.0.0.1:{refusing_port()}"], cluster=ROUND)
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (502, "upstream_connect_failed")


def test_attempts_are_counted(raw_server, proxy, raw_client, only_meshcore):
    servers = [raw_server(slamming) for _ in range(4)]
    running = proxy(to=servers, cluster=ROUND, route={"retries": {"max_attempts": 3}})
    assert raw_client(running).get().reason == "upstream_reset"
    assert sum(server.accepted for server in servers) == 3
    assert running.stats().cluster("backend").retries == 2


def test_each_attempt_goes_to_another_endpoint(raw_server, proxy, raw_client, only_meshcore):
    servers = [raw_server(slamming) for _ in range(3)]
    raw_client(proxy(to=servers, cluster={**ROUND, "balancer": "random"}, route={"retries": {"max_attempts": 3}})).get()
    assert [server.accepted for server in servers] == [1, 1, 1]


def test_single_endpoint_is_tried_again(raw_server, proxy, raw_client, only_meshcore):
    def second_time_lucky(connection):
        if connection.number > 0:
            connection.answer()
        else:
            connection.read_request()

    assert raw_client(proxy(to=raw_server(second_time_lucky), cluster=ROUND)).get().status == 200


@pytest.mark.parametrize("status", [502, 503, 504])
def test_status_is_tried_again_only_where_configured(raw_server, proxy, raw_client, only_meshcore, status):
    bad, good = raw_server(response(status)), raw_server()
    plain = raw_client(proxy(to=[bad, good], cluster=ROUND))
    assert status in [plain.get().status for _ in range(4)]
    retrying = raw_client(proxy(to=[bad, good], cluster=ROUND, route={"retries": {"on": [str(status)], "max_attempts": 2}}))
    assert [retrying.get().status for _ in range(4)] == [200] * 4


def test_status_that_stays_is_delivered_with_its_body(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(response(503, b"sorry"))
    answer = raw_client(proxy(to=server, cluster=ROUND, route={"retries": {"on": ["503"], "max_attempts": 3}})).get()
    assert (answer.status, answer.text) == (503, "sorry")


def test_retries_stay_within_the_budget(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(slamming)
    budget = {"ratio_percent": 20, "min_per_second": 0}
    running = proxy(to=server, cluster={**ROUND, "retry_budget": budget}, route={"retries": {"max_attempts": 10}})
    for _ in range(50):
        client = raw_client(running)
        assert client.get().status in (502, 503)
        client.close()
    assert server.accepted <= 50 * 1.2 + 1
    assert running.stats().cluster("backend").budget_exhausted > 0


# --- pooled connections that turn out to be closed ----------------------------------------------------------------------


def answer_once(connection):
    """Answer, promise to stay, leave."""
    connection.answer()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_pooled_connection_is_noticed_before_use(raw_server, proxy, raw_client, only_meshcore, method):
    server = raw_server(answer_once)
    client = raw_client(proxy(to=server, route={"retries": {"max_attempts": 1}}))
    for number in range(20):
        client.request(method, "/")
        assert client.read_response().status == 200
        eventually(lambda number=number: server.connections[number].sock.fileno() < 0)
        time.sleep(0.05)  # the descriptor is gone a moment before the FIN is on the wire
    assert len(server.requests) == 20


def test_pooled_connection_that_closes_upon_the_next_request_is_replaced(raw_server, proxy, raw_client, only_meshcore):
    def first_only(connection):
        connection.answer()
        connection.receive(1)
        connection.reset()

    server = raw_server(first_only)
    running = proxy(to=server, cluster=ROUND)
    client = raw_client(running)
    for _ in range(10):
        assert client.get().status == 200
    assert running.stats().cluster("backend").stale_replays > 0


def test_stale_connection_is_not_a_failure_of_the_endpoint(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(answer_once), cluster={"breaker": {"consecutive_failures": 2, "panic_percent": 0}})
    client = raw_client(running)
    assert [client.get().status for _ in range(20)] == [200] * 20
    assert running.stats().cluster("backend").endpoints[0].ejections == 0


def test_pipelined_requests_survive_a_retry_of_the_first(raw_server, proxy, raw_client, only_meshcore):
    bad, good = raw_server(slamming), raw_server()
    client = raw_client(proxy(to=[bad, good], cluster=ROUND))
    client.send(request_bytes("GET", "/1") + request_bytes("GET", "/2") + request_bytes("GET", "/3"))
    assert [client.read_response().status for _ in range(3)] == [200] * 3
