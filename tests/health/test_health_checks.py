"""A proxy that asks its endpoints: who fails leaves, who is well again returns, and nothing is left behind."""

import subprocess
import threading

import pytest

from tests.health.asked import FAST, FAST_TCP, Asked, endpoint, health_threads, names
from tests.scenario import proxies
from tests.scenario.servers import eventually, response


@pytest.fixture
def two(raw_server):
    return [Asked(raw_server, "a"), Asked(raw_server, "b")]


def checking(endpoints, check=FAST, **cluster):
    return {"to": [one.address for one in endpoints], "cluster": {"balancer": "round_robin", "health_check": check, **cluster}}


def test_who_fails_leaves_after_fall_checks_and_returns_after_rise(two, proxy, raw_client, caplog, only_meshcore):
    running = proxy(**checking(two))
    client = raw_client(running)
    assert names(client) == {b"a", b"b"}
    two[1].status = 503
    eventually(lambda: not endpoint(running, 1).healthy)
    assert names(client) == {b"a"}
    seen = endpoint(running, 1)
    assert seen.checked and seen.checks_bad_answer >= 3 and seen.check_error == "it answered 503, expected 200-399"
    two[1].status = 204
    eventually(lambda: endpoint(running, 1).healthy)
    assert names(client) == {b"a", b"b"}
    assert [record.getMessage() for record in caplog.records if record.name == "meshcore.health"] == [
        f"endpoint {two[1].address} of cluster backend is unhealthy: 3 checks in a row failed, the last: "
        "it answered 503, expected 200-399",
        f"endpoint {two[1].address} of cluster backend is healthy again: 2 checks in a row passed"]


def test_only_failures_in_a_row_count(two, proxy, caplog, only_meshcore):
    two[0].upcoming.extend([503, 503, 200] * 5)
    running = proxy(**checking(two))
    eventually(lambda: endpoint(running).checks_bad_answer == 10 and endpoint(running).checks_passed >= 6)
    assert not [record for record in caplog.records if record.name == "meshcore.health"]


def test_exactly_fall_failures_turn_it_and_exactly_rise_passes_turn_it_back(raw_server, proxy, caplog, only_meshcore):
    one = Asked(raw_server, "a")
    one.upcoming.extend([503, 200, 503, 503, 200, 503, 503, 503, 503, 200, 503, 200, 200])
    running = proxy(**checking([one], {**FAST, "fall": 3, "rise": 2}))
    eventually(lambda: one.checks > 13 and endpoint(running).checks_passed >= 6)
    words = [record.getMessage() for record in caplog.records if record.name == "meshcore.health"]
    assert ["unhealthy" in line for line in words] == [True, False]


def test_the_check_is_a_plain_request_of_its_own(two, proxy, only_meshcore):
    proxy(**checking(two, {**FAST, "host": "a.test:8080"}))
    eventually(lambda: two[0].checks)
    request = two[0].server.requests[0]
    assert request.method == b"GET" and request.target == b"/live"
    assert [request.get(name) for name in ("host", "user-agent", "connection")] == ["a.test:8080", "meshcore-health-check", "close"]


def test_a_server_that_accepts_and_never_answers_fails_by_timeout(raw_server, two, proxy, raw_client, only_meshcore):
    hanging = raw_server(lambda connection: connection.wait_closed())
    running = proxy(**checking([two[0], hanging], {**FAST, "timeout": "100ms"}))
    eventually(lambda: not endpoint(running, 1).healthy)
    seen = endpoint(running, 1)
    assert seen.check_error == "no answer within 100ms" and seen.checks_timeout >= 3
    assert names(raw_client(running)) == {b"a"}


def test_a_server_that_is_gone_is_out_by_tcp_and_back_when_it_listens(raw_server, proxy, only_meshcore):
    server = raw_server()
    running = proxy(**checking([server], FAST_TCP))
    eventually(lambda: endpoint(running).checks_passed)
    server.stop()
    eventually(lambda: not endpoint(running).healthy)
    assert endpoint(running).check_error == "Connection refused" and endpoint(running).checks_unreachable >= 3
    raw_server(port=server.port)
    eventually(lambda: endpoint(running).healthy)


def test_an_endpoint_behind_a_proxy_header_is_asked_with_one(raw_server, proxy, only_meshcore):
    first = []

    def script(connection):
        first.append(connection.receive())
        connection.wait_closed()

    server = raw_server(script)
    running = proxy(**checking([server], FAST_TCP, proxy_protocol="v2"),
                    listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "all"}])
    eventually(lambda: endpoint(running).checks_passed and first)
    assert first[0] == b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


def test_what_runs_goes_on_when_its_endpoint_becomes_unhealthy(raw_server, proxy, raw_client, only_meshcore):
    go_on, status = threading.Event(), [200]

    def script(connection):
        request = connection.read_request()
        if request.target == b"/live":
            connection.send(response(status[0]))
            return
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        go_on.wait(10)
        connection.send(b"world")

    running = proxy(**checking([raw_server(script)]))
    client = raw_client(running)
    client.request("GET", "/slow")
    eventually(lambda: endpoint(running).active == 1)
    status[0] = 500
    eventually(lambda: not endpoint(running).healthy)
    go_on.set()
    assert client.read_response().body == b"helloworld"


