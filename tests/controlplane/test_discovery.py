"""Sources of discovery: files that are edited, a real DNS server, the Kubernetes protocol; and what is kept of each."""

from __future__ import annotations

import asyncio
import os

import pytest

from controlplane.discovery.configured import read
from controlplane.discovery.dns import DnsSource
from controlplane.discovery.feeding import Feed
from controlplane.discovery.files import FileSource
from controlplane.discovery.kubernetes import KubernetesSource
from controlplane.errors import Invalid
from controlplane.model import Endpoint, Service
from controlplane.resolve import Address, Name, View
from controlplane.server import ControlPlane
from meshcore.api import discovery_pb2
from meshcore.clients.dns import Hosts
from meshcore.errors import ConfigError
from tests.controlplane.members import DOMAIN, Watching, join, settings
from tests.namers.dns_server import NSD, DnsServer
from tests.namers.kubernetes_server import KubernetesServer

WEB = Name("shop", "web", 80)
SERVICES = "/api/v1/namespaces/shop/services"
PODS = "/api/v1/namespaces/shop/pods"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"


class Followed:
    """A source and the view it feeds, without a store."""

    def __init__(self, source, folder) -> None:
        self.view = View(None, DOMAIN, "cluster.local", [source.name])
        folder.mkdir(exist_ok=True)
        self.feed = Feed(source, self.view, folder)

    async def __aenter__(self):
        self._task = asyncio.create_task(self.feed.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def endpoints(self, name=WEB) -> set[str]:
        return {f"{ip}:{port}" for ip, port in self.view.look(name).state.endpoints}

    def policy(self, name=WEB):
        return discovery_pb2.Policy.FromString(self.view.look(name).state.policy)

    async def until(self, claim) -> None:
        async with asyncio.timeout(30):
            while not claim():
                await asyncio.sleep(0.01)


def model(*ports: int) -> str:
    lines = ["- {kind: service, namespace: shop, name: web}"]
    lines += [f"- {{kind: endpoint, namespace: shop, service: web, name: e{port}, address: 192.0.2.1, port: {port}}}" for port in ports]
    return "\n".join(lines) + "\n"


# -- files --------------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_edited_counts_at_once_and_a_mistake_changes_nothing(tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(model(1))
    async with Followed(FileSource(path), tmp_path / "kept") as seen:
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:1"})
        fresh = tmp_path / ".mesh.yaml.swp"
        fresh.write_text(model(1, 2))
        os.replace(fresh, path)  # as editors do
        await seen.until(lambda: len(seen.endpoints()) == 2)
        path.write_text(model(3) + "- {kind: endpoint, namespace: shop, service: web, name: x, address: no, port: 1}\n")
        await seen.until(lambda: "mesh.yaml:3:" in seen.feed.error)
        assert len(seen.endpoints()) == 2 and seen.feed.state()["error"]
        path.unlink()
        await seen.until(lambda: "No such file" in seen.feed.error)
        assert len(seen.endpoints()) == 2
        path.write_text(model(4))
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:4"} and not seen.feed.error)


async def test_a_folder_is_one_whole_and_may_be_a_config_map(tmp_path):
    """Kubernetes swaps a symbolic link beside the files."""
    folder = tmp_path / "map"
    for number in (1, 2):
        (folder / f"..data{number}").mkdir(parents=True)
        (folder / f"..data{number}" / "a.yaml").write_text(model(number))
    (folder / "..data").symlink_to("..data1")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    (folder / "notes.txt").write_text("not ours")
    async with Followed(FileSource(folder), tmp_path / "kept") as seen:
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:1"})
        (folder / "..fresh").symlink_to("..data2")
        os.replace(folder / "..fresh", folder / "..data")
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:2"})
        (folder / "b.yaml").write_text(model(9))
        await seen.until(lambda: "already" in seen.feed.error)
        assert seen.endpoints() == {"192.0.2.1:2"}


# -- DNS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dns(tmp_path):
    if NSD is None:
        pytest.skip("NSD is not installed: Debian package nsd")
    folder = tmp_path / "dns"
    folder.mkdir()
    server = DnsServer(folder)
    server.write("web A 192.0.2.1", "web A 192.0.2.2", "_http._tcp.cart SRV 0 5 8081 web", "_http._tcp.cart SRV 1 5 8082 web")
    server.start()
    yield server
    server.stop()


def dns_source(dns: DnsServer, record: str) -> DnsSource:
    (conf,) = read(f"- {{kind: dns, namespace: shop, service: web, {record}, servers: ['{dns.address}']}}", "sources")
    return DnsSource(conf, min_ttl_s=0.2)


async def test_addresses_of_a_name_follow_dns_and_stay_while_it_does_not_answer(dns, tmp_path):
    async with Followed(dns_source(dns, "host: web.mesh.test, port: 8080"), tmp_path / "kept") as seen:
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:8080", "192.0.2.2:8080"})
        dns.write("web A 192.0.2.3")
        await seen.until(lambda: seen.endpoints() == {"192.0.2.3:8080"})
        dns.stop()
        await seen.until(lambda: bool(seen.feed.error))
        assert seen.endpoints() == {"192.0.2.3:8080"} and seen.feed.stale_s >= 0
        dns.write("other A 192.0.2.4")  # the name is gone
        dns.start()
        await seen.until(lambda: seen.endpoints() == set() and not seen.feed.error)


async def test_srv_records_of_the_first_priority_count(dns, tmp_path):
    async with Followed(dns_source(dns, "srv: _http._tcp.cart.mesh.test"), tmp_path / "kept") as seen:
        await seen.until(lambda: seen.endpoints() == {"192.0.2.1:8081", "192.0.2.2:8081"})


async def test_answers_that_lead_nowhere_or_are_too_many_are_bounded_and_what_was_known_stays(dns, tmp_path):
    """Of a server, and not of a client that plays one: aliases in a circle, a name that is not there, more than UDP holds."""
    async with Followed(dns_source(dns, "host: web.mesh.test, port: 8080"), tmp_path / "kept") as seen:
        await seen.until(lambda: len(seen.endpoints()) == 2)
        dns.write("web CNAME round", "round CNAME about", "about CNAME web")
        await asyncio.sleep(1.5)  # it is asked again and again meanwhile
        assert seen.feed.error or len(seen.endpoints()) in (0, 2)
        dns.write(*(f"web A 10.0.{number >> 8}.{number & 255}" for number in range(1_500)))
        await seen.until(lambda: len(seen.endpoints()) == 1_000)


class Answers:
    """A DNS client that says what it was told to: times to live and records that no server here would give."""

    def __init__(self, hosts: Hosts | None) -> None:
        self.asked = 0
        self._hosts = hosts

    async def hosts(self, name: str) -> Hosts | None:
        self.asked += 1
        return self._hosts


@pytest.mark.parametrize(("ttl_s", "waits"), [(0, 5), (1, 5), (60, 60), (2**31 - 1, 300)])
async def test_answers_of_dns_are_clamped_and_capped(ttl_s, waits):
    (conf,) = read("- {kind: dns, namespace: shop, service: web, host: web.mesh.test, port: 80}", "sources")
    many = Hosts(tuple(f"10.0.{number >> 8}.{number & 255}" for number in range(1_500)), ttl_s)
    values, wait_s = await DnsSource(conf).ask(Answers(many))
    assert len(values) == 1_000 and wait_s == waits
    assert await DnsSource(conf).ask(Answers(None)) == ([], 5)


# -- Kubernetes -----------------------------------------------------------------------------------------------------------


class Heard:
    """Listens, and counts how often it was told everything."""

    def __init__(self) -> None:
        self.wholes = 0

    def whole(self, groups) -> None:
        self.wholes += 1

    def some(self, groups) -> None:
        pass

    def well(self) -> None:
        pass


async def cluster(server: KubernetesServer) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c"}, {"name": "admin", "port": 81}]
    await server.put(SERVICES, "web", {"app": "web"}, spec={"clusterIPs": ["198.51.100.1"], "ports": ports})
    await server.put(PODS, "web-a", {"app": "web", "meshcore.io/proxy": "sidecar"}, spec={"serviceAccountName": "web"})
    await slices(server, {"web-a": {"ready": True}, "web-b": {"ready": True}})


async def slices(server: KubernetesServer, pods: dict[str, dict], name: str = "web-1", **more) -> None:
    endpoints = [
        {"addresses": [f"192.0.2.{ord(pod[-1])}"], "conditions": state, "targetRef": {"kind": "Pod", "name": pod}, "zone": "a"}
        for pod, state in pods.items()
    ]
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    given = {"addressType": "IPv4", "endpoints": endpoints, "ports": ports, **more}
    await server.put(SLICES, name, {"kubernetes.io/service-name": "web"}, **given)


def kubernetes(server: KubernetesServer, token_file=None) -> KubernetesSource:
    (conf,) = read(f"- {{kind: kubernetes, url: '{server.url}', namespace: shop, token_file: '{token_file or ''}'}}", "sources")
    return KubernetesSource(conf, DOMAIN)


A, B = "192.0.2.97:8080", "192.0.2.98:8080"


async def test_services_slices_and_pods_become_endpoints_with_identities(tmp_path):
    async with KubernetesServer() as server:
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})
            there = {one.name: one for one in seen.view.layers.told_by("kubernetes").values() if isinstance(one, Endpoint)}
            assert there["web-a.8080"].identity == f"spiffe://{DOMAIN}/ns/shop/sa/web" and not there["web-b.8080"].identity
            assert there["web-a.8080"].zone == "a" and there["web-a.8080"].labels["app"] == "web"
            assert there["web-a.8080"].protocol == "http2" and seen.policy().protocol == "http2"
            # Port 81 is declared, and nothing answers it; the cluster's address means the service.
            assert seen.endpoints(Name("shop", "web", 81)) == set()
            assert seen.endpoints(Address("198.51.100.1", 80)) == {A, B}
            # A pod that gets a proxy beside it is spoken to by mTLS from then on.
            await server.put(PODS, "web-b", {"meshcore.io/proxy": "sidecar"}, spec={})
            await seen.until(lambda: b"sa/default" in b"".join(seen.view.look(WEB).state.endpoints.values()))


