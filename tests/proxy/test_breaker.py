"""Endpoints that fail again and again are left alone for a while; one probe tells when they are back."""

import time

from tests.scenario.servers import RawServer, eventually, refusing_port, response

QUICK = {"consecutive_failures": 3, "backoff": "100ms", "max_backoff": "200ms", "jitter_percent": 0, "panic_percent": 0}


def cluster(**more):
    return {"balancer": "round_robin", "breaker": {**QUICK, **more}}


def test_endpoint_that_refuses_connections_is_passed_over_from_the_first_time_on(raw_server, proxy, raw_client, only_meshcore):
    good = raw_server()
    dead = f"127.0.0.1:{refusing_port()}"
    running = proxy(to=[dead, good], cluster={**cluster(backoff="10s", max_backoff="10s"), "retry_budget": {"min_per_second": 100}})
    client = raw_client(running)
    assert [client.get().status for _ in range(20)] == [200] * 20
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.ejected, endpoint.ejections, endpoint.connect_failures) == (False, 0, 1)


def test_endpoint_that_refuses_connections_is_ejected_at_the_configured_number(raw_server, proxy, raw_client, only_meshcore):
    good = raw_server()
    dead = f"127.0.0.1:{refusing_port()}"
    running = proxy(to=[dead, good], cluster=cluster(backoff="1ms", max_backoff="10s"))
    client = raw_client(running)
    eventually(lambda: client.get().status == 200 and running.stats().cluster("backend").endpoints[0].ejections)
    assert running.stats().cluster("backend").endpoints[0].connect_failures >= 3


def test_endpoint_that_answers_5xx_again_and_again_is_ejected(raw_server, proxy, raw_client, only_meshcore):
    bad, good = raw_server(response(503)), raw_server()
    running = proxy(to=[bad, good], cluster=cluster(backoff="10s", max_backoff="10s"))
    client = raw_client(running)
    statuses = [client.get().status for _ in range(20)]
    assert statuses.count(503) == 3
    assert statuses[-10:] == [200] * 10


def test_success_in_between_starts_the_count_anew(raw_server, proxy, raw_client, only_meshcore):
    def mostly_bad(connection):
        n = 0
        while True:
            connection.answer(200 if n % 3 == 2 else 500)
            n += 1

    running = proxy(to=raw_server(mostly_bad), cluster=cluster())
    client = raw_client(running)
    for _ in range(20):
        client.get()
    assert running.stats().cluster("backend").endpoints[0].ejections == 0


def test_endpoint_whose_success_rate_falls_is_ejected_and_comes_back_with_a_clean_record(raw_server, proxy, raw_client, only_meshcore):
    """Two failures of three, never two in a row that a plain count would notice."""
    well = []

    def mostly_bad(connection):
        number = 0
        while True:
            number += 1
            connection.read_request()
            connection.send(response(200 if well or number % 3 == 0 else 500))

    rate = {"least_percent": 60, "requests": 6}
    running = proxy(to=raw_server(mostly_bad), cluster=cluster(consecutive_failures=0, success_rate=rate, backoff="50ms"))
    client = raw_client(running)
    statuses = [client.get().status for _ in range(8)]
    assert (statuses[:7], statuses[7]) == ([500, 500, 200, 500, 500, 200, 500], 504)
    assert running.stats().cluster("backend").endpoints[0].ejections == 1
    well.append(True)
    eventually(lambda: raw_client(running).get().status == 200)
    client = raw_client(running)
    assert [client.get().status for _ in range(20)] == [200] * 20
    assert running.stats().cluster("backend").endpoints[0].ejections == 1


