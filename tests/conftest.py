"""Fixtures of the scenarios: `raw_server`, `raw_client`, `h2_server`, `h2_client`, `proxy`,
`h2_proxy`, `link`. What they start, they stop."""

from __future__ import annotations

import os
import random

import pytest

from tests.scenario import h2_links, h2_proxies, proxies
from tests.scenario.clients import RawClient
from tests.scenario.h2_peers import H2Client, H2Server
from tests.scenario.servers import RawServer

SEED = int(os.environ.get("MESHCORE_SEED") or random.SystemRandom().randrange(1 << 32))


def pytest_addoption(parser):
    parser.addoption("--proxy", help="proxy under test: meshcore, nginx, haproxy, or a command with {port} and {upstream}")


def pytest_configure(config):
    if config.getoption("--proxy", default=None):
        os.environ["MESHCORE_TEST_PROXY"] = config.getoption("--proxy")
    os.environ["MESHCORE_SEED"] = str(SEED)


def pytest_report_header():
    return f"proxy under test: {proxies.chosen_proxy()}; random pieces: MESHCORE_SEED={SEED}"


@pytest.fixture
def raw_server():
    """`raw_server(script=None)`: a started RawServer. A script that failed fails the test."""
    servers: list[RawServer] = []

    def start(script=None, **options) -> RawServer:
        servers.append(RawServer(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    trouble = [f"{server.address} {line}" for server in servers for line in server.trouble]
    assert not trouble, "servers saw trouble: " + "; ".join(trouble)


@pytest.fixture
def proxy():
    """`proxy(to=server, …)`: a started proxy; see scenario.proxies.config for the words it takes."""
    started = []

    def start(**words):
        running = proxies.start(words["config"] if "config" in words else proxies.config(**words))
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def raw_client():
    """`raw_client(proxy, listener="web")`: a connected RawClient."""
    clients: list[RawClient] = []

    def connect(target, listener: str = "web", **options) -> RawClient:
        address = target if isinstance(target, tuple) else target.addresses[listener]
        clients.append(RawClient(address, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def h2_server():
    """`h2_server(script=None, settings=None)`: a started H2Server. A script that failed fails the test."""
    servers: list[H2Server] = []

    def start(script=None, **options) -> H2Server:
        servers.append(H2Server(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    trouble = [f"{server.address} {line}" for server in servers for line in server.trouble]
    assert not trouble, "servers saw trouble: " + "; ".join(trouble)


@pytest.fixture
def h2_client():
    """`h2_client(proxy, listener="web", settings=None)`: an H2Client that has greeted."""
    clients: list[H2Client] = []

    def connect(target, listener: str = "web", **options) -> H2Client:
        address = target if isinstance(target, tuple) else target.addresses[listener]
        clients.append(H2Client(address, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def h2_proxy():
    """`h2_proxy(to=server, upstream="http2", …)`: a started proxy that takes HTTP/2; `upstream` is what its endpoints speak."""
    started = []

    def start(**words):
        started.append(h2_proxies.start(words["config"] if "config" in words else h2_proxies.h2_config(**words)))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(params=h2_links.PAIRS)
def link(request, raw_server, h2_server, raw_client, h2_client, h2_proxy):
    """`link(script, …)`: client, server and proxy, once for each pairing of protocols; see scenario.h2_links."""
    return h2_links.linking(request.param, raw_server, h2_server, raw_client, h2_client, h2_proxy)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
def only_meshcore():
    """For scenarios about what only our proxy promises."""
    if proxies.chosen_proxy() != "meshcore":
        pytest.skip("about meshcore itself")
