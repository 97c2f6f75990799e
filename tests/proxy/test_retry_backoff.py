"""Waits between the tries of one request: the client is kept, nothing else is, and its time runs on."""

import time

from tests.scenario.servers import eventually, response

ONCE = {"balancer": "round_robin", "breaker": {"consecutive_failures": 0}, "retry_budget": {"ratio_percent": 100, "min_per_second": 100}}


def retries(**keys):
    return {"retries": {"on": ["503"], "max_attempts": 3, "jitter_percent": 0, **keys}}


def arrivals(server):
    """When each request came, as the server noted them."""
    return server.moments


def noting(server_of, answer):
    """A server that notes when it was asked."""
    moments = []

    def script(connection):
        while True:
            connection.read_request()
            moments.append(time.monotonic())
            connection.send(answer(len(moments)))

    server = server_of(script)
    server.moments = moments
    return server


def busy_until(number):
    return lambda count: response(200, b"well") if count >= number else response(503, b"busy")


def test_a_retry_waits_for_its_backoff_and_the_next_one_twice_as_long(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, busy_until(3))
    client = raw_client(proxy(to=server, cluster=ONCE, route=retries(backoff="60ms")))
    answer = client.get()
    assert (answer.status, answer.body) == (200, b"well")
    first, second, third = arrivals(server)
    assert second - first >= 0.06 and third - second >= 0.12


def test_the_longest_backoff_bounds_the_others(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, busy_until(9))
    client = raw_client(proxy(to=server, cluster=ONCE, route=retries(backoff="10ms", max_backoff="20ms", max_attempts=9)))
    assert client.get().status == 200
    moments = arrivals(server)
    assert len(moments) == 9 and moments[-1] - moments[0] >= 0.01 + 7 * 0.02


def test_decorrelated_waits_begin_with_the_first(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, busy_until(4))
    route = retries(backoff="30ms", max_backoff="40ms", jitter="decorrelated", max_attempts=4)
    assert raw_client(proxy(to=server, cluster=ONCE, route=route)).get().status == 200
    moments = arrivals(server)
    assert all(after - before >= 0.03 for before, after in zip(moments, moments[1:], strict=False))


def test_the_requests_time_ends_a_wait(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, busy_until(2))
    running = proxy(to=server, cluster=ONCE, route={**retries(backoff="30s", max_backoff="30s"), "total_timeout": "100ms"})
    answer = raw_client(running).get()
    assert (answer.status, answer.reason) == (504, "total_timeout")
    assert len(arrivals(server)) == 1


def test_a_client_that_leaves_while_its_retry_waits_is_let_go(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, busy_until(2))
    running = proxy(to=server, cluster=ONCE, route=retries(backoff="30s", max_backoff="30s"))
    client = raw_client(running)
    client.request("GET", "/")
    eventually(lambda: running.stats().cluster("backend").retries == 1)
    client.reset()
    eventually(lambda: running.stats().cluster("backend").in_flight == 0)
    assert len(arrivals(server)) == 1
    assert raw_client(running).get().status == 200, "what follows is not held up"


def test_nothing_of_the_endpoint_is_held_while_a_retry_waits(raw_server, proxy, raw_client, only_meshcore):
    """One connection is all there may be: the second request gets it while the first one waits."""
    server = noting(raw_server, lambda count: response(503 if count == 1 else 200, b"%d" % count))
    running = proxy(to=server, cluster={**ONCE, "max_connections": 1}, route=retries(backoff="300ms"))
    waiting, other = raw_client(running), raw_client(running)
    waiting.request("GET", "/")
    eventually(lambda: running.stats().cluster("backend").retries == 1)
    assert other.get().body == b"2"
    assert waiting.read_response().body == b"3"


def test_pipelined_requests_wait_behind_one_whose_retry_waits(raw_server, proxy, raw_client, only_meshcore):
    server = noting(raw_server, lambda count: response(503 if count == 1 else 200, b"%d" % count))
    client = raw_client(proxy(to=server, cluster=ONCE, route=retries(backoff="50ms")))
    client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [client.read_response().body for _ in range(2)] == [b"2", b"3"]


def test_an_http2_call_that_is_cancelled_while_its_retry_waits_is_let_go(raw_server, h2_proxy, h2_client, only_meshcore):
    server = noting(raw_server, busy_until(2))
    running = h2_proxy(to=server, cluster=ONCE, route=retries(backoff="30s", max_backoff="30s"))
    client = h2_client(running)
    stream = client.request("GET", "/")
    eventually(lambda: running.stats().cluster("backend").retries == 1)
    client.reset_stream(stream)
    eventually(lambda: running.stats().cluster("backend").in_flight == 0)
    assert len(arrivals(server)) == 1