def test_client_errors_never_eject(raw_server, proxy, raw_client, only_meshcore):
    running = proxy(to=raw_server(response(404)), cluster=cluster())
    client = raw_client(running)
    for _ in range(10):
        assert client.get().status == 404
    for _ in range(10):
        bad = raw_client(running)
        bad.reader.expect("POST")
        bad.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n")
        assert bad.read_response().status == 400
    for _ in range(10):
        leaving = raw_client(running)
        leaving.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n")
        leaving.reset()
    assert raw_client(running).get().status == 404
    endpoint = running.stats().cluster("backend").endpoints[0]
    assert (endpoint.failures, endpoint.ejections) == (0, 0)


def test_all_ejected_is_answered_at_once(proxy, raw_client, only_meshcore):
    running = proxy(to=f"127.0.0.1:{refusing_port()}", cluster=cluster(backoff="10s", max_backoff="10s"), route={"retries": {"max_attempts": 1}})
    answers = [raw_client(running).get() for _ in range(5)]
    assert [a.reason for a in answers] == ["upstream_connect_failed"] * 3 + ["all_ejected"] * 2
    assert answers[-1].status == 504


def test_panic_floor_ignores_ejections_when_too_many_fail(raw_server, proxy, raw_client, only_meshcore):
    good = raw_server()
    bad = [raw_server(response(503)) for _ in range(3)]
    running = proxy(to=[*bad, good], cluster=cluster(panic_percent=50, backoff="10s", max_backoff="10s"), route={"retries": {"max_attempts": 1}})
    statuses = [raw_client(running).get().status for _ in range(60)]
    # With three of four out, fewer than half are admitted: all get traffic again rather than one getting all.
    assert statuses[-20:].count(503) >= 5


def test_panic_floor_asks_nobody_who_cannot_be_connected_to(raw_server, proxy, raw_client, only_meshcore):
    good = raw_server()
    dead = [f"127.0.0.1:{refusing_port()}" for _ in range(7)]
    running = proxy(to=[*dead, good], cluster=cluster(panic_percent=50, backoff="60s", max_backoff="60s", consecutive_failures=1))
    client = raw_client(running)
    eventually(lambda: client.get().status == 200 and all(one.ejected for one in running.stats().cluster("backend").endpoints[:7]))
    connects = sum(one.connects for one in running.stats().cluster("backend").endpoints)
    assert [client.get().status for _ in range(40)] == [200] * 40
    assert sum(one.connects for one in running.stats().cluster("backend").endpoints) == connects


def test_endpoint_without_an_address_book_answers_no_endpoint(proxy, raw_client, only_meshcore):
    answer = raw_client(proxy(to=[])).get()
    assert (answer.status, answer.reason) == (503, "no_endpoint")


def test_repaired_endpoint_is_found_by_its_probe(proxy, raw_client, only_meshcore):
    port = refusing_port()
    running = proxy(to=f"127.0.0.1:{port}", cluster=cluster(), route={"retries": {"max_attempts": 1}})
    for _ in range(3):
        raw_client(running).get()
    assert running.stats().cluster("backend").endpoints[0].ejected
    server = RawServer(port=port)
    try:
        eventually(lambda: raw_client(running).get().status == 200)
        # The answer may be here before the exchange is noted.
        eventually(lambda: not running.stats().cluster("backend").endpoints[0].ejected)
        assert [raw_client(running).get().status for _ in range(5)] == [200] * 5
    finally:
        server.stop()


def test_exactly_one_request_is_the_probe(raw_server, proxy, raw_client, only_meshcore):
    """While the probe is out, everybody else still gets the quick answer."""
    answers = [500, 500, 500]

    def failing_then_silent(connection):
        while answers:
            connection.answer(answers.pop())
        connection.read_request()
        connection.wait_closed()

    server = raw_server(failing_then_silent)
    running = proxy(to=server, cluster=cluster())
    client = raw_client(running)
    for _ in range(3):
        assert client.get().status == 500
    time.sleep(0.15)
    probes = [raw_client(running) for _ in range(5)]
    for probe in probes:
        probe.request("GET", "/")
    eventually(lambda: running.stats().reasons.get("all_ejected") == 4)
    assert running.stats().cluster("backend").in_flight == 1