async def test_endpoints_drain_while_their_pods_end_and_unready_ones_are_not_told(tmp_path):
    async with KubernetesServer() as server:
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})
            await slices(server, {"web-a": {"ready": False, "serving": True, "terminating": True}, "web-b": {"ready": True}})
            await seen.until(lambda: seen.endpoints() == {B})
            weights = [one.weight for one in seen.view.layers.told_by("kubernetes").values() if isinstance(one, Endpoint)]
            assert sorted(weights) == [0, 100]
            await slices(server, {"web-a": {"ready": True}, "web-b": {"ready": False}})
            await seen.until(lambda: seen.endpoints() == {A})
            await slices(server, {"web-b": {}}, name="web-2")  # no condition at all is ready
            await seen.until(lambda: seen.endpoints() == {A, B})
            await server.remove(SLICES, "web-1")
            await seen.until(lambda: seen.endpoints() == {B})
            await server.remove(SERVICES, "web")
            await seen.until(lambda: not seen.view.look(WEB).state.exists)


async def test_a_watch_that_is_gone_cut_or_away_misses_nothing(tmp_path):
    async with KubernetesServer() as server:
        server.page = 1  # lists come in pages
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})
            lists = server.lists
            await server.cut()
            await slices(server, {"web-a": {"ready": True}})
            await seen.until(lambda: seen.endpoints() == {A})
            assert server.lists == lists  # went on where it was
            await server.cut()
            await server.forget()  # 410 for everybody who comes back
            await slices(server, {"web-b": {"ready": True}})
            await server.forget()
            await seen.until(lambda: seen.endpoints() == {B})
            await server.stop()
            await seen.until(lambda: bool(seen.feed.error))
            assert seen.endpoints() == {B}
            await server.start()
            await slices(server, {"web-a": {"ready": True}, "web-b": {"ready": True}})
            await seen.until(lambda: seen.endpoints() == {A, B} and not seen.feed.error)


