"""The thread of the checks: bounded, spread, and it outlives whatever a check does."""

import threading
from dataclasses import replace

import grpc
import pytest

import meshcore.health.checks as checks_module
from meshcore.health import HealthChecks
from tests.health.asked import FAST, HealthServer, endpoint, health_threads
from tests.health.test_probes import target
from tests.scenario.servers import eventually, response


@pytest.fixture
def health():
    verdicts: dict[tuple[str, str], bool] = {}
    checks = HealthChecks(lambda cluster, address, unhealthy: verdicts.__setitem__((cluster, address), unhealthy))
    checks.verdicts = verdicts
    yield checks
    checks.stop()


def test_only_so_many_are_asked_at_once(raw_server, health, monkeypatch):
    monkeypatch.setattr(checks_module, "MOST_AT_ONCE", 4)
    lock, under_way, most = threading.Lock(), 0, 0

    def script(connection):
        nonlocal under_way, most
        connection.read_request()
        with lock:
            under_way += 1
            most = max(most, under_way)
        seen = witness.accepted
        eventually(lambda: witness.accepted > seen + 5)     # long enough for all the others to come due
        with lock:
            under_way -= 1
        connection.send(response())

    witness, beside = raw_server(), HealthChecks(lambda *verdict: None)
    beside.apply([target(witness.address, interval="10ms")])
    try:
        server = raw_server(script)
        one = target(server.address, interval="10ms")
        health.apply(replace(one, address=f"a:{n}") for n in range(20))
        eventually(lambda: server.accepted >= 40)
        assert most == 4
        health.stop()
    finally:
        beside.stop()
    assert sum(health.row("backend", f"a:{n}")["checks_passed"] > 0 for n in range(20)) > 4    # in turn, not the same ones


def test_the_first_checks_of_many_are_spread_over_the_interval(raw_server, health):
    """A thousand endpoints with an interval of an hour: none or a few are asked in the first moments."""
    server = raw_server()
    one = target(server.address, interval="1h")
    health.apply(replace(one, address=f"a:{n}") for n in range(1000))
    assert server.accepted < 100
    health.apply([replace(one, address="a:0")])
    assert set(health._checked) == {("backend", "a:0")}


def test_a_check_that_breaks_is_no_verdict_and_the_watch_goes_on(raw_server, health, monkeypatch):
    asked = 0

    async def broken(one):
        nonlocal asked
        asked += 1
        if asked <= 5:
            raise ValueError("a bug")

    monkeypatch.setattr(checks_module, "ask", broken)
    health.apply([target(raw_server().address, interval="10ms")])
    address = next(iter(health._checked))[1]
    eventually(lambda: health.row("backend", address)["checks_passed"])
    row = health.row("backend", address)
    assert row["healthy"] and row["checks_unasked"] == 5
    assert health.verdicts == {("backend", address): False}


def test_a_verdict_that_nobody_takes_does_not_end_the_watch(raw_server, health):
    """An endpoint's own check must go on even if telling its verdict raised."""
    told = []

    def refuse(cluster, address, unhealthy):
        told.append(unhealthy)
        if unhealthy:
            raise RuntimeError("nobody listens")

    health._set_unhealthy = refuse
    server = raw_server(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n")
    health.apply([target(server.address, interval="10ms")])
    eventually(lambda: True in told)
    before = server.accepted
    eventually(lambda: server.accepted > before + 3)


@pytest.mark.parametrize("answers", [{"": b"\x08\x01"}, {"": b"hang"}])
def test_stop_leaves_no_thread_of_grpc_checks(health, answers):
    server = HealthServer(answers)
    before = set(threading.enumerate())
    try:
        health.apply([target(server.address, type="grpc", interval="10ms")])
        address = next(iter(health._checked))[1]
        eventually(lambda: server.hanging.is_set() or health.row("backend", address)["checks_passed"] > 3)
        health.stop()
        assert not health_threads()
        # grpcio's own end a moment after their channels; the server's are those of its pool.
        eventually(lambda: not {thread for thread in set(threading.enumerate()) - before
                                if "ThreadPoolExecutor" not in thread.name})
    finally:
        server.stop()


def test_a_grpc_server_that_does_not_serve_leaves_and_returns(proxy, only_meshcore):
    server = HealthServer({"": b"\x08\x01"})
    try:
        running = proxy(to=server.address, cluster={"health_check": {
            "type": "grpc", "interval": FAST["interval"], "timeout": FAST["timeout"]}, "protocol": "http2"})
        eventually(lambda: endpoint(running).checks_passed)
        server.answers[""] = b"\x08\x02"
        eventually(lambda: not endpoint(running).healthy)
        assert endpoint(running).check_error == "it says NOT_SERVING"
        server.answers[""] = grpc.StatusCode.UNIMPLEMENTED
        eventually(lambda: endpoint(running).check_error.startswith("UNIMPLEMENTED"))
        server.answers[""] = b"\x08\x01"
        eventually(lambda: endpoint(running).healthy)
    finally:
        server.stop()
