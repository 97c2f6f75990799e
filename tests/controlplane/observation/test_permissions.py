"""Who may look: operators by role and namespace; members of the mesh not at all."""

import asyncio

import grpc
import pytest

from meshcore.api import observation_pb2, observation_pb2_grpc, relay_pb2
from tests.controlplane.members import join, spiffe
from tests.controlplane.observation.meshes import Watched, mesh

ROLES = f"""
- identity: {spiffe("ops", "alice")}
  may: [tap, view]
  namespaces: [shop]
- identity: {spiffe("ops", "bob")}
  may: [view]
"""


def tap(stub, namespace, kind="deploy"):
    resource = observation_pb2.Resource(kind=kind, namespace=namespace)
    return stub.Tap(observation_pb2.TapRequest(target=resource, ask=relay_pb2.Ask(max_rps=10)))


def stat(stub, namespace):
    return stub.Stat(observation_pb2.StatRequest(target=observation_pb2.Resource(kind="deploy", namespace=namespace)))


async def code_of(call):
    try:
        await (call if not hasattr(call, "read") else call.read())
    except grpc.aio.AioRpcError as error:
        return error.code().name
    finally:
        call.cancel()
    return "OK"


async def test_roles_say_who_may_look_where(tmp_path):
    roles = tmp_path / "roles.yaml"
    roles.write_text(ROLES)
    async with mesh(roles=str(roles)) as made:
        stubs = {
            name: observation_pb2_grpc.ObservationStub((await join(made.plane, namespace, name)).channel())
            for namespace, name in (("ops", "alice"), ("ops", "bob"), ("shop", "web"))
        }
        taps = {(name, namespace): await code_of(tap(stub, namespace)) for name, stub in stubs.items() for namespace in ("shop", "bank")}
        stats = {(name, namespace): await code_of(stat(stub, namespace)) for name, stub in stubs.items() for namespace in ("shop", "")}
    assert [key for key, code in taps.items() if code == "OK"] == [("alice", "shop")]
    assert {code for key, code in taps.items() if key != ("alice", "shop")} == {"PERMISSION_DENIED"}
    assert [key for key, code in stats.items() if code == "OK"] == [("alice", "shop"), ("bob", "shop"), ("bob", "")]


async def test_without_a_namespace_proxies_that_may_not_be_tapped_are_passed_over(tmp_path, raw_server, proxy, raw_client):
    roles = tmp_path / "roles.yaml"
    roles.write_text(ROLES)
    server = raw_server()
    shop, bank = proxy(to=server), proxy(to=server)
    async with mesh(roles=str(roles)) as made:
        await made.attach(shop, "shop", "web")
        await made.attach(bank, "bank", "vault")
        alice = observation_pb2_grpc.ObservationStub((await join(made.plane, "ops", "alice")).channel())
        call = tap(alice, "")
        watched = Watched(call)
        collecting = asyncio.create_task(watched.collect())
        await watched.until(lambda: watched.progress and watched.progress.proxies == 1)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(raw_client(bank).get, "/secret")
        await asyncio.to_thread(raw_client(shop).get, "/open")
        await watched.first(3)
        call.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
    assert watched.paths() == ["/open"]


@pytest.mark.parametrize("kind", ["deploy", "ns"])
async def test_who_has_no_certificate_sees_nothing(kind):
    from tests.controlplane.members import channel

    async with mesh() as made:
        stub = observation_pb2_grpc.ObservationStub(channel(made.plane.address, made.plane.bundle_pem))
        assert await code_of(tap(stub, "", kind)) in ("PERMISSION_DENIED", "UNAUTHENTICATED")