async def test_a_list_whose_next_page_has_expired_is_begun_anew(tmp_path):
    async with KubernetesServer() as server:
        server.page, server.expires_pages = 1, 2
        await cluster(server)
        await server.put(SERVICES, "other", spec={"ports": []})
        await server.put(PODS, "web-b", spec={})
        heard = Heard()
        following = asyncio.create_task(kubernetes(server).follow(heard))
        async with asyncio.timeout(30):
            while not heard.wholes and not following.done():
                await asyncio.sleep(0.01)
        # The source has not failed over it: nobody need be told, and nothing waits.
        assert heard.wholes and not following.done() and not server.expires_pages
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_gone_may_be_the_status_of_a_watch(tmp_path):
    async with KubernetesServer() as server:
        server.gone_by_status = True
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})
            await server.cut()
            await server.forget()
            await slices(server, {"web-b": {"ready": True}})
            await server.forget()
            await seen.until(lambda: seen.endpoints() == {B})
            assert not seen.feed.error


async def test_after_a_bookmark_a_cut_watch_goes_on_without_a_list(tmp_path):
    """Of a collection where nothing happens the version grows old all the same: the bookmark keeps its place."""
    async with KubernetesServer() as server:
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B} and server.watches >= 3)
            for number in range(3):
                await server.put(SLICES.replace("shop", "bank"), f"elsewhere-{number}")
            for path in (SERVICES, PODS, SLICES):
                await server.bookmark(path)
            server.oldest = server.version  # all before is forgotten
            await asyncio.sleep(0.2)
            lists = server.lists
            await server.cut()
            await slices(server, {"web-a": {"ready": True}})
            await seen.until(lambda: seen.endpoints() == {A})
            assert server.lists == lists


