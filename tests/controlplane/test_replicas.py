"""Several replicas over one etcd, and one that is killed: members go elsewhere, and lose nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import pytest

from controlplane.errors import StoreUnavailable
from controlplane.identity import Authority, authority_files
from controlplane.model import Endpoint, Service
from controlplane.server import ControlPlane
from meshcore.api import discovery_pb2
from tests.controlplane.members import DOMAIN, Watching, join, settings
from tests.controlplane.places import ETCD, EtcdServer


def endpoint(number: int, **fields) -> Endpoint:
    given = {"namespace": "shop", "service": "web", "name": f"web-{number}", "address": f"192.0.2.{number}", "port": 8080}
    return Endpoint(**{**given, **fields})


@pytest.fixture
def etcd(tmp_path):
    if ETCD is None:
        pytest.skip("etcd is not installed: Debian package etcd-server")
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    server.start()
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def two(tmp_path, etcd):
    root = Authority.new_root(DOMAIN, time.time())
    planes = []
    async with contextlib.AsyncExitStack() as stack:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir(mode=0o700)
            authority_files.save(folder / "authority", "root", root.new_intermediate(time.time()))
            planes.append(await stack.enter_async_context(ControlPlane(settings(folder, etcd=(etcd.url,)))))
        yield planes


async def test_any_replica_answers_any_member_and_tells_what_another_was_told(tmp_path, etcd):
    async with two(tmp_path, etcd) as (one, other):
        member = await join(one)
        member.address = other.address
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.until(lambda s: 1 in s.exists)
            await one.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), by="test")
            await seen.until(lambda s: len(s.endpoints[1]) == 1)
        # What one replica has told is what the other waits for, and then nothing is sent twice.
        member.address = one.address
        async with member.channel() as own:
            again = await Watching(own).hello(position=seen.position)
            await again.begin(1, "web", known=seen.digests[1])
            await again.until(lambda s: 1 in s.current)


async def test_a_replica_without_an_authority_of_the_mesh_does_not_start_and_says_why(tmp_path, etcd):
    async with ControlPlane(settings(tmp_path / "one", etcd=(etcd.url,))):
        with pytest.raises(StoreUnavailable, match="new-intermediate"):
            async with ControlPlane(settings(tmp_path / "two", etcd=(etcd.url,))):
                pass


async def test_a_replica_that_is_behind_what_a_member_knows_does_not_answer_it(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane", bounds={"catch_up_ms": 100})) as plane:
        member = await join(plane)
        position = plane.view.position
        async with member.channel() as own:
            ahead = await Watching(own).hello(position=f"{position.epoch}:{position.revision + 1_000}:{'1' * 16}")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ahead.one()
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert int(dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
            # A position of another life of the store cannot be compared: after a restore, what is there now counts.
            other = await Watching(own).hello(position=f"{'f' * 16}:999999:{'1' * 16}")
            await other.begin(1, "web")
            await other.until(lambda s: 1 in s.exists)


async def test_while_the_store_is_away_what_is_known_is_served_and_afterwards_what_changed(tmp_path, etcd):
    async with two(tmp_path, etcd) as (one, _):
        await one.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), by="test")
        member = await join(one)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            etcd.stop(9)
            fresh = await Watching(own).hello(position=seen.position)
            await fresh.begin(1, "web.shop")
            await fresh.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            etcd.start()
            async with asyncio.timeout(30):
                while True:
                    try:
                        await one.catalogue.put(endpoint(2), by="test")
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.1)
            await seen.until(lambda s: len(s.endpoints[1]) == 2)


async def test_a_member_that_does_not_read_costs_the_others_nothing_and_learns_the_end(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        names = [f"s{number}" for number in range(40)]
        await plane.catalogue.put(*(Service(namespace="shop", name=name) for name in names), by="test")
        member = await join(plane)
        async with member.channel() as slow_channel, member.channel() as own:
            slow = await Watching(slow_channel).hello()
            quick = await Watching(own).hello()
            for seen in (slow, quick):
                begins = [discovery_pb2.Begin(id=number + 1, path=name) for number, name in enumerate(names)]
                await seen.write(begins=discovery_pb2.Begins(names=begins))
            # Far more than flow control lets through, so that the slow one's writer stands still.
            labels = {f"label-{number}": "x" * 60 for number in range(60)}
            for turn in range(1, 6):
                for start in range(0, 40, 20):
                    values = [
                        endpoint(number + 1, service=name, name=f"e{turn}", address=f"10.{turn}.0.{number + 1}", labels=labels)
                        for number, name in enumerate(names)
                    ]
                    await plane.catalogue.put(*values[start : start + 20], by="test")
            await quick.until(lambda s: len(s.digests) == 40 and all(len(s.endpoints[n]) == 5 for n in range(1, 41)))
            assert len(plane.discovery.streams) == 2
            await slow.until(lambda s: len(s.digests) == 40 and all(len(s.endpoints[n]) == 5 for n in range(1, 41)))


async def test_members_see_no_stale_endpoint_after_a_control_plane_that_was_killed(tmp_path):
    """It is killed without a word; another one opens its folder; the member says what it knows and is told the rest."""
    first = ControlPlane(settings(tmp_path / "plane"))
    await first.__aenter__()
    await first.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), endpoint(2), by="test")
    member = await join(first)
    async with member.channel() as own:
        seen = await Watching(own).hello()
        await seen.begin(1, "web")
        await seen.until(lambda s: len(s.endpoints.get(1, ())) == 2)
        await first.door.close()  # the network's view of kill -9
        with pytest.raises(grpc.aio.AioRpcError):
            while True:
                await seen.one()
    await first._closing.aclose()
    async with ControlPlane(settings(tmp_path / "plane")) as second:
        await second.catalogue.delete(Endpoint, "shop/web/web-1", by="test")
        member.address = second.address
        async with member.channel() as own:
            again = await Watching(own).hello(position=seen.position)
            await again.begin(1, "web", known=seen.digests[1])
            await again.until(lambda s: list(s.endpoints.get(1, ())) == ["192.0.2.2:8080"])