@pytest.mark.parametrize(("panic", "answers"), [(50, {b"a", b"b"}), (0, {b""})])
def test_when_all_are_unhealthy_the_panic_share_decides(two, proxy, raw_client, panic, answers, only_meshcore):
    for one in two:
        one.status = 500
    running = proxy(**checking(two, breaker={"panic_percent": panic}))
    eventually(lambda: not endpoint(running, 0).healthy and not endpoint(running, 1).healthy)
    client = raw_client(running)
    if panic:
        assert names(client) == answers
    else:
        answer = client.get("/")
        assert (answer.status, answer.reason) == (504, "all_ejected")


# --- reload and stop ------------------------------------------------------------------------------------------------

def test_a_reload_keeps_the_verdict_of_endpoints_that_stay(two, proxy, raw_client, only_meshcore):
    two[1].status = 500
    words = checking(two)
    running = proxy(**words)
    eventually(lambda: not endpoint(running, 1).healthy)
    failed = endpoint(running, 1).checks_bad_answer
    running.reload(proxies.config(**words, route={"request_headers": {"set": {"x-new": "1"}}}))
    assert not endpoint(running, 1).healthy and endpoint(running, 1).checks_bad_answer >= failed
    assert names(raw_client(running)) == {b"a"}


def test_an_endpoint_that_left_is_asked_no_more_and_begins_anew_when_it_returns(two, proxy, raw_client, only_meshcore):
    two[1].status = 500
    running = proxy(**checking(two))
    eventually(lambda: not endpoint(running, 1).healthy)
    running.reload(proxies.config(**checking(two[:1])))
    accepted, passed = two[1].server.accepted, endpoint(running).checks_passed
    eventually(lambda: endpoint(running).checks_passed > passed + 5)
    assert two[1].server.accepted <= accepted + 1       # one may have been on its way
    running.reload(proxies.config(**checking(two, {**FAST, "interval": "1h"})))
    assert endpoint(running, 1).healthy and endpoint(running, 1).checks_bad_answer == 0
    assert names(raw_client(running)) == {b"a", b"b"}


def test_another_path_is_asked_after_the_reload_and_the_verdict_stays_until_it_speaks(two, proxy, only_meshcore):
    two[1].status = 500
    running = proxy(**checking(two))
    eventually(lambda: not endpoint(running, 1).healthy)
    running.reload(proxies.config(**checking(two, {**FAST, "path": "/other"})))
    asked = two[1].checks
    eventually(lambda: endpoint(running, 1).healthy)
    assert two[1].checks <= asked + 1
    assert b"/other" in {request.target for request in two[1].server.requests}


def test_a_cluster_that_is_checked_no_more_forgets_who_was_unhealthy(two, proxy, raw_client, only_meshcore):
    two[1].status = 500
    running = proxy(**checking(two))
    eventually(lambda: not endpoint(running, 1).healthy)
    running.reload(proxies.config(to=[one.address for one in two], cluster={"balancer": "round_robin"}))
    assert not endpoint(running, 1).checked and endpoint(running, 1).healthy
    assert names(raw_client(running)) == {b"a", b"b"}
    assert not health_threads()


def test_there_is_no_thread_without_checks_and_none_after_stop(two, proxy, only_meshcore):
    plain = proxy(to=two[0].address)
    assert not health_threads()
    running = proxy(**checking(two))
    assert len(health_threads()) == 1
    eventually(lambda: two[0].checks)
    running.stop()
    assert not health_threads()
    plain.reload(proxies.config(**checking(two)))
    assert len(health_threads()) == 1
    plain.stop()
    assert not health_threads()


def test_stop_does_not_wait_for_checks_that_hang(raw_server, proxy, only_meshcore):
    """A check of a minute: were it waited for, the test would run into its own time limit."""
    hanging = raw_server(lambda connection: connection.wait_closed())
    running = proxy(**checking([hanging], {"interval": "60s", "timeout": "60s"}))
    running.reload(proxies.config(**checking([hanging], {"interval": "50s", "timeout": "50s"})))
    running.stop()
    assert not health_threads()


def test_metrics_show_the_checked_and_only_them(two, proxy, only_meshcore):
    from meshcore.metrics import render

    two[0].status = 500
    running = proxy(**checking(two))
    eventually(lambda: not endpoint(running).healthy and endpoint(running, 1).checks_passed)
    page = render(running.stats())
    label = f'cluster="backend",endpoint="{two[0].address}"'
    assert f"mesh_endpoint_healthy{{{label}}} 0" in page
    assert f'mesh_endpoint_health_checks_total{{{label},result="bad_answer"}}' in page
    assert "mesh_endpoint_healthy{" not in render(proxy(to=two[0].address).stats())


def test_the_verdict_holds_under_tls_too(two, proxy, raw_client, tmp_path, only_meshcore):
    """Under another trust an endpoint has another state: what checks found must reach that one, and stay through a reload."""
    files = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a.test",
                    "-addext", "subjectAltName=DNS:a.test", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    two[0].status = two[1].status = 500
    words = checking(two, {**FAST, "port": two[0].server.port}, breaker={"panic_percent": 0})
    running = proxy(**words)
    eventually(lambda: not endpoint(running, 0).healthy and not endpoint(running, 1).healthy)
    words["cluster"]["tls"] = {"ca": files[0], "sni": "a.test"}
    running.reload(proxies.config(**words))
    assert raw_client(running).get("/").reason == "all_ejected"
