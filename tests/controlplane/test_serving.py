"""A running control plane, called through its door by real gRPC clients."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import pytest
from cryptography import x509

from controlplane.identity import Authority
from controlplane.model import Endpoint, Match, Retries, RoutePolicy, Rule, Service, ServicePort, Split, TrafficPolicy
from controlplane.server import ControlPlane
from meshcore.api import destination_pb2, destination_pb2_grpc, discovery_pb2, trust_pb2, trust_pb2_grpc
from tests.controlplane.asking import new_key, request
from tests.controlplane.members import (
    DOMAIN,
    Watching,
    address_text,
    certify,
    channel,
    join,
    settings,
    spiffe,
    token,
)
from tests.controlplane.test_kubernetes_tokens import GOOD, ApiServer

Code = grpc.StatusCode
KUBERNETES_TOKEN = GOOD


def endpoint(number: int, service: str = "web", **fields) -> Endpoint:
    given = {"namespace": "shop", "service": service, "name": f"{service}-{number}", "address": f"192.0.2.{number}"}
    return Endpoint(**{**given, "port": 8080, **fields})


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_a_newcomer_joins_with_a_token_and_renews_with_its_certificate(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane, "shop", "web")
        assert member.valid_until_s > time.time() + 3_600
        async with member.channel() as own:
            again = await certify(own)
            assert again.valid_until.ToSeconds() >= member.valid_until_s
            # Another identity is not to be had with one's own certificate.
            error = await refused(certify(own, wanted=spiffe("shop", "payments")))
            assert error.code() is Code.PERMISSION_DENIED


async def test_a_pod_joins_with_the_token_of_its_service_account(tmp_path):
    api = ApiServer()
    (tmp_path / "own").write_text("own-token\n")
    kubernetes = {"kubernetes": api.url, "kubernetes_token_file": str(tmp_path / "own")}
    async with ControlPlane(settings(tmp_path / "plane", **kubernetes)) as plane:
        async with channel(plane.address, plane.bundle_pem) as newcomer:
            answer = await certify(newcomer, KUBERNETES_TOKEN.encode(), wanted=spiffe("shop", "web"))
            assert answer.leaf_certificate
            assert (await refused(certify(newcomer, b"eyJ.another.one"))).code() is Code.UNAUTHENTICATED
            api.stop()
            # Nobody can say whose it is: that is no refusal, and worth another try.
            error = await refused(certify(newcomer, KUBERNETES_TOKEN.encode()))
            assert error.code() is Code.UNAVAILABLE and "grpc-retry-pushback-ms" in dict(error.trailing_metadata())


async def test_without_a_proof_there_is_no_certificate_and_no_service(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        async with channel(plane.address, plane.bundle_pem) as newcomer:
            assert (await refused(certify(newcomer))).code() is Code.UNAUTHENTICATED
            assert (await refused(certify(newcomer, b"mesh1.nonsense"))).code() is Code.UNAUTHENTICATED
            asked = destination_pb2.GetDestination(path="web.shop")
            stub = destination_pb2_grpc.DestinationStub(newcomer)
            # Who claims an identity in a header has none.
            claim = (("l5d-client-id", spiffe("shop", "web")),)
            error = await refused(stub.Get(asked, metadata=claim, timeout=20).read())
            assert error.code() is Code.UNAUTHENTICATED
            bad = await refused(certify(newcomer, await token(plane, "shop", "web"), csr=b"junk"))
            assert bad.code() is Code.INVALID_ARGUMENT


async def test_a_server_with_another_name_is_not_taken_for_the_control_plane(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with channel(plane.address, plane.bundle_pem, name="shop") as wrong:
            assert (await refused(certify(wrong))).code() is Code.UNAVAILABLE
        assert member


async def test_too_many_attempts_are_told_when_to_come_again(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        async with channel(plane.address, plane.bundle_pem) as newcomer:
            codes = []
            for _ in range(25):
                error = await refused(certify(newcomer, b"mesh1.nonsense", csr=request(new_key())))
                codes.append(error.code())
            assert codes[0] is Code.UNAUTHENTICATED and codes[-1] is Code.RESOURCE_EXHAUSTED
            hints = dict(error.trailing_metadata())
            assert int(hints["grpc-retry-pushback-ms"]) > 0


async def test_endpoints_and_policy_of_a_name_come_at_once_and_follow_each_change(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await plane.catalogue.put(
            Service(namespace="shop", name="web", ports=(ServicePort(port=80, protocol="http2"),)),
            endpoint(1, identity=spiffe("shop", "web"), protocol="http2", zone="a", labels={"version": "v1"}),
            RoutePolicy(
                namespace="shop",
                name="web",
                service="web",
                rules=(
                    Rule(
                        matches=(Match(prefix="/new", headers={"x-user": "b"}),),
                        splits=(Split(service="web", weight=9), Split(service="canary", weight=1)),
                        timeout_ms=2_000,
                        retries=Retries(attempts=2),
                    ),
                ),
            ),
            by="test",
        )
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web.shop.svc.cluster.local:80")
            await seen.begin(2, "nothing.shop")
            await seen.begin(3, "web.shop:81")
            await seen.begin(4, "www.example.org")
            await seen.begin(5, "what:is:this")
            await seen.until(lambda s: 1 in s.policies and {2, 3, 4} <= set(s.exists) and 5 in s.failed)
            (one,) = seen.endpoints[1].values()
            assert address_text(one.addr) == "192.0.2.1:8080" and one.weight == 100
            assert one.tls_identity.uri_like_identity.uri == spiffe("shop", "web")
            assert one.protocol_hint.HasField("h2")
            assert one.metric_labels["version"] == "v1" and one.metric_labels["zone"] == "a"
            (rule,) = seen.policies[1].rules
            assert [split.path for split in rule.splits] == ["web.shop.svc:80", "canary.shop.svc:80"]
            assert rule.matches[0].headers == {"x-user": "b"} and rule.timeout_ms == 2_000 and rule.retries.attempts == 2
            assert seen.exists == {1: True, 2: False, 3: True, 4: False}
            assert seen.failed[5].code == 3

            await plane.catalogue.put(endpoint(2), by="test")
            await seen.until(lambda s: len(s.endpoints[1]) == 2)
            await plane.catalogue.put(endpoint(1, weight=0), by="test")
            await seen.until(lambda s: list(s.endpoints[1]) == ["192.0.2.2:8080"])
            await plane.catalogue.put(
                TrafficPolicy(namespace="shop", name="web", service="web", balancer="round_robin"), by="test"
            )
            await seen.until(lambda s: s.policies[1].traffic.balancer == "round_robin")
            await plane.catalogue.put(endpoint(7, "nothing"), by="test")
            await seen.until(lambda s: len(s.endpoints[2]) == 1)


async def test_what_is_known_already_is_not_sent_again(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await plane.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), by="test")
        member = await join(plane)
        async with member.channel() as own:
            first = await Watching(own).hello()
            await first.begin(1, "web")
            await first.until(lambda s: 1 in s.digests)
            second = await Watching(own).hello(position=first.position)
            await second.begin(9, "web.shop", known=first.digests[1])
            await second.until(lambda s: 9 in s.current)
            assert 9 not in second.endpoints
            # From there on it is told what changes, as if it had been told the rest.
            second.endpoints[9] = dict(first.endpoints[1])
            await plane.catalogue.put(endpoint(2), by="test")
            await second.until(lambda s: len(s.endpoints[9]) == 2)


async def test_the_last_endpoints_are_kept_unless_they_drain_or_the_policy_says_otherwise(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await plane.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), by="test")
        await plane.catalogue.put(Service(namespace="shop", name="other"), endpoint(3, "other"), by="test")
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.begin(2, "other")
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1 and len(s.endpoints.get(2, ())) == 1)
            await plane.catalogue.delete(Endpoint, "shop/web/web-1", by="test")
            await plane.catalogue.put(endpoint(3, "other", weight=0), by="test")
            await seen.until(lambda s: not s.endpoints[2])
            assert len(seen.endpoints[1]) == 1
            await plane.catalogue.put(endpoint(2), by="test")
            await seen.until(lambda s: list(s.endpoints[1]) == ["192.0.2.2:8080"])
            await plane.catalogue.put(
                TrafficPolicy(namespace="shop", name="web", service="web", when_empty="drain"), by="test"
            )
            await plane.catalogue.delete(Endpoint, "shop/web/web-2", by="test")
            await seen.until(lambda s: not s.endpoints[1])
            assert seen.exists[1] is True


async def test_linkerds_get_streams_adds_before_removes(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await plane.catalogue.put(Service(namespace="shop", name="web"), endpoint(1), by="test")
        member = await join(plane)
        async with member.channel() as own:
            stub = destination_pb2_grpc.DestinationStub(own)
            call = stub.Get(destination_pb2.GetDestination(path="web.shop:80"), timeout=30)
            first = await call.read()
            assert [address_text(one.addr) for one in first.add.addrs] == ["192.0.2.1:8080"]
            assert first.add.metric_labels == {"namespace": "shop", "service": "web"}
            await plane.catalogue.put(endpoint(2), endpoint(1, weight=0), by="test")
            assert [address_text(one.addr) for one in (await call.read()).add.addrs] == ["192.0.2.2:8080"]
            assert [address_text(one) for one in (await call.read()).remove.addrs] == ["192.0.2.1:8080"]
            absent = stub.Get(destination_pb2.GetDestination(path="absent.shop"), timeout=30)
            assert (await absent.read()).no_endpoints.exists is False
            for path in ("192.0.2.1:80", "a:b:c", "web.shop:0", "web.shop:x", "", "www.example.org", "x" * 400):
                call = stub.Get(destination_pb2.GetDestination(path=path), timeout=20)
                assert (await refused(call.read())).code() is Code.INVALID_ARGUMENT, path


async def test_a_new_root_reaches_members_and_the_door_without_a_restart(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            call = trust_pb2_grpc.TrustStub(own).Watch(timeout=30)
            first = await call.read()
            assert len(first.roots) == 1
            await call.write(trust_pb2.Confirmed(position=first.position))
            await plane.trust.begin(Authority.new_root(DOMAIN, time.time()), time.time(), by="test")
            second = await call.read()
            assert len(second.roots) == 2
            assert plane.bundles.unconfirmed == 1
            await call.write(trust_pb2.Confirmed(position=second.position))
            while plane.bundles.unconfirmed:
                await asyncio.sleep(0.01)
            await plane.trust.switch(time.time(), unconfirmed=plane.bundles.unconfirmed, by="test")
            renewed = await join(plane, "shop", "cart")
            assert issuer_key(renewed.leaf) != issuer_key(member.leaf)
            async with renewed.channel() as newer:
                seen = await Watching(newer).hello()
                await seen.begin(1, "web.shop")
                await seen.until(lambda s: 1 in s.exists)


def issuer_key(leaf: x509.Certificate) -> bytes:
    return leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


async def test_streams_are_told_to_go_elsewhere_when_the_control_plane_ends(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web.shop")
            await seen.until(lambda s: 1 in s.exists)
            closing = asyncio.create_task(plane.close())
            while await seen.one() is not None:
                pass
            assert seen.draining is not None
            await closing


async def test_both_sides_show_that_they_live_and_who_is_silent_or_does_not_read_is_let_go(tmp_path):
    bounds = {"heartbeat_ms": 100, "silence_ms": 1_000}
    async with ControlPlane(settings(tmp_path / "plane", bounds=bounds)) as plane:
        await plane.catalogue.put(Service(namespace="shop", name="web"), by="test")
        member = await join(plane)
        async with member.channel() as own, member.channel() as other:
            lively, silent = await Watching(own).hello(), await Watching(other).hello()
            for _ in range(15):
                await lively.one()
                await lively.write(heartbeat=discovery_pb2.Heartbeat())
            assert lively.beats >= 14
            while await silent.one() is not None:
                pass
            await lively.write(heartbeat=discovery_pb2.Heartbeat())
            # It shows that it lives, but reads nothing of what is more than any buffer between takes.
            await lively.begin(1, "web")
            labels = {f"label-{number}": "x" * 60 for number in range(60)}
            turn = 0
            async with asyncio.timeout(40):
                while plane.discovery.streams:
                    turn += 1
                    values = [endpoint(number, labels={**labels, "turn": str(turn)}) for number in range(1, 40)]
                    await plane.catalogue.put(*values, by="test")
                    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                        await lively.write(heartbeat=discovery_pb2.Heartbeat())
