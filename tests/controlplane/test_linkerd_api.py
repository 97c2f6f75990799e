"""Profiles and outbound policies, as linkerd's proxies read them."""

from __future__ import annotations

import grpc
import pytest

from controlplane.model import Endpoint, Match, Retries, RoutePolicy, Rule, Service, ServicePort, Split, TrafficPolicy
from controlplane.server import ControlPlane
from meshcore.api import (
    destination_pb2,
    destination_pb2_grpc,
    http_types_pb2,
    inbound_pb2,
    inbound_pb2_grpc,
    net_pb2,
    outbound_pb2,
    outbound_pb2_grpc,
)
from tests.controlplane.members import join, settings, spiffe

RULES = (
    Rule(
        matches=(Match(prefix="/new", methods=("GET", "QUERY")), Match(path="/one", headers={"x-user": "b"})),
        splits=(Split(service="web", weight=9), Split(service="canary", weight=1, port=81)),
        timeout_ms=2_000,
        retries=Retries(attempts=2, on=("503", "unsent"), per_try_timeout_ms=500),
    ),
    Rule(splits=(Split(service="web", weight=3), Split(service="canary", weight=1)), timeout_ms=5_000),
)


async def fill(plane: ControlPlane) -> None:
    await plane.catalogue.put(
        Service(namespace="shop", name="web", ports=(ServicePort(port=80), ServicePort(port=5432, protocol="tcp"))),
        Endpoint(namespace="shop", service="web", name="e", address="192.0.2.7", port=8080, identity=spiffe("shop", "web")),
        RoutePolicy(namespace="shop", name="web", service="web", hosts=("*.example.org",), rules=RULES),
        TrafficPolicy(namespace="shop", name="web", service="web", max_pending=7, retry_budget=0.5),
        by="test",
    )


