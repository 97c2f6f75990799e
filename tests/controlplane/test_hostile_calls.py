"""Bytes that no honest client sends, on every service: a status for each, and the next caller notices nothing."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl

import grpc
import pytest

from controlplane.model import Endpoint, Service
from controlplane.server import ControlPlane
from meshcore.api import destination_pb2, discovery_pb2, registry_pb2
from tests.controlplane.members import Watching, certify, channel, join, settings, token

Code = grpc.StatusCode
STREAMS = (
    "/meshcore.discovery.Discovery/Watch",
    "/meshcore.registry.Registry/Keep",
    "/meshcore.trust.Trust/Watch",
)
# What a message that happens to be readable may be answered with.
EXPECTED = (Code.OK, Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED)
UNARY = (
    "/io.linkerd.proxy.identity.Identity/Certify",
    "/meshcore.admin.Admin/Status",
    "/meshcore.admin.Admin/Get",
    "/meshcore.admin.Admin/Apply",
    "/meshcore.admin.Admin/Delete",
    "/meshcore.admin.Admin/Explain",
    "/meshcore.admin.Admin/MakeJoinToken",
)
ONE_TO_MANY = ("/io.linkerd.proxy.destination.Destination/Get", "/io.linkerd.proxy.destination.Destination/GetProfile")
# A length that promises more than there is; an endless varint; a wire type that does not exist; bad UTF-8; depth.
TRUNCATED = (b"\x0a\xff", b"\x0a" + b"\xff" * 11, b"\x0f", b"\x0a\x02\xff\xfe", b"\x1a" * 40)


def deep(levels: int) -> bytes:
    """Groups in groups in a field that nobody knows, all of them ended: only their depth is wrong."""
    return b"\xa3\x06" * levels + b"\xa4\x06" * levels


async def code_of(opened, method: str, octets: bytes, timeout: float = 10.0) -> Code:
    """How a call with one message of these bytes ends; OK when it is answered."""
    try:
        if method in STREAMS:
            call = opened.stream_stream(method)(timeout=timeout)
            await call.write(octets)
            for _ in range(2):  # some say something before they listen
                if await call.read() is grpc.aio.EOF:
                    return await call.code()
            call.cancel()
        elif method in ONE_TO_MANY:
            call = opened.unary_stream(method)(octets, timeout=timeout)
            await call.read()
            call.cancel()
        else:
            await opened.unary_unary(method)(octets, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return error.code()
    except asyncio.CancelledError:
        return Code.CANCELLED
    return Code.OK


async def still_serves(plane: ControlPlane) -> None:
    member = await join(plane)
    async with member.channel() as own:
        seen = await Watching(own).hello()
        await seen.begin(1, "web")
        await seen.until(lambda s: 1 in s.exists)


async def test_broken_messages_end_their_call_and_nothing_else(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            watching = await Watching(own).hello()
            asked = [method for method in UNARY if not method.endswith("/Status")]  # it has no field to be wrong
            for method in (*STREAMS, *ONE_TO_MANY, *asked):
                for octets in (*TRUNCATED, deep(10_000)):
                    assert await code_of(own, method, octets) is Code.INVALID_ARGUMENT, (method, octets[:20])
            # On the same connection, through all of this:
            await watching.begin(1, "web")
            await watching.until(lambda s: 1 in s.exists)
        await still_serves(plane)


async def test_random_bytes_are_answered_by_a_status(tmp_path):
    rng = random.Random(7)
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            for _ in range(120):
                octets = rng.randbytes(rng.randrange(1, 60))
                method = rng.choice((*STREAMS, *UNARY))
                assert await code_of(own, method, octets) in EXPECTED, (method, octets)
        await still_serves(plane)


async def test_messages_beyond_the_bound_and_unknown_methods_are_refused(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            large = b"\x1a\x80\x80\x80\x01" + bytes(2 * 1024 * 1024)
            assert await code_of(own, "/io.linkerd.proxy.identity.Identity/Certify", large) is Code.RESOURCE_EXHAUSTED
            assert await code_of(own, "/meshcore.admin.Admin/Everything", b"") is Code.UNIMPLEMENTED
            assert await code_of(own, "/nobody/Nothing", b"") is Code.UNIMPLEMENTED


async def test_a_stream_out_of_order_is_refused_with_a_reason(tmp_path):
    hello = discovery_pb2.Asked(hello=discovery_pb2.Hello())
    async with ControlPlane(settings(tmp_path / "plane", bounds={"names_per_stream": 3})) as plane:
        member = await join(plane)
        async with member.channel() as own:

            def begin(number: int) -> discovery_pb2.Asked:
                return discovery_pb2.Asked(begin=discovery_pb2.Begin(id=number, path="web"))

            for messages in ([begin(1)], [hello, hello], [hello, begin(0)], [hello, begin(1), begin(1)]):
                call = own.stream_stream("/meshcore.discovery.Discovery/Watch")(timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    for message in messages:
                        await call.write(message.SerializeToString())
                    while await call.read() is not grpc.aio.EOF:
                        pass
                assert error.value.code() is Code.INVALID_ARGUMENT and error.value.details(), messages
            # One name too many is refused by itself, and there is room again when one has ended.
            seen = await Watching(own).hello()
            for number in range(1, 5):
                await seen.begin(number, f"s{number}")
            await seen.until(lambda s: s.failed and len(s.exists) == 3)
            assert seen.failed[4].code == 8
            await seen.end(1)
            await seen.begin(5, "s5")
            await seen.until(lambda s: 5 in s.exists)


async def test_streams_of_one_identity_are_bounded(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane", bounds={"streams_per_identity": 2})) as plane:
        member = await join(plane)
        async with member.channel() as own:
            kept = [await Watching(own).hello() for _ in range(2)]
            for seen in kept:
                await seen.begin(1, "web")
                await seen.until(lambda s: 1 in s.exists)
            third = await Watching(own).hello()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await third.one()
            assert error.value.code() is Code.RESOURCE_EXHAUSTED
        other = await join(plane, "shop", "cart")
        async with other.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.until(lambda s: 1 in s.exists)


async def test_members_are_no_operators(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        member = await join(plane)
        async with member.channel() as own:
            for method in UNARY:
                if "Admin" in method:
                    octets = {
                        "Apply": b"\x0a\x2f\x0a\x07service\x2a\x24" + b'{"namespace":"shop","name":"web"}   ',
                        "MakeJoinToken": b"\x0a\x04shop\x12\x03web",
                        "Explain": b"\x0a\x03web",
                        "Delete": b"\x0a\x13\x0a\x07service\x12\x08shop/web",
                        "Get": b"\x12\x04shop",
                    }.get(method.rpartition("/")[2], b"")
                    assert await code_of(own, method, octets) is Code.PERMISSION_DENIED, method
        assert '"permission"' in (tmp_path / "plane/audit.log").read_text()


async def test_noise_on_the_port_disturbs_nobody(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        host, port = plane.address.rsplit(":", 1)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.set_alpn_protocols(["h2"])

        def bother() -> None:
            for octets in (b"GET / HTTP/1.1\r\n\r\n", bytes(2_000), b"\x16\x03\x01\xff\xff", b""):
                with socket.create_connection((host, int(port)), 5) as plain:
                    plain.sendall(octets)
            for octets in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200, b"nonsense", b""):
                with socket.create_connection((host, int(port)), 5) as plain, tls.wrap_socket(plain) as secure:
                    secure.sendall(octets)

        await asyncio.to_thread(bother)
        await still_serves(plane)


async def test_a_token_that_comes_twice_gets_one_certificate(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        made = await token(plane, "shop", "web")
        async with channel(plane.address, plane.bundle_pem) as newcomer:
            answers = await asyncio.gather(*(certify(newcomer, made) for _ in range(5)), return_exceptions=True)
        assert sum(not isinstance(answer, Exception) for answer in answers) == 1


async def test_an_endpoint_that_flaps_is_told_as_it_is_and_never_queued(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        steady = Endpoint(namespace="shop", service="web", name="a", address="192.0.2.1", port=80)
        flapping = Endpoint(namespace="shop", service="web", name="b", address="192.0.2.2", port=80)
        await plane.catalogue.put(Service(namespace="shop", name="web"), steady, by="test")
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            for _ in range(25):
                await plane.catalogue.put(flapping, by="test")
                await plane.catalogue.delete(Endpoint, flapping.key, by="test")
            await plane.catalogue.put(flapping, by="test")
            await seen.until(lambda s: len(s.endpoints[1]) == 2)
            # The steady one was told once, and never taken away.
            assert plane.discovery.messages <= 60


def test_the_bytes_above_are_what_they_say():
    assert registry_pb2.Claim.FromString(deep(10)) is not None
    assert destination_pb2.GetDestination.FromString(b"\x12\x03web").path == "web"
    with pytest.raises(Exception, match=r"(?i)pars|error"):
        registry_pb2.Claim.FromString(TRUNCATED[0])
