"""Listeners that intercept, without any rules: what comes straight to them was on its way to the proxy itself."""

from __future__ import annotations

import os
import socket

import meshcore
import pytest
from meshcore.config import ConfigError, compile_plan, read
from meshcore.config.listeners import OPAQUE_PORTS

from tests.scenario.servers import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")


def configuration(protocol="detect", how="redirect", *, to="anywhere", listener=None, **cluster):
    tcp = protocol != "http"
    return {
        "workers": 1,
        "listeners": [
            {"name": "in", "address": "127.0.0.1:0", "protocol": protocol, "original_destination": how,
             **({"tcp_route": "tcp"} if tcp else {}), **(listener or {})}
        ],
        "routes": [{"name": "web", "to": to}, *([{"name": "tcp", "to": to}] if tcp else [])],
        "clusters": [{"name": "anywhere", "type": "original_destination", **cluster},
                     {"name": "fixed", "endpoints": ["127.0.0.1:1"]}],
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["http", "tcp", "detect"])
@pytest.mark.parametrize("to", ["anywhere", "fixed"])
def test_a_connection_made_straight_to_the_listener_is_reset_and_counted(protocol, to, proxy):
    running = proxy(config=configuration(protocol, to=to))
    # The reset may come while the client still waits for its connect.
    with pytest.raises(ConnectionError), socket.create_connection(running.addresses["in"], PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        assert client.recv(100) == b"never"
    eventually(lambda: running.stats().reasons.get("intercept_loop") == 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="IP_TRANSPARENT needs CAP_NET_ADMIN")
@pytest.mark.parametrize("to", ["anywhere", "fixed"])
def test_a_transparent_listener_knows_its_own_address(to, proxy):
    running = proxy(config=configuration(how="tproxy", to=to))
    with pytest.raises(ConnectionError), socket.create_connection(running.addresses["in"], PATIENCE_S) as client:
        client.sendall(b"x")
        assert client.recv(100) == b"never"
    eventually(lambda: running.stats().reasons.get("intercept_loop") == 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="IP_TRANSPARENT needs CAP_NET_ADMIN")
def test_a_listener_that_stays_cannot_become_transparent_or_cease_to_be(proxy):
    running = proxy(config=configuration(how="redirect"))
    with pytest.raises(ConfigError, match="'in'.*from redirect to tproxy while it listens; give the listener another name"):
        running.reload(configuration(how="tproxy"))
    running.reload(configuration(how="tproxy", listener={"name": "new"}))
    with pytest.raises(ConfigError, match="from tproxy to redirect"):
        running.reload(configuration(how="redirect", listener={"name": "new"}))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do this")
def test_without_the_right_a_transparent_listener_tells_the_way_out():
    with pytest.raises(PermissionError, match="CAP_NET_ADMIN.*original_destination: redirect"):
        meshcore.Proxy(configuration(how="tproxy")).start()


def test_a_filter_cannot_send_a_request_where_nobody_was_going(proxy, raw_client):
    """The one way from a listener that intercepts nothing to such a cluster: refused, and nothing is dialled."""
    config = configuration("http")
    config["listeners"].append({"name": "plain", "address": "127.0.0.1:0", "routes": ["fixed"]})
    config["routes"].append({"name": "fixed", "match": {"host": "b.test"}, "to": "fixed"})
    config["listeners"][0]["routes"] = ["web"]
    running = proxy(config=config)

    @running.on_request("fixed")
    def elsewhere(request):
        request.cluster = "anywhere"

    client = raw_client(running, "plain")
    client.send(b"GET / HTTP/1.1\r\nhost: b.test\r\n\r\n")
    response = client.read_response()
    assert (response.status, response.all("x-mesh-reason")) == (503, ["no_original_destination"])


def ports_of(**listener):
    return compile_plan(read(configuration(listener=listener)))["listeners"][0]["opaque_ports"]


def test_the_ports_that_are_not_looked_at_are_those_of_linkerd_unless_told():
    assert ports_of() == list(OPAQUE_PORTS) == [25, 587, 3306, 4444, 5432, 6379, 9300, 11211]
    assert ports_of(opaque_ports=[1]) == [1]
    assert ports_of(opaque_ports=[]) == []
    assert compile_plan(read(configuration("tcp")))["listeners"][0]["opaque_ports"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["clusters"][0].update(endpoints=["127.0.0.1:1"]), "its endpoint is where each client was going"),
        (lambda c: c["clusters"][1].update(to="loopback"), "'to' changes an original destination"),
        (lambda c: c["clusters"][1].update(port=80), "'port' changes an original destination"),
        (lambda c: c["clusters"][0].update(type="original"), "original_destination"),
        (lambda c: c["listeners"][0].update(original_destination="off"), "'in' intercepts nothing, but its route 'web'"),
        (lambda c: c["listeners"][0].update(protocol="tcp", opaque_ports=[25]), "only a listener that detects and intercepts"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, said):
    config = configuration()
    change(config)
    with pytest.raises(ConfigError) as raised:
        read(config)
    assert said in str(raised.value)


def test_a_cluster_without_endpoints_of_its_own_is_no_cause_for_a_warning():
    warnings = [str(one) for one in meshcore.config.check(read(configuration()))]
    assert not any("anywhere" in warning and "endpoints" in warning for warning in warnings), warnings
