"""Instances in a real etcd: leases, compaction, a server that is killed; every change arrives."""

import secrets
import signal

import pytest

from meshcore.clients.etcd import EtcdClient, encoded
from meshcore.namers import Address
from meshcore.namers.etcd import etcd_namer, read_instance
from meshcore.namers.source import SourceError
from meshcore.naming import Neg, Pending, read_path
from tests.controlplane.places import ETCD, EtcdServer

from .worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/io.l5d.etcd")


@pytest.fixture
def etcd(tmp_path):
    if ETCD is None:
        pytest.skip("etcd is not installed: Debian package etcd-server")
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def put(client, key, value, lease=0):
    return await client.call("/v3/kv/put", {"key": encoded(key), "value": encoded(value), "lease": lease})


async def test_a_name_follows_its_instances_through_compaction_kills_and_leases(etcd):
    client = EtcdClient([etcd.url])
    await client.open()
    root = f"/test-{secrets.token_hex(4)}"
    namer = etcd_namer(PREFIX, EtcdClient([etcd.url]), root)
    live = namer.replicas(read_path("/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state == Neg())
    await put(client, f"{root}/web/1", "127.0.0.1 1")
    await put(client, f"{root}/webster/1", "127.0.0.1 99")
    await becomes(live, lambda state: state != Neg() and ports(state) == [1])
    for number in range(2, 30):
        await put(client, f"{root}/web/{number}", f"127.0.0.1:{number}")
    await becomes(live, lambda state: ports(state) == list(range(1, 30)))
    await client.call(
        "/v3/kv/deleterange", {"key": encoded(f"{root}/web/2"), "range_end": encoded(f"{root}/web/3")}
    )
    await becomes(live, lambda state: 2 not in ports(state))
    etcd.stop(signal.SIGKILL)
    await becomes_stale(live)
    assert 1 in ports(live.now)
    etcd.start()
    answer = await put(client, f"{root}/web/1", "127.0.0.1 1001")
    await client.call("/v3/kv/compaction", {"revision": int(answer["header"]["revision"])})
    await becomes(live, lambda state: 1001 in ports(state))
    lease = await client.call("/v3/lease/grant", {"TTL": 1})
    await put(client, f"{root}/web/leased", "127.0.0.1 2002", int(lease["ID"]))
    await becomes(live, lambda state: 2002 in ports(state))
    await becomes(live, lambda state: 2002 not in ports(state))
    leave()
    await namer.close()
    await client.close()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"10.0.0.1 80", Address("10.0.0.1", 80)),
        (b"10.0.0.1 80 * 0.25\n", Address("10.0.0.1", 80, 0.25)),
        (b"10.0.0.1:80", Address("10.0.0.1", 80)),
        (b"[::1]:80", Address("::1", 80)),
        (
            b'{"host": "h", "port": 1, "weight": 2, "metadata": {"zone": "a"}}',
            Address("h", 1, 2.0, (("zone", "a"),)),
        ),
    ],
)
def test_an_instance_is_written_in_one_of_three_ways(value, expected):
    assert read_instance(value, "x") == expected


@pytest.mark.parametrize("value", [b"", b"host", b"{", b"{}", b'{"host": 1, "port": "x"}', b"\xff\xfe 1 2"])
def test_what_is_no_instance_is_refused(value):
    with pytest.raises(SourceError):
        read_instance(value, "x")


async def test_a_value_that_is_no_address_keeps_the_last_good_answer(shared_etcd):
    client = EtcdClient([shared_etcd.url])
    await client.open()
    root = f"/test-{secrets.token_hex(4)}"
    namer = etcd_namer(PREFIX, EtcdClient([shared_etcd.url]), root)
    await put(client, f"{root}/web/1", "127.0.0.1 1")
    live = namer.replicas(read_path("/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state != Pending())
    await put(client, f"{root}/web/2", "nonsense")
    await becomes_stale(live)
    assert ports(live.now) == [1] and "web/2" in live.stale.why
    await put(client, f"{root}/web/2", "127.0.0.1 2")
    await becomes(live, lambda state: ports(state) == [1, 2])
    leave()
    await namer.close()
    await client.close()
