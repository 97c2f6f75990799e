"""The wire shapes: the code is generated from the files beside it, and its bytes are those of linkerd2-proxy-api."""

import asyncio
import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "meshcore/api").glob("*.proto"))


def test_the_code_is_generated_from_the_files_beside_it(tmp_path):
    subprocess.run(["tools/protos.sh", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, timeout=60)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "meshcore/api").iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / "meshcore/api").glob("*_pb2*.py")}
    assert fresh == kept, "run tools/protos.sh"


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.stem)
def test_line_one_says_what_a_file_owns(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("// ") and first.endswith(".") and len(first) <= 120


def module(name):
    return importlib.import_module(f"meshcore.api.{name}")


def test_bytes_are_those_the_other_side_expects():
    """Written out by hand from field numbers and wire types."""
    destination, net = module("destination_pb2"), module("net_pb2")
    address = net.TcpAddress(ip=net.IPAddress(ipv4=0x7F000001), port=80)
    assert address.SerializeToString() == bytes.fromhex("0a05 0d0100007f 1050".replace(" ", ""))
    update = destination.Update(
        add=destination.WeightedAddrSet(
            addrs=[
                destination.WeightedAddr(
                    addr=address,
                    weight=3,
                    protocol_hint=destination.ProtocolHint(h2=destination.ProtocolHint.H2()),
                    tls_identity=destination.TlsIdentity(
                        uri_like_identity=destination.TlsIdentity.UriLikeIdentity(uri="s")
                    ),
                )
            ]
        )
    )
    weighted = "0a09" + "0a050d0100007f1050" + "1803" + "2a05" + "1a03" + "0a0173" + "3202" + "0a00"
    added = "0a" + f"{len(weighted) // 2:02x}" + weighted
    assert update.SerializeToString().hex() == "0a" + f"{len(added) // 2:02x}" + added
    assert destination.Update(no_endpoints=destination.NoEndpoints(exists=True)).SerializeToString().hex() == "1a020801"
    assert module("identity_pb2").CertifyRequest(
        identity="i", token=b"t", certificate_signing_request=b"c"
    ).SerializeToString() == (b"\x0a\x01i\x12\x01t\x1a\x01c")
    tap = module("tap_pb2")
    assert tap.Eos(reset_error_code=8).SerializeToString().hex() == "1008"
    outbound = module("outbound_pb2")
    assert outbound.HttpRoute.Rule(allow_l5d_request_headers=True).SerializeToString().hex() == "3801"


def test_services_have_the_names_that_clients_dial():
    names = {
        "destination": "io.linkerd.proxy.destination.Destination",
        "identity": "io.linkerd.proxy.identity.Identity",
        "tap": "io.linkerd.proxy.tap.Tap",
        "inbound": "io.linkerd.proxy.inbound.InboundServerPolicies",
        "outbound": "io.linkerd.proxy.outbound.OutboundPolicies",
        "relay": "meshcore.relay.Relay",
        "trust": "meshcore.trust.Trust",
        "statistics": "meshcore.statistics.Statistics",
    }
    for name, service in names.items():
        found = [one.full_name for one in module(f"{name}_pb2").DESCRIPTOR.services_by_name.values()]
        assert found == [service]


async def test_a_generated_client_and_a_generated_server_understand_each_other():
    import grpc

    pb, code = module("trust_pb2"), module("trust_pb2_grpc")

    class Trust(code.TrustServicer):
        async def Watch(self, request_iterator, context):
            async for confirmed in request_iterator:
                yield pb.Bundle(position=confirmed.position + "+", trust_domain="mesh.example.org", roots=[b"root"])

    server = grpc.aio.server()
    code.add_TrustServicer_to_server(Trust(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = code.TrustStub(channel).Watch()
            for position in ("", "a:1:b"):
                await stream.write(pb.Confirmed(position=position))
                assert (await asyncio.wait_for(stream.read(), 20)).position == position + "+"
            await stream.done_writing()
    finally:
        await server.stop(0)
