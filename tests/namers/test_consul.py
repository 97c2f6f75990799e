"""Consul over its own protocol: blocking queries, an index that goes back, outages, refusals; the last good answer stays."""

import asyncio

from meshcore.clients.consul import ConsulClient, next_index
from meshcore.namers import Address
from meshcore.namers.consul import ConsulRules, consul_namer
from meshcore.naming import Failed, Leaf, Neg, Pending, read_path

from .consul_server import ConsulServer
from .worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/io.l5d.consul")
WEB = read_path("/dc1/web")


async def test_a_service_follows_its_instances(tmp_path):
    async with ConsulServer() as server:
        namer = consul_namer(PREFIX, ConsulClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state == Neg())
        await server.serve("web", 1)
        await becomes(live, lambda state: state != Neg() and ports(state) == [1])
        for last in range(2, 8):
            await server.serve("web", *range(1, last))
            await server.serve("unrelated", last)
        await becomes(live, lambda state: ports(state) == [1, 2, 3, 4, 5, 6])
        await server.serve("web")
        await becomes(live, lambda state: state == Neg())
        leave()
        await namer.close()


async def test_an_outage_and_a_consul_without_leader_keep_the_last_good_answer():
    async with ConsulServer() as server:
        await server.serve("web", 1)
        namer = consul_namer(PREFIX, ConsulClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        server.status = 500
        await server.moved()
        await becomes_stale(live)
        assert ports(live.now) == [1] and "No cluster leader" in live.stale.why
        server.status = 200
        await becomes_stale(live, is_stale=False)
        await server.stop()
        await becomes_stale(live)
        await server.serve("web", 2)
        await server.start()
        await becomes(live, lambda state: ports(state) == [2])
        leave()
        await namer.close()


async def test_a_consul_that_was_restored_to_an_older_index_is_asked_from_the_beginning():
    async with ConsulServer() as server:
        server.index = 1000
        server.most_wait_s = 0.05
        await server.serve("web", 1)
        namer = consul_namer(PREFIX, ConsulClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        server.index = 5
        await server.serve("web", 2)
        await becomes(live, lambda state: ports(state) == [2])
        server.most_wait_s = 300
        await asyncio.sleep(0.2)
        await server.serve("web", 3)
        await becomes(live, lambda state: ports(state) == [3])
        leave()
        await namer.close()
    assert (next_index(7, 9), next_index(9, 7), next_index(7, 0), next_index(0, 1)) == (9, 0, 0, 1)


async def test_a_consul_that_was_never_there_fails_the_name_and_is_found_later():
    server = ConsulServer()
    await server.start()
    await server.serve("web", 1)
    await server.stop()
    namer = consul_namer(PREFIX, ConsulClient(server.url))
    live = namer.replicas(WEB)
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: isinstance(state, Failed))
    await server.start()
    await becomes(live, lambda state: not isinstance(state, Failed) and ports(state) == [1])
    leave()
    await namer.close()
    await server.stop()


async def test_a_token_that_is_missing_is_told():
    async with ConsulServer(token="secret") as server:
        await server.serve("web", 1)
        denied, allowed = (consul_namer(PREFIX, ConsulClient(server.url, token=token)) for token in ("", "secret"))
        state = await becomes(denied.replicas(WEB), lambda state: isinstance(state, Failed))
        assert "403" in state.message and "Permission denied" in state.message
        await becomes(allowed.replicas(WEB), lambda state: state != Pending())
        await denied.close()
        await allowed.close()


async def test_tags_health_weights_and_hosts_as_configured():
    async with ConsulServer() as server:
        server.services["dc1", "web"] = [
            server.entry(1, tags=("canary",), status="critical"),
            server.entry(2, tags=("canary", "primary"), address="", zone="a"),
            server.entry(3, tags=("primary",)),
        ]
        rules = ConsulRules(
            has_tag=True,
            statuses=("passing", "warning"),
            weights=(("primary", 100.0),),
            sets_host=True,
            tells_metadata=True,
        )
        namer = consul_namer(PREFIX, ConsulClient(server.url), rules)
        live = namer.lookup(read_path("/.local/Canary/Web/users"))
        answer = await becomes(live, lambda answer: answer != Pending())
        assert isinstance(answer, Leaf)
        assert (str(answer.value.id), str(answer.value.residual)) == (f"{PREFIX}/.local/canary/web", "/users")
        state = namer.replicas(read_path("/.local/canary/web")).now
        assert state.addresses == (Address("10.0.0.1", 2, 100.0, (("nodeName", "node-1"), ("zone", "a"))),)
        assert dict(state.metadata) == {"authority": "canary.web.service.consul"}
        assert all("dc=" not in asked and "tag=canary" in asked for asked in server.asked)
        await namer.close()


async def test_instances_that_cannot_be_read_never_replace_a_good_answer():
    async with ConsulServer() as server:
        await server.serve("web", 1)
        namer = consul_namer(PREFIX, ConsulClient(server.url))
        live = namer.replicas(WEB)
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        server.services["dc1", "web"] = [{"Service": {}}]
        await server.moved()
        await becomes_stale(live)
        assert ports(live.now) == [1]
        leave()
        await namer.close()
