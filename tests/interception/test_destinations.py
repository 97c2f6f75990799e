"""The endpoints of a cluster of original destinations: one for each address, bounded, and counted in one row."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.conftest import SEED
from tests.interception.namespaces import ROOT, program
from tests.scenario.servers import eventually

PAGES, LINES, NOBODY = 7100, 7101, 7102
HOSTS = [f"10.77.0.{last}" for last in range(20, 32)]
MOST = 4


@pytest.fixture(scope="module", autouse=True)
def servers(machines, peer):
    for host in HOSTS:
        machines.server.ip("addr", "add", f"{host}/24", "dev", "eth0")
    peer(machines.server, "pages", PAGES)
    peer(machines.server, "named", LINES)


@pytest.fixture
def one(machines, sidecar):
    """A client's sidecar with one worker and room for few destinations."""

    def bounded(configuration):
        configuration["workers"] = 1
        configuration["limits"] = {"max_original_destinations": MOST}
        for cluster in configuration["clusters"]:
            cluster["pool"] = {"idle_timeout": "1m"}

    started = sidecar(machines.client, change=bounded)
    yield started
    started.stop()


def row(one):
    (found,) = one.cluster("outbound")["endpoints"]
    return found


def upstream_connections(one):
    return one.stats()["workers"][0]["upstream_connections"]


def test_each_request_reaches_the_address_it_was_meant_for_and_no_other(one, machines, ask):
    """Three times as many addresses as there is room for, in a random order, with pooled connections throughout."""
    said = ask(machines.client, "asks-pages", SEED, 400, PAGES, *HOSTS)
    assert said == "asked\n", f"MESHCORE_SEED={SEED}"
    eventually(lambda: row(one)["requests"] == 400)  # the last answer may be here a moment before it is counted
    found = row(one)
    assert found["address"] == "original_destination"
    assert found["requests"] == found["successes"] == 400
    assert found["destinations"] == MOST
    assert found["idle"] == found["open_connections"] == upstream_connections(one) <= MOST
    assert MOST <= found["connects"] < 400  # some were pooled, and those of the others closed
    assert found["latency"]["count"] == 400


def test_requests_to_one_address_share_a_connection(one, machines, ask):
    assert ask(machines.client, "asks-pages", SEED, 20, PAGES, HOSTS[0]) == "asked\n"
    found = row(one)
    assert (found["requests"], found["connects"], found["destinations"]) == (20, 1, 1)


@contextlib.contextmanager
def held(machines, folder, hosts):
    home = folder("held")
    log, until = home / "log", home / "until"
    targets = [word for host in hosts for word in (host, str(LINES))]
    process = machines.client.start("python3", "-m", "tests.interception.peers", "holds", until, *targets, log=log, cwd=ROOT)
    eventually(lambda: b"held" in log.read_bytes())
    yield
    until.touch()
    process.wait(10)


def test_what_is_in_use_makes_no_room(one, machines, ask, folder):
    with held(machines, folder, HOSTS[:MOST]):
        assert ask(machines.client, "asks", HOSTS[5], LINES) == "ConnectionResetError\n"
        eventually(lambda: one.reasons().get("too_many_destinations") == 1)
        assert row(one)["destinations"] == row(one)["active"] == MOST
        assert ask(machines.client, "asks", HOSTS[0], LINES) == f"{HOSTS[0]} {LINES}\n"
    eventually(lambda: row(one)["active"] == 0)
    assert ask(machines.client, "asks", HOSTS[5], LINES) == f"{HOSTS[5]} {LINES}\n"


def test_a_reload_keeps_connections_and_numbers(one, machines, ask):
    ask(machines.client, "asks-pages", SEED, 10, PAGES, HOSTS[0])
    one.reload(lambda configuration: configuration["clusters"][1].update(connect_timeout="2s"))
    ask(machines.client, "asks-pages", SEED, 10, PAGES, HOSTS[0])
    assert (row(one)["requests"], row(one)["connects"]) == (20, 1)


