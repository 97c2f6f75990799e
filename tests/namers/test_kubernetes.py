"""Endpoint slices over the API server's own protocol: pages, bookmarks, cut streams, 410; what is gone is gone at once."""

import asyncio

from meshcore.clients.kubernetes import KubernetesClient
from meshcore.namers import Address
from meshcore.namers.kubernetes import kubernetes_namer
from meshcore.naming import Failed, Neg, Pending, read_path

from .kubernetes_server import KubernetesServer
from .worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/io.l5d.k8s")
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
SERVICES = "/api/v1/namespaces/shop/services"
WEB = read_path("/shop/http/web")


async def put_slice(server, name, *ports, service="web", hosts=("127.0.0.1",), ready=True, **labels):
    await server.put(
        SLICES,
        name,
        {"kubernetes.io/service-name": service, **labels},
        addressType="IPv4",
        endpoints=[{"addresses": [host], "conditions": {"ready": ready}, "nodeName": "n1"} for host in hosts],
        ports=[{"name": "http", "port": port} for port in ports],
    )


async def test_a_service_follows_its_slices():
    async with KubernetesServer() as server:
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state == Neg())
        await put_slice(server, "web-1", 1)
        await put_slice(server, "web-2", 2)
        await put_slice(server, "other-1", 9, service="other")
        await becomes(live, lambda state: state != Neg() and ports(state) == [1, 2])
        assert live.now.addresses[0] == Address("127.0.0.1", 1, 1.0, (("nodeName", "n1"),))
        await put_slice(server, "web-1", 1, ready=False)
        await becomes(live, lambda state: ports(state) == [2])
        await server.remove(SLICES, "web-2")
        await becomes(live, lambda state: state == Neg())
        leave()
        await namer.close()


async def test_a_stream_that_is_cut_is_begun_again_and_misses_nothing():
    async with KubernetesServer() as server:
        await put_slice(server, "web-1", 1)
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        for port in range(2, 8):
            await server.cut()
            await put_slice(server, "web-1", port)
            await becomes(live, lambda state, port=port: ports(state) == [port])
        leave()
        await namer.close()


async def test_a_version_that_is_gone_is_listed_again_and_what_was_deleted_meanwhile_is_gone():
    """linkerd#1626, #1805: endpoints that were deleted while the watch was away got traffic for hours."""
    async with KubernetesServer() as server:
        await put_slice(server, "web-1", 1)
        await put_slice(server, "web-2", 2)
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        await server.stop()
        await becomes_stale(live)
        assert ports(live.now) == [1, 2]
        await server.remove(SLICES, "web-1")
        await server.forget()
        await server.start()
        await becomes(live, lambda state: ports(state) == [2])
        leave()
        await namer.close()


async def test_bookmarks_move_the_place_to_go_on_from():
    async with KubernetesServer() as server:
        await put_slice(server, "web-1", 1)
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        for number in range(20):
            await put_slice(server, f"other-{number}", 9, service="other")
        await server.bookmark(SLICES)
        await asyncio.sleep(0.05)  # until the bookmark has arrived
        server.oldest = server.version  # all before it is forgotten
        await server.cut()
        await put_slice(server, "web-1", 2)
        await becomes(live, lambda state: ports(state) == [2])
        assert server.lists == 1  # nothing had to be listed again
        leave()
        await namer.close()


async def test_long_lists_come_in_pages():
    async with KubernetesServer() as server:
        server.page = 3
        for number in range(1, 11):
            await put_slice(server, f"web-{number:02}", number)
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        assert ports(await namer.replicas(WEB).settled(20)) == list(range(1, 11))
        assert server.lists == 4
        await namer.close()


async def test_a_number_is_the_port_of_the_service_and_follows_it():
    async with KubernetesServer() as server:
        await put_slice(server, "web-1", 8080)
        await server.put(SERVICES, "web", spec={"ports": [{"name": "admin", "port": 80}, {"name": "http", "port": 81}]})
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        live = namer.replicas(read_path("/shop/80/web"))
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state == Neg())
        await server.put(SERVICES, "web", spec={"ports": [{"name": "http", "port": 80}]})
        await becomes(live, lambda state: state != Neg() and ports(state) == [8080])
        leave()
        await namer.close()


async def test_labels_and_a_namespace_of_the_configuration_choose():
    async with KubernetesServer() as server:
        await put_slice(server, "web-1", 1, version="v1")
        await put_slice(server, "web-2", 2, version="v2")
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url), label="version", namespace="shop")
        live = namer.lookup(read_path("/http/web/v2/users"))
        answer = await becomes(live, lambda answer: answer != Pending())
        assert (str(answer.value.id), str(answer.value.residual)) == (f"{PREFIX}/http/web/v2", "/users")
        assert ports(namer.replicas(read_path("/http/web/v2")).now) == [2]
        await namer.close()


async def test_no_right_to_look_is_told():
    async with KubernetesServer(token="t") as server:
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        state = await becomes(namer.replicas(WEB), lambda state: isinstance(state, Failed))
        assert "403" in state.message and "forbidden" in state.message
        await namer.close()


async def test_the_token_is_read_again_for_each_request(tmp_path):
    file = tmp_path / "token"
    file.write_text("old\n")
    async with KubernetesServer(token="new") as server:
        await put_slice(server, "web-1", 1)
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url, token_file=file))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: isinstance(state, Failed))
        file.write_text("new\n")
        await becomes(live, lambda state: not isinstance(state, Failed) and ports(state) == [1])
        leave()
        await namer.close()


async def test_a_name_that_nothing_in_kubernetes_can_have_asks_nobody():
    async with KubernetesServer() as server:
        namer = kubernetes_namer(PREFIX, KubernetesClient(server.url))
        for name in ("/shop/http/..", "/shop/http/web%2fx", "/-/http/web", "/shop/http/a\\x2cb"):
            assert await namer.replicas(read_path(name)).settled(20) == Neg()
        await asyncio.sleep(0)
        assert server.asked == []
        await namer.close()
