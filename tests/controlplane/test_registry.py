"""Workloads that register themselves through the door."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from controlplane.model import Drain, Endpoint, Service, Workload
from controlplane.server import ControlPlane
from meshcore.api import registry_pb2, registry_pb2_grpc
from tests.controlplane.members import Watching, join, settings, spiffe

Code = grpc.StatusCode


def register(name: str = "web-1", service: str = "web", ttl_s: int = 3, **fields):
    endpoint = registry_pb2.Endpoint(service=service, address="192.0.2.1", port=8080)
    return registry_pb2.Claim(
        register=registry_pb2.Register(name=name, addresses=["192.0.2.1"], endpoints=[endpoint], ttl_s=ttl_s, **fields)
    )


def keep(channel):
    return registry_pb2_grpc.RegistryStub(channel).Keep(timeout=60)


async def refusal(call, claim) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.write(claim)
        await call.read()
    return error.value.code()


async def test_a_member_is_there_while_it_shows_that_it_lives(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            call = keep(own)
            await call.write(register(labels={"app": "web"}, zone="a"))
            assert 0 < (await call.read()).renew_every_ms <= 1_000
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            (one,) = seen.endpoints[1].values()
            assert one.tls_identity.uri_like_identity.uri == spiffe("shop", "web")
            assert one.metric_labels["app"] == "web" and one.metric_labels["workload"] == "web-1"
            workload = await plane.catalogue.get(Workload, "shop/web-1")
            assert workload.value.account == "web" and workload.value.zone == "a"
            await call.write(registry_pb2.Claim(alive=registry_pb2.Alive()))
            await call.read()
            await call.write(registry_pb2.Claim(drain=registry_pb2.Drain()))
            await call.read()
            await seen.until(lambda s: not s.endpoints[1])
            await call.write(registry_pb2.Claim(leave=registry_pb2.Leave()))
            assert await call.read() is grpc.aio.EOF
            assert await plane.catalogue.get(Workload, "shop/web-1") is None


async def test_a_member_that_takes_no_requests_yet_is_told_when_it_does_and_not_if_an_operator_drains_it(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            call = keep(own)
            await call.write(register(is_draining=True))
            await call.read()
            assert await plane.catalogue.get(Workload, "shop/web-1") is not None
            # What is stored, not what was seen so far: that may be on its way.
            assert (await plane.catalogue.get(Endpoint, "shop/web/web-1.8080")).value.weight == 0
            for _ in range(2):
                await call.write(registry_pb2.Claim(resume=registry_pb2.Resume()))
                await call.read()
                await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
                await call.write(registry_pb2.Claim(drain=registry_pb2.Drain()))
                await call.read()
                await seen.until(lambda s: not s.endpoints[1])
            await plane.catalogue.put(Drain(namespace="shop", name="web-1"), by="operator")
            await call.write(registry_pb2.Claim(resume=registry_pb2.Resume()))
            await call.read()
            assert (await plane.catalogue.get(Endpoint, "shop/web/web-1.8080")).value.weight > 0
            assert not seen.endpoints[1]
            await plane.catalogue.delete(Drain, "shop/web-1", by="operator")
            await seen.until(lambda s: len(s.endpoints[1]) == 1)


async def test_whom_an_operator_drains_stays_drained_when_it_registers_again(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            call = keep(own)
            await call.write(register())
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            await plane.catalogue.put(Drain(namespace="shop", name="web-1"), by="operator")
            await seen.until(lambda s: not s.endpoints[1])
            await call.write(registry_pb2.Claim(leave=registry_pb2.Leave()))
            assert await call.read() is not None
            again = keep(own)
            await again.write(register())
            await again.read()
            assert await plane.catalogue.get(Endpoint, "shop/web/web-1.8080") is not None
            assert not seen.endpoints[1]
            await plane.catalogue.delete(Drain, "shop/web-1", by="operator")
            await seen.until(lambda s: len(s.endpoints[1]) == 1)


async def test_who_falls_silent_is_forgotten(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            call = keep(own)
            await call.write(register())
            await call.read()
            assert await call.read() is grpc.aio.EOF  # silent for the whole of its lease
            while await plane.catalogue.get(Endpoint, "shop/web/web-1.8080") is not None:
                await asyncio.sleep(0.05)


async def test_whose_connection_breaks_is_taken_out_long_before_its_lease_ends(tmp_path):
    """A member that had been killed stayed listed for its fifteen seconds, and got requests."""
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as stays:
            left = keep(stays)
            await left.write(register("web-1", ttl_s=600))
            await left.read()
            async with member.channel() as dies:
                call = keep(dies)
                await call.write(register("web-2", ttl_s=600))
                await call.read()
                assert await plane.catalogue.get(Endpoint, "shop/web/web-2.8080") is not None
            while await plane.catalogue.get(Endpoint, "shop/web/web-2.8080") is not None:
                await asyncio.sleep(0.05)
            assert await plane.catalogue.get(Workload, "shop/web-2") is None
            assert await plane.catalogue.get(Endpoint, "shop/web/web-1.8080") is not None


async def test_who_comes_back_within_the_grace_was_never_away(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as stays:
            for name in ("web-1", "web-3"):
                call = keep(stays)
                await call.write(register(name, ttl_s=600))
                await call.read()
            async with member.channel() as first:
                call = keep(first)
                await call.write(register("web-2", ttl_s=600))
                await call.read()
            async with member.channel() as again:
                call = keep(again)
                await call.write(register("web-2", ttl_s=600))
                await call.read()
                revisions = set()
                async with asyncio.timeout(60):
                    while not plane.departures.taken_out:
                        revisions.add((await plane.catalogue.get(Endpoint, "shop/web/web-2.8080")).revision)
                        await asyncio.sleep(0.05)
                revisions.add((await plane.catalogue.get(Endpoint, "shop/web/web-2.8080")).revision)
                assert len(revisions) == 1


async def test_when_all_break_at_once_their_leases_decide(tmp_path):
    """It is the way to them that broke, or this replica stood still: nobody knows that they are gone."""
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            for name in ("web-1", "web-2"):
                call = keep(own)
                await call.write(register(name, ttl_s=600))
                await call.read()
        async with asyncio.timeout(60):
            while plane.departures.left_to_leases < 2:
                await asyncio.sleep(0.05)
        assert len((await plane.catalogue.list(Endpoint)).entries) == 2


async def test_what_is_somebody_elses_is_not_to_be_had(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await plane.catalogue.put(
            Service(namespace="shop", name="payments", accounts=("payments",)),
            Workload(namespace="shop", name="db-1", account="db"),
            by="test",
        )
        member = await join(plane, "shop", "web")
        async with member.channel() as own:
            assert await refusal(keep(own), register(service="payments")) is Code.PERMISSION_DENIED
            assert await refusal(keep(own), register(name="db-1")) is Code.PERMISSION_DENIED
            assert await refusal(keep(own), register(name="Not A Name")) is Code.INVALID_ARGUMENT
            assert await refusal(keep(own), register(ttl_s=100_000)) is Code.INVALID_ARGUMENT
            assert await refusal(keep(own), registry_pb2.Claim(alive=registry_pb2.Alive())) is Code.INVALID_ARGUMENT
        assert (await plane.catalogue.list(Endpoint)).entries == ()
