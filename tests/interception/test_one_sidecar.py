"""One sidecar and what it must not do: send a connection elsewhere, or to itself, or take what it was told to leave."""

from __future__ import annotations

import sys

import pytest

from tests.interception.namespaces import Machines, program
from tests.interception.sidecars import INBOUND, OUTBOUND
from tests.scenario.servers import eventually

CLIENT, SERVER, SERVER6 = Machines.CLIENT, Machines.SERVER, Machines.SERVER6
ON_ANY, SKIPPED, ON_LOOPBACK = 7001, 7002, 7003


@pytest.fixture(scope="module", autouse=True)
def servers(machines, peer):
    peer(machines.server, "named", ON_ANY, SKIPPED)
    peer(machines.server, "named-on-loopback", ON_LOOPBACK)
    peer(machines.client, "named", ON_ANY)


@pytest.fixture
def running(sidecar):
    """`running(machine, …)`: a sidecar that ends, rules first, with the test."""
    started = []

    def start(machine, **options):
        started.append(sidecar(machine, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(params=["redirect", "tproxy"])
def mode(request):
    return request.param


@pytest.fixture(params=["nft", "iptables"])
def tool(request):
    if program(request.param) is None:
        pytest.skip(f"{request.param} is not here")
    return request.param


def test_inbound_connections_reach_the_address_they_were_meant_for(mode, tool, running, machines, ask):
    one = running(machines.server, mode=mode, tool=tool)
    machines.server.ip("addr", "add", "10.77.0.9/24", "dev", "eth0")
    try:
        assert ask(machines.client, "asks", SERVER, ON_ANY) == f"{SERVER} {ON_ANY}\n"
        assert ask(machines.client, "asks", "10.77.0.9", ON_ANY) == f"10.77.0.9 {ON_ANY}\n"
        # Before its address goes: a connection whose end finds no way here would be there for good.
        eventually(lambda: one.requests("inbound-tcp") == 2)
    finally:
        machines.server.ip("addr", "del", "10.77.0.9/24", "dev", "eth0")


def test_what_the_machine_itself_begins_is_not_taken_for_inbound(mode, tool, running, machines, ask):
    one = running(machines.server, mode=mode, tool=tool)
    assert ask(machines.server, "asks", CLIENT, ON_ANY) == f"{CLIENT} {ON_ANY}\n"
    assert ask(machines.server, "asks", SERVER, ON_ANY, "127.0.0.1", ON_LOOPBACK) \
        == f"{SERVER} {ON_ANY}\n127.0.0.1 {ON_LOOPBACK}\n"  # fmt: skip
    eventually(lambda: one.requests("outbound-tcp") == 1)
    assert one.requests("inbound-tcp") == 0


def test_inbound_connections_reach_what_listens_on_loopback_only_when_that_is_asked_for(running, machines, ask):
    one = running(machines.server, inbound={"to": "loopback"})
    assert ask(machines.client, "asks", SERVER, ON_LOOPBACK) == f"127.0.0.1 {ON_LOOPBACK}\n"
    one.reload(lambda c: c["clusters"][0].pop("to"))
    assert ask(machines.client, "asks", SERVER, ON_LOOPBACK) == "ConnectionResetError\n"


def test_a_destination_may_be_spoken_to_at_another_port(running, machines, ask):
    running(machines.client, outbound={"port": ON_ANY})
    assert ask(machines.client, "asks", SERVER, 7999) == f"{SERVER} {ON_ANY}\n"


def test_what_is_skipped_passes_the_proxy_by(tool, running, machines, ask):
    words = ("--skip-inbound-ports", f"{SKIPPED}-7100", "--skip-outbound-ports", str(SKIPPED),
             "--skip-subnets", "10.77.0.77/32")  # fmt: skip
    there = running(machines.server, tool=tool, rules=words)
    here = running(machines.client, tool=tool, rules=words)
    assert ask(machines.client, "asks", SERVER, SKIPPED, SERVER, ON_ANY) == f"{SERVER} {SKIPPED}\n{SERVER} {ON_ANY}\n"
    eventually(lambda: there.requests("inbound-tcp") == 1 and here.requests("outbound-tcp") == 1)
    machines.server.ip("addr", "add", "10.77.0.77/24", "dev", "eth0")
    machines.client.ip("addr", "add", "10.77.0.78/24", "dev", "eth0")
    try:
        assert ask(machines.client, "asks", "10.77.0.77", ON_ANY) == f"10.77.0.77 {ON_ANY}\n"
        assert here.requests("outbound-tcp") == 1
    finally:
        machines.server.ip("addr", "del", "10.77.0.77/24", "dev", "eth0")
        machines.client.ip("addr", "del", "10.77.0.78/24", "dev", "eth0")


def test_what_is_for_another_machine_is_not_relayed(mode, tool, running, machines, ask):
    one = running(machines.server, mode=mode, tool=tool)
    machines.client.ip("route", "add", "10.99.0.1", "via", SERVER)
    try:
        ask(machines.client, "mail-client", "10.99.0.1", ON_ANY, "0.5", check=False)  # the kernel drops it: no answer
    finally:
        machines.client.ip("route", "del", "10.99.0.1")
    assert next(row for row in one.stats()["listeners"] if row["name"] == "inbound")["accepted"] == 0


def test_a_connection_from_before_the_rules_goes_on(mode, tool, running, machines, folder):
    home = folder("held")
    log, until = home / "log", home / "until"
    process = machines.client.start(sys.executable, "-m", "tests.interception.peers", "holds", until, SERVER, str(ON_ANY),
                                    log=log)  # fmt: skip
    eventually(lambda: b"held" in log.read_bytes())
    for machine in (machines.client, machines.server):
        running(machine, mode=mode, tool=tool)
    until.touch()
    assert process.wait(20) == 0, log.read_text()
    assert log.read_text() == f"held\n{SERVER} {ON_ANY}\n"


@pytest.mark.parametrize("target", [("127.0.0.1", OUTBOUND), (SERVER, INBOUND), ("127.0.0.1", INBOUND)], ids=str)
def test_a_connection_to_the_proxy_itself_is_reset(target, mode, running, machines, ask):
    one = running(machines.server, mode=mode)
    assert ask(machines.server, "asks", *target) == "ConnectionResetError\n"
    eventually(lambda: one.reasons().get("intercept_loop") == 1)
    assert ask(machines.client, "asks", SERVER, ON_ANY) == f"{SERVER} {ON_ANY}\n"


def test_a_connection_to_the_proxy_itself_is_reset_wherever_it_would_be_sent(running, machines, ask):
    one = running(machines.client, outbound={"port": ON_ANY})
    assert ask(machines.client, "asks", "127.0.0.1", OUTBOUND) == "ConnectionResetError\n"
    eventually(lambda: one.reasons().get("intercept_loop") == 1)
    assert one.cluster("outbound")["requests"] == 0


@pytest.mark.parametrize("port", [INBOUND, OUTBOUND])
def test_a_caller_cannot_bring_the_proxy_to_call_itself(port, mode, running, machines, ask):
    one = running(machines.server, mode=mode, inbound={"to": "loopback"})
    assert ask(machines.client, "asks", SERVER, port) == "ConnectionResetError\n"
    eventually(lambda: one.reasons().get("intercept_loop") == 1)
    assert one.cluster("inbound")["endpoints"][0]["connects"] == 0


def test_a_request_that_would_go_round_is_answered_508(running, machines):
    one = running(machines.server, outbound={"port": INBOUND, "to": "loopback"})
    said = machines.server.run("curl", "-sS", "-o", "/dev/null", "-D", "-", f"http://{CLIENT}:{ON_ANY}/")
    assert said.startswith("HTTP/1.1 508 ") and "x-mesh-reason: intercept_loop" in said
    assert one.cluster("outbound")["endpoints"][0]["connects"] == 0


def test_a_proxy_that_nobody_intercepts_for_serves_nobody(running, machines, ask):
    one = running(machines.server, rules=None)
    assert ask(machines.client, "asks", SERVER, INBOUND) == "ConnectionResetError\n"
    eventually(lambda: one.reasons().get("intercept_loop") == 1)


def test_the_header_of_the_proxy_protocol_names_the_address_that_was_meant(running, machines, ask, peer):
    peer(machines.server, "first-line", 7005)

    def told(configuration):
        configuration["routes"] = [route for route in configuration["routes"] if "http" not in route["name"]]
        for listener in configuration["listeners"]:
            listener["protocol"] = "tcp"
            for key in ("routes", "detect_timeout"):
                del listener[key]

    running(machines.client, change=told, outbound={"proxy_protocol": "v1"})
    words = ask(machines.client, "asks", SERVER, 7005).split()
    assert words[:4] == ["PROXY", "TCP4", CLIENT, SERVER] and words[5] == "7005"


def test_the_wait_for_a_silent_client_is_remembered_by_destination(running, machines, ask, peer):
    """One destination whose server speaks first must not be judged by another whose clients speak, or the reverse."""
    peer(machines.server, "mail", 2526, 2527)
    one = running(machines.client, change=lambda configuration: configuration.update(workers=1))  # each has its memory
    for _ in range(6):
        assert ask(machines.client, "mail-client", SERVER, 2526) == "spoken\n"

    def patient(configuration):
        for listener in configuration["listeners"]:
            listener["detect_timeout"] = "1m"

    one.reload(patient)
    assert ask(machines.client, "mail-client", SERVER, 2526) == "spoken\n"  # a 64th of it
    assert "TimeoutError" in ask(machines.client, "mail-client", SERVER, 2527, 3, check=False)  # all of it: no greeting yet


def test_an_opaque_port_is_not_waited_at(running, machines, ask, peer):
    peer(machines.server, "mail", 2528)

    def patient(configuration):
        for listener in configuration["listeners"]:
            listener.update(detect_timeout="1m", opaque_ports=[2528])

    running(machines.client, change=patient)
    assert ask(machines.client, "mail-client", SERVER, 2528) == "spoken\n"
