"""Server sets in a real ZooKeeper: members come and go, sessions end, the server is killed; nothing is lost or invented."""

import json
import secrets
import signal


from meshcore.clients.zookeeper import NodeExists, ZooKeeperClient
from meshcore.namers.serversets import ServersetNamer
from meshcore.naming import Leaf, Neg, Pending, read_path

from .worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/io.l5d.serversets")


def member(port: int, shard: int | None = None, status: str = "ALIVE", **additional: int) -> bytes:
    told = {
        "serviceEndpoint": {"host": "127.0.0.1", "port": port},
        "additionalEndpoints": {name: {"host": "127.0.0.1", "port": one} for name, one in additional.items()},
        "status": status,
    }
    if shard is not None:
        told["shard"] = shard
    return json.dumps(told).encode()


class Sets:
    """A folder of sets of one test."""

    def __init__(self, client: ZooKeeperClient) -> None:
        self.client = client
        self.root = f"test-{secrets.token_hex(4)}"

    async def join(self, path: str, number: int, data: bytes) -> None:
        try:
            await self.client.create(f"/{self.root}/{path}", makes_parents=True)
        except NodeExists:
            pass
        await self.client.create(f"/{self.root}/{path}/member_{number:010}", data)

    async def leave(self, path: str, number: int) -> None:
        await self.client.delete(f"/{self.root}/{path}/member_{number:010}")

    def name(self, path: str):
        return read_path(f"/{self.root}/{path}")




async def test_a_set_follows_its_members(zookeeper):
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets, namer = Sets(client), ServersetNamer(PREFIX, ZooKeeperClient(zookeeper.hosts))
        live = namer.replicas(sets.name("web"))
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state == Neg())  # the set does not exist yet, and is waited for
        await sets.join("web", 1, member(8001))
        await becomes(live, lambda state: state != Neg() and ports(state) == [8001])
        for number in range(2, 20):
            await sets.join("web", number, member(8000 + number))
        await becomes(live, lambda state: ports(state) == list(range(8001, 8020)))
        for number in range(1, 20):
            await sets.leave("web", number)
        await becomes(live, lambda state: state == Neg())
        leave()
        await namer.close()


async def test_the_longest_path_that_is_a_set_binds_and_the_rest_is_residual(zookeeper):
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets, namer = Sets(client), ServersetNamer(PREFIX, ZooKeeperClient(zookeeper.hosts))
        await sets.join("a", 1, member(1))
        await sets.join("a/b", 1, member(2))
        live = namer.lookup(sets.name("a/b/users/7"))
        answer = await becomes(live, lambda answer: answer != Pending())
        assert isinstance(answer, Leaf)
        assert (str(answer.value.id), str(answer.value.residual)) == (f"{PREFIX}{sets.name('a/b')}", "/users/7")
        await namer.close()


async def test_endpoint_shard_and_status_choose_among_members(zookeeper):
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets, namer = Sets(client), ServersetNamer(PREFIX, ZooKeeperClient(zookeeper.hosts))
        await sets.join("web", 1, member(1, shard=1, http=11))
        await sets.join("web", 2, member(2, shard=2, http=12))
        await sets.join("web", 3, member(3, shard=3, status="DEAD", http=13))
        for name, expected in (("web", [1, 2]), ("web:http", [11, 12]), ("web#2", [2]), ("web:http#1", [11])):
            path = read_path(f"/{sets.root}/{name}")
            assert ports(await becomes(namer.replicas(path), lambda state: state != Pending())) == expected
        assert await namer.replicas(read_path(f"/{sets.root}/web:admin")).settled(20) == Neg()
        await namer.close()


async def test_a_member_that_is_none_never_replaces_a_good_answer(zookeeper):
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets, namer = Sets(client), ServersetNamer(PREFIX, ZooKeeperClient(zookeeper.hosts))
        await sets.join("web", 1, member(1))
        live = namer.replicas(sets.name("web"))
        leave = live.subscribe(lambda: None)
        await becomes(live, lambda state: state != Pending())
        await sets.join("web", 2, b"{not json")
        await becomes_stale(live)
        assert ports(live.now) == [1] and "member_0000000002" in live.stale.why
        await sets.leave("web", 2)
        await becomes_stale(live, is_stale=False)
        leave()
        await namer.close()


async def test_after_an_outage_in_which_the_session_ended_the_set_is_read_again(zookeeper):
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets = Sets(client)
        await sets.join("web", 1, member(1))
    namer = ServersetNamer(PREFIX, ZooKeeperClient(zookeeper.hosts, session_s=0.5))
    live = namer.replicas(sets.name("web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state != Pending())
    zookeeper.stop(signal.SIGKILL)
    try:
        await becomes_stale(live)
        assert ports(live.now) == [1]
    finally:
        zookeeper.start()
    async with ZooKeeperClient(zookeeper.hosts) as client:
        sets.client = client
        await sets.join("web", 2, member(2))
        await becomes(live, lambda state: ports(state) == [1, 2])
        assert live.stale is None
        await sets.leave("web", 1)
        await becomes(live, lambda state: ports(state) == [2])
    leave()
    await namer.close()
