"""Members of a mesh as tests play them: a key, a certificate from a running control plane, gRPC channels. Checks nothing."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controlplane.server import ControlPlane
from controlplane.settings import Bounds, Settings
from controlplane.spiffe import SpiffeId
from meshcore.api import (
    destination_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
)
from tests.controlplane.asking import new_key, request

DOMAIN = "mesh.example.org"


def settings(folder: Path, **changes) -> Settings:
    """A control plane of its own, on a free port."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    bounds = Bounds(**changes.pop("bounds", {}))
    return Settings(data=str(folder), trust_domain=DOMAIN, listen="127.0.0.1:0", drain_s=1.0, bounds=bounds, **changes)


def spiffe(namespace: str, account: str) -> str:
    return f"spiffe://{DOMAIN}/ns/{namespace}/sa/{account}"


def key_pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def channel(address: str, roots: bytes, key=None, chain: bytes | None = None, name: str = "control-plane", **options):
    """A channel as an agent opens it; without a key it is a newcomer's."""
    credentials = grpc.ssl_channel_credentials(roots, key_pem(key) if key is not None else None, chain)
    words = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1), *options.items()]
    return grpc.aio.secure_channel(address, credentials, options=words)


class Member:
    """One workload with a certificate."""

    def __init__(self, address: str, roots: bytes, key, answer) -> None:
        self.address, self.roots, self.key = address, roots, key
        chain = [answer.leaf_certificate, *answer.intermediate_certificates]
        self.leaf = x509.load_der_x509_certificate(chain[0])
        self.chain = b"".join(
            x509.load_der_x509_certificate(one).public_bytes(serialization.Encoding.PEM) for one in chain
        )
        self.valid_until_s = answer.valid_until.ToSeconds()

    def channel(self, **options):
        return channel(self.address, self.roots, self.key, self.chain, **options)


async def token(plane: ControlPlane, namespace: str, account: str) -> bytes:
    made = await plane.join_tokens.make(SpiffeId.of(DOMAIN, namespace, account), time.time(), by="test")
    return made.text.encode()


async def certify(channel, token: bytes = b"", wanted: str = "", key=None, csr: bytes | None = None):
    """One Certify call."""
    data = request(key or new_key()) if csr is None else csr
    asked = identity_pb2.CertifyRequest(identity=wanted, token=token, certificate_signing_request=data)
    return await identity_pb2_grpc.IdentityStub(channel).Certify(asked, timeout=20)


async def join(plane: ControlPlane, namespace: str = "shop", account: str = "web") -> Member:
    """A newcomer with a join token becomes a member."""
    key = new_key()
    async with channel(plane.address, plane.bundle_pem) as newcomer:
        answer = await certify(newcomer, await token(plane, namespace, account), key=key)
    return Member(plane.address, plane.bundle_pem, key, answer)


class Watching:
    """A Discovery stream, and what the names on it look like by now."""

    def __init__(self, channel) -> None:
        self._call = discovery_pb2_grpc.DiscoveryStub(channel).Watch(timeout=60)
        self.position = ""
        self.endpoints: dict[int, dict[str, destination_pb2.WeightedAddr]] = {}
        self.exists: dict[int, bool] = {}
        self.policies: dict[int, discovery_pb2.Policy] = {}
        self.digests: dict[int, bytes] = {}
        self.failed: dict[int, discovery_pb2.Failed] = {}
        self.current: set[int] = set()
        self.beats = 0
        self.draining = None

    async def hello(self, **fields):
        await self._call.write(discovery_pb2.Asked(hello=discovery_pb2.Hello(version="test", **fields)))
        return self

    async def begin(self, number: int, path: str, known: bytes = b"") -> None:
        await self._call.write(discovery_pb2.Asked(begin=discovery_pb2.Begin(id=number, path=path, known=known)))

    async def end(self, number: int) -> None:
        await self._call.write(discovery_pb2.Asked(end=discovery_pb2.End(id=number)))

    async def write(self, **what) -> None:
        await self._call.write(discovery_pb2.Asked(**what))

    async def one(self):
        """Takes in one message; None when the stream has ended in peace."""
        told = await self._call.read()
        if told == grpc.aio.EOF:
            return None
        self.position = told.position or self.position
        self.beats += told.HasField("heartbeat")
        if told.HasField("draining"):
            self.draining = told.draining
        for change in told.changes:
            self._take(change)
        return told

    async def until(self, claim) -> None:
        """Takes messages in until the claim holds."""
        while not claim(self):
            assert await self.one() is not None, "the stream ended"

    def _take(self, change) -> None:
        number = change.id
        if change.HasField("failed"):
            self.failed[number] = change.failed
            return
        if change.is_current:
            self.current.add(number)
            return
        if change.is_whole:
            self.endpoints[number] = {}
        self.digests[number] = change.digest
        for update in change.updates:
            self._update(number, update)
        if change.HasField("policy"):
            self.policies[number] = change.policy

    def _update(self, number: int, update) -> None:
        there = self.endpoints[number]
        what = update.WhichOneof("update")
        if what == "no_endpoints":
            there.clear()
            self.exists[number] = update.no_endpoints.exists
        elif what == "add":
            self.exists[number] = True
            for one in update.add.addrs:
                there[address_text(one.addr)] = one
        else:
            for addr in update.remove.addrs:
                del there[address_text(addr)]


def address_text(addr) -> str:
    """`192.0.2.7:8080`."""
    if addr.ip.WhichOneof("ip") == "ipv4":
        return f"{ipaddress.IPv4Address(addr.ip.ipv4)}:{addr.port}"
    number = addr.ip.ipv6.first << 64 | addr.ip.ipv6.last
    return f"[{ipaddress.IPv6Address(number)}]:{addr.port}"
