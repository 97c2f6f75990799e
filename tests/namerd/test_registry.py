"""The mesh's own registry as a namer: endpoints come, drain, vanish with their lease; the store's outage changes nothing."""

import secrets
import signal

from controlplane.audit import AuditMemory
from controlplane.catalogue import Catalogue
from controlplane.model import Endpoint
from controlplane.namerd.registry import registry_namer
from controlplane.namerd.settings import read_settings
from controlplane.store import SqliteStore
from controlplane.store.etcd import EtcdStore
from meshcore.naming import Leaf, Neg, Pending, read_path
from tests.controlplane.places import EtcdServer
from tests.namers.worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/meshcore.registry")


def endpoint(name: str, port: int, **more) -> Endpoint:
    return Endpoint(namespace="shop", service="web", name=name, address="127.0.0.1", port=port, **more)


async def test_a_service_follows_its_endpoints(tmp_path):
    store = SqliteStore(tmp_path / "mesh.db")
    namer = registry_namer(PREFIX, store)
    live = namer.lookup(read_path("/shop/web/users"))
    leave = live.subscribe(lambda: None)
    assert await becomes(live, lambda answer: answer != Pending()) == Neg()
    catalogue = Catalogue(store, AuditMemory())
    await catalogue.put(endpoint("web-1", 1), endpoint("web-2", 2, service_port=80), by="test")
    answer = await becomes(live, lambda answer: isinstance(answer, Leaf))
    assert (str(answer.value.id), str(answer.value.residual)) == ("/#/meshcore.registry/shop/web", "/users")
    replicas = namer.replicas(read_path("/shop/web"))
    await becomes(replicas, lambda state: state != Pending() and ports(state) == [1, 2])
    assert replicas.now.addresses[0].weight == 1.0
    for name, expected in (("web:80", [1, 2]), ("web:81", [1])):
        state = await becomes(namer.replicas(read_path(f"/shop/{name}")), lambda state: state != Pending())
        assert ports(state) == expected
    await catalogue.put(endpoint("web-1", 1, weight=0), by="test")  # draining
    await becomes(live, lambda answer: isinstance(answer, Leaf))
    await catalogue.delete(Endpoint, "shop/web/web-2", by="test")
    await becomes(live, lambda answer: answer == Neg())
    leave()
    await namer.close()


async def test_an_endpoint_vanishes_with_its_lease_and_an_outage_changes_nothing(tmp_path):
    server = EtcdServer(tmp_path)
    server.start()
    prefix = f"mesh-{secrets.token_hex(4)}"
    namer = registry_namer(PREFIX, EtcdStore([server.url], prefix=prefix))
    live = namer.replicas(read_path("/shop/web"))
    leave = live.subscribe(lambda: None)
    async with EtcdStore([server.url], prefix=prefix) as store:
        catalogue = Catalogue(store, AuditMemory())
        await catalogue.put(endpoint("web-1", 1), by="test")
        await catalogue.register(endpoint("web-2", 2), ttl_s=2, by="test")
        await becomes(live, lambda state: state != Pending() and state != Neg() and ports(state) == [1, 2])
        await becomes(live, lambda state: ports(state) == [1])
    server.stop(signal.SIGKILL)
    await becomes_stale(live)
    assert ports(live.now) == [1]
    server.start()
    await becomes_stale(live, is_stale=False)
    async with EtcdStore([server.url], prefix=prefix) as store:
        await Catalogue(store, AuditMemory()).put(endpoint("web-3", 3), by="test")
        await becomes(live, lambda state: ports(state) == [1, 3])
    leave()
    await namer.close()
    server.stop()


def test_it_is_named_in_a_file():
    settings = read_settings(
        "storage: {kind: io.l5d.sqlite}\ninterfaces: [{kind: io.l5d.mesh}]\n"
        "namers:\n- {kind: meshcore.registry, endpoints: ['http://127.0.0.1:2379']}\n"
    )
    assert str(settings.live_namers().asked[0].prefix) == "/#/meshcore.registry"