async def test_a_profile_says_what_it_can(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await fill(plane)
        member = await join(plane)
        async with member.channel() as own:
            stub = destination_pb2_grpc.DestinationStub(own)

            async def profile(path: str):
                return await stub.GetProfile(destination_pb2.GetDestination(path=path), timeout=20).read()

            found = await profile("web.shop")
            assert found.fully_qualified_name == "web.shop.svc.cluster.local"
            assert found.retry_budget.retry_ratio == 0.5 and not found.opaque_protocol
            # The rule that needs a header is left out, its sister and the second rule are there.
            first, second = found.routes
            assert first.condition.all.matches[0].path.regex == "/new(/.*)?" and first.timeout.ToMilliseconds() == 2_000
            methods = [one.method for one in first.condition.all.matches[1].any.matches]
            assert methods[0].registered == http_types_pb2.HttpMethod.GET and methods[1].unregistered == "QUERY"
            assert second.condition.path.regex == ".*"
            shares = [(one.authority, one.weight) for one in found.dst_overrides]
            assert shares == [("web.shop.svc.cluster.local:80", 3), ("canary.shop.svc.cluster.local:80", 1)]
            assert (await profile("web.shop:5432")).opaque_protocol
            at = await profile("192.0.2.7:8080")
            assert at.endpoint.tls_identity.uri_like_identity.uri == spiffe("shop", "web")
            assert (await profile("www.example.org")).fully_qualified_name == ""


async def test_an_outbound_policy_says_the_rest(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await fill(plane)
        member = await join(plane)
        async with member.channel() as own:
            stub = outbound_pb2_grpc.OutboundPoliciesStub(own)
            call = stub.Watch(outbound_pb2.TrafficSpec(source_workload="ns:shop", authority="web"), timeout=30)
            found = await call.read()
            detect = found.protocol.detect
            assert detect.timeout.ToMilliseconds() == 10_000 and len(detect.opaque.routes) == 1
            assert detect.http1 == detect.http2 or detect.http1.routes == detect.http2.routes
            first, second, rest = detect.http1.routes
            assert list(first.hosts[0].suffix.reverse_labels) == ["org", "example"]
            (rule,) = first.rules
            assert [match.path.WhichOneof("kind") for match in rule.matches] == ["prefix", "prefix", "exact"]
            backends = rule.backends.random_available.backends
            assert [one.weight for one in backends] == [9, 1]
            paths = [one.backend.backend.balancer.discovery.dst.path for one in backends]
            assert paths == ["web.shop.svc.cluster.local:80", "canary.shop.svc.cluster.local:81"]
            assert backends[0].backend.backend.queue.capacity == 7
            assert rule.retry.max_retries == 2 and rule.retry.conditions.status_ranges[0].start == 503
            assert second.rules[0].timeouts.request.ToMilliseconds() == 5_000
            own_path = rest.rules[0].backends.first_available.backends[0].backend.balancer.discovery.dst.path
            assert own_path == "web.shop.svc.cluster.local:80"
            assert detect.http1.failure_accrual.consecutive_failures.max_failures == 5
            # Each backend's path is one that Destination.Get takes.
            get = destination_pb2_grpc.DestinationStub(own).Get(destination_pb2.GetDestination(path=own_path), timeout=20)
            assert (await get.read()).add.addrs
            await plane.catalogue.put(TrafficPolicy(namespace="shop", name="web", service="web", max_pending=9), by="test")
            again = await call.read()
            assert again.protocol.detect.http1.routes[2].rules[0].backends.first_available.backends[0].backend.queue.capacity == 9
            opaque = await stub.Get(outbound_pb2.TrafficSpec(authority="web.shop:5432"), timeout=20)
            assert opaque.protocol.opaque.routes


async def test_a_policy_of_nothing_is_refused_as_linkerd_expects(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        await fill(plane)
        member = await join(plane)
        async with member.channel() as own:
            stub = outbound_pb2_grpc.OutboundPoliciesStub(own)
            address = net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=0xC0000207), port=0)
            for spec, code in (
                (outbound_pb2.TrafficSpec(), grpc.StatusCode.INVALID_ARGUMENT),
                (outbound_pb2.TrafficSpec(addr=address), grpc.StatusCode.INVALID_ARGUMENT),
                (outbound_pb2.TrafficSpec(authority="absent.shop"), grpc.StatusCode.NOT_FOUND),
                (outbound_pb2.TrafficSpec(authority="www.example.org"), grpc.StatusCode.NOT_FOUND),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await stub.Watch(spec, timeout=20).read()
                assert error.value.code() is code
            address.port = 8080
            assert (await stub.Get(outbound_pb2.TrafficSpec(addr=address), timeout=20)).metadata.resource.name == "web"


async def test_a_port_is_let_in_to_as_linkerd_does_by_default(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            stub = inbound_pb2_grpc.InboundServerPoliciesStub(own)
            asked = inbound_pb2.PortSpec(workload='{"ns":"shop","pod":"web-1"}', port=8080)
            server = await stub.GetPort(asked, timeout=20)
            watch = stub.WatchPort(asked, timeout=60)
            assert await watch.read() == server
            (route,), (allowed,) = server.protocol.detect.http_routes, server.authorizations
            assert server.protocol.detect.timeout.ToMilliseconds() == 10_000
            assert route.metadata.default == "default" and route.rules[0].matches[0].path.prefix == "/"
            assert allowed.authentication.WhichOneof("permit") == "unauthenticated"
            assert [one.net.ip.WhichOneof("ip") for one in allowed.networks] == ["ipv4", "ipv6"] and allowed.networks[0].net.prefix_len == 0
            assert server.labels["name"] == allowed.labels["name"] == "all-unauthenticated"
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.GetPort(inbound_pb2.PortSpec(workload="x", port=0), timeout=20)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with member.channel() as again:
            drained = inbound_pb2_grpc.InboundServerPoliciesStub(again).WatchPort(asked, timeout=60)
            await drained.read()
            plane.destination.drain()
            assert await drained.read() is grpc.aio.EOF