def test_a_smaller_table_lets_go_of_the_ones_longest_unused(one, machines, ask):
    for host in HOSTS[:MOST]:
        ask(machines.client, "asks-pages", SEED, 1, PAGES, host)
    one.reload(lambda configuration: configuration.update(limits={"max_original_destinations": 2}))
    eventually(lambda: (row(one)["destinations"], row(one)["idle"], upstream_connections(one)) == (2, 2, 2))
    ask(machines.client, "asks-pages", SEED, 4, PAGES, *HOSTS[MOST - 2 : MOST])
    assert (row(one)["requests"], row(one)["connects"]) == (MOST + 4, MOST)


def test_connections_of_a_cluster_that_leaves_end_with_their_clients(one, machines, ask, folder):
    def renamed(configuration):
        configuration["clusters"][1]["name"] = "elsewhere"
        for route in configuration["routes"]:
            route["to"] = route["to"].replace("outbound", "elsewhere")

    ask(machines.client, "asks-pages", SEED, 1, PAGES, HOSTS[1])
    with held(machines, folder, HOSTS[:1]):
        one.reload(renamed)
        assert ask(machines.client, "asks-pages", SEED, 3, PAGES, *HOSTS[:2]) == "asked\n"
        (found,) = one.cluster("elsewhere")["endpoints"]
        assert found["requests"] == 3
    eventually(lambda: upstream_connections(one) == one.cluster("elsewhere")["endpoints"][0]["idle"])


def test_an_address_where_nobody_answers_is_ejected_alone(one, machines, ask):
    def breaking(configuration):
        configuration["clusters"][1]["breaker"] = {"consecutive_failures": 2, "backoff": "1h", "max_backoff": "1h",
                                                   "panic_percent": 0}  # fmt: skip

    one.reload(breaking)
    for _ in range(4):
        said = machines.client.run("curl", "-sS", "-o", "/dev/null", "-D", "-", f"http://{HOSTS[0]}:{NOBODY}/")
    assert "x-mesh-reason: all_ejected" in said
    assert ask(machines.client, "asks-pages", SEED, 3, PAGES, HOSTS[0], HOSTS[1]) == "asked\n"
    assert row(one)["ejections"] == 1 and row(one)["connect_failures"] == row(one)["connects"] - row(one)["open_connections"]


def test_a_tap_shows_and_finds_addresses(one, machines, ask, folder):
    log = folder("tap") / "log"
    tap = one.tap("--json", "--to", f"{HOSTS[1]}:{PAGES}", log=log)
    # A tap says nothing until it sees something: ask until it does.
    eventually(lambda: ask(machines.client, "asks-pages", SEED, 6, PAGES, *HOSTS[:2]) and log.read_text().count("\n") >= 3)
    tap.terminate()
    tap.wait(10)
    shown = {json.loads(line)["dst"] for line in log.read_text().splitlines()}
    assert shown == {f"{HOSTS[1]}:{PAGES}"}


def test_the_metrics_of_many_destinations_are_one_row(one, machines, ask):
    ask(machines.client, "asks-pages", SEED, 40, PAGES, *HOSTS)
    page = machines.client.run("curl", "-sS", "--unix-socket", one.admin, "http://admin/metrics")
    rows = [line for line in page.splitlines() if line.startswith("mesh_endpoint_requests_total") and "outbound" in line]
    assert rows == ['mesh_endpoint_requests_total{cluster="outbound",endpoint="original_destination"} 40']
    assert not any(host in page for host in HOSTS)


def test_http_2_sessions_end_with_their_destinations(one, machines, application, folder):
    if program("nghttp") is None:
        pytest.skip("nghttp is not here: tools/setup.sh test")
    (pages := folder("pages")).joinpath("page").write_text("the page")
    application(machines.server, 7103, "nghttpd", "--no-tls", "--address=0.0.0.0", "-d", pages, "7103")
    for host in [*HOSTS, *HOSTS]:
        assert machines.client.run("nghttp", f"http://{host}:7103/page") == "the page"
    assert row(one)["successes"] == 2 * len(HOSTS) and row(one)["destinations"] == MOST
    eventually(lambda: upstream_connections(one) == row(one)["open_connections"] == MOST)
    assert machines.client.run("nghttp", "-m2", f"http://{HOSTS[-1]}:7103/page") == "the page" * 2
    assert row(one)["connects"] == 2 * len(HOSTS)  # that address had a session already