async def test_events_that_come_an_octet_at_a_time_or_end_in_their_middle_are_read_whole(tmp_path):
    async with KubernetesServer() as server:
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B} and server.watches >= 3)
            server.piece = 7
            await slices(server, {"web-a": {"ready": True}})
            await seen.until(lambda: seen.endpoints() == {A})
            server.piece = 1
            await slices(server, {"web-b": {"ready": True}})
            await asyncio.sleep(0.05)
            await server.cut()  # about fifty octets are there
            await asyncio.sleep(0.05)
            assert seen.endpoints() in ({A}, {B})
            server.piece = 0
            await seen.until(lambda: seen.endpoints() == {B})
            assert not seen.feed.error


async def test_the_token_is_the_one_in_the_file_now(tmp_path):
    async with KubernetesServer("one") as server:
        (tmp_path / "token").write_text("none\n")
        await cluster(server)
        async with Followed(kubernetes(server, tmp_path / "token"), tmp_path / "kept") as seen:
            await seen.until(lambda: "403" in seen.feed.error)
            assert seen.view.unheard == {"kubernetes"}
            (tmp_path / "token").write_text("one\n")
            await seen.until(lambda: seen.endpoints() == {A, B})


async def test_objects_that_make_no_sense_cost_nobody_else_anything(tmp_path):
    async with KubernetesServer() as server:
        await cluster(server)
        await server.put(SERVICES, "odd", spec={"ports": "none", "clusterIPs": ["None"]})
        await slices(server, {}, "odd-1", endpoints="x", ports=None)
        await slices(server, {}, "odd-2", endpoints=[{"addresses": ["not one"]}, {}, {"addresses": []}], ports=[{"name": "http"}])
        await slices(server, {}, "odd-3", addressType="FQDN")
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})


# -- together -----------------------------------------------------------------------------------------------------------


async def test_what_was_known_last_is_served_when_a_source_is_away_at_the_start(tmp_path):
    async with KubernetesServer() as server:
        await cluster(server)
        async with Followed(kubernetes(server), tmp_path / "kept") as seen:
            await seen.until(lambda: seen.endpoints() == {A, B})
            await seen.until(lambda: (tmp_path / "kept/kubernetes.json").exists())
    async with Followed(kubernetes(server), tmp_path / "kept") as seen:
        await seen.until(lambda: bool(seen.feed.error))
        assert seen.endpoints() == {A, B} and not seen.view.unheard


async def test_a_source_stands_beside_the_store_and_the_store_counts_first(tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(model(1, 2))
    (tmp_path / "sources.yaml").write_text(f"- {{kind: file, path: '{path}'}}\n")
    async with ControlPlane(settings(tmp_path / "plane", sources=str(tmp_path / "sources.yaml"))) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web.shop")
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 2)
            one = Endpoint(namespace="shop", service="web", name="e1", address="192.0.2.9", port=1)
            await plane.catalogue.put(one, by="test")
            await seen.until(lambda s: set(s.endpoints[1]) == {"192.0.2.9:1", "192.0.2.1:2"})
            path.write_text(model(2, 3))
            await seen.until(lambda s: set(s.endpoints[1]) == {"192.0.2.9:1", "192.0.2.1:2", "192.0.2.1:3"})
            await plane.catalogue.delete(Endpoint, "shop/web/e1", by="test")
            await seen.until(lambda s: set(s.endpoints[1]) == {"192.0.2.1:2", "192.0.2.1:3"})
            assert (await plane.catalogue.list(Service)).entries == ()  # nothing of it was written


async def test_names_are_not_answered_before_every_source_was_heard(tmp_path):
    (tmp_path / "sources.yaml").write_text("- {kind: kubernetes, url: 'http://127.0.0.1:1'}\n")
    changes = {"sources": str(tmp_path / "sources.yaml"), "bounds": {"catch_up_ms": 100}}
    async with ControlPlane(settings(tmp_path / "plane", **changes)) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            with pytest.raises(Exception, match="UNAVAILABLE"):
                await seen.one()
        assert "kubernetes" in plane._why_not_ready()


@pytest.mark.parametrize(
    "text",
    ["- {kind: fil, path: x}", "- {kind: file}", "- {kind: dns, namespace: shop, service: web}", "- {kind: file, pth: x}",
     "- {kind: dns, namespace: shop, service: web, host: a, srv: b, port: 1}", "- {kind: dns, namespace: Shop, service: web, srv: b}"],
)  # fmt: skip
def test_a_mistake_in_the_list_of_sources_is_told(text):
    with pytest.raises((Invalid, ConfigError)):
        read(text, "sources.yaml")
