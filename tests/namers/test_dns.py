"""Names in DNS, against a real server: changes are seen when their time to live is over, an outage changes nothing."""

import pytest

from meshcore.clients.dns import DnsClient
from meshcore.namers import Address, LiveNamers
from meshcore.namers.dns_srv import dns_srv_namer
from meshcore.namers.inet import InetNamer
from meshcore.naming import Neg, Pending, read_path

from .dns_server import NSD, DnsServer
from .worlds import becomes, becomes_stale

WEB = read_path("/$/inet/web.mesh.test/8080")
SRV = read_path("/#/io.l5d.dnssrv/_http._tcp.mesh.test")


@pytest.fixture
def server(tmp_path):
    if NSD is None:
        pytest.skip("NSD is not installed: Debian package nsd")
    server = DnsServer(tmp_path)
    server.write("web A 127.0.0.2", "web A 127.0.0.3", "web AAAA ::1")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def namers(server):
    servers = (server.address,)
    return LiveNamers([dns_srv_namer(read_path("/#/io.l5d.dnssrv"), servers)], inet=InetNamer(servers))


def hosts(state) -> list[str]:
    return [] if isinstance(state, (Neg, Pending)) else sorted(address.host for address in state.addresses)


async def test_a_host_follows_its_records_through_changes_and_an_outage(server, namers):
    live = namers.replicas(WEB)
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: hosts(state) == ["127.0.0.2", "127.0.0.3", "::1"])
    server.write("web A 127.0.0.9")
    await becomes(live, lambda state: hosts(state) == ["127.0.0.9"])
    server.stop()
    await becomes_stale(live)
    assert hosts(live.now) == ["127.0.0.9"] and "web.mesh.test" in live.stale.why
    server.write("web A 127.0.0.10")
    server.start()
    await becomes(live, lambda state: hosts(state) == ["127.0.0.10"])
    assert live.stale is None
    leave()
    await namers.close()


async def test_a_host_that_does_not_exist_is_no_name_until_it_does(server, namers):
    live = namers.replicas(read_path("/$/inet/late.mesh.test/1"))
    assert await live.settled(20) == Neg()
    await namers.close()


async def test_a_service_has_the_ports_and_weights_of_its_best_priority(server, namers):
    server.write(
        "web A 127.0.0.2",
        "db A 127.0.0.3",
        "_http._tcp SRV 1 30 8080 web",
        "_http._tcp SRV 1 10 8081 db",
        "_http._tcp SRV 2 10 9999 web",
    )
    live = namers.replicas(SRV)
    leave = live.subscribe(lambda: None)
    expected = (Address("127.0.0.2", 8080, 30.0), Address("127.0.0.3", 8081, 10.0))
    await becomes(live, lambda state: getattr(state, "addresses", ()) == expected)
    answer = await becomes(namers.asked[0].lookup(read_path("/_http._tcp.mesh.test/users")), lambda one: one != Pending())
    assert (str(answer.value.id), str(answer.value.residual)) == (str(SRV), "/users")
    server.write("web A 127.0.0.2", "_http._tcp SRV 0 0 0 .")  # decidedly not there
    await becomes(live, lambda state: state == Neg())
    leave()
    await namers.close()


async def test_addresses_of_the_system_need_no_dns():
    namers = LiveNamers()
    for path, expected in (
        ("/$/inet/10.0.0.1/80", ("10.0.0.1", 80)),
        ("/$/inet/80", ("127.0.0.1", 80)),
        ("/$/io.buoyant.rinet/80/\\x3a\\x3a1", ("::1", 80)),
    ):
        state = namers.replicas(read_path(path)).now
        assert [(one.host, one.port) for one in state.addresses] == [expected]
    assert namers.replicas(read_path("/$/inet/10.0.0.1/0")).now == Neg()
    assert namers.replicas(read_path("/$/io.buoyant.http.status/404")).now.addresses == ()
    await namers.close()


async def test_a_name_that_is_none_is_absent_and_not_an_outage(server):
    client = DnsClient([server.address])
    assert await client.hosts("a..b") is None
    assert await client.services("x" * 300 + ".mesh.test") is None
    await client.close()
