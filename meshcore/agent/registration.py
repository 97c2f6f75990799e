"""This workload's own entry in the control plane: who is here and where, for as long as this proxy lives. Drained before it goes."""

from __future__ import annotations

import asyncio
import logging

import grpc.aio
import msgspec

from meshcore.api import registry_pb2, registry_pb2_grpc

LEAST_RENEW_S = 0.2
DEFAULT_TTL_S = 15
_log = logging.getLogger("meshcore.agent")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one service that this workload answers."""

    service: str
    address: str
    port: int
    service_port: int = 0
    protocol: str = "detect"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is registered. Namespace and account are those of the certificate."""

    name: str
    labels: dict[str, str] = {}
    zone: str = ""
    node: str = ""
    addresses: tuple[str, ...] = ()
    served: tuple[Served, ...] = ()
    ttl_s: int = DEFAULT_TTL_S


class Registration:
    """A part of the link. A claim outlives a connection by its time, so an outage shorter than that is not seen by callers."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.is_registered = False
        self.is_ready = True
        self._is_draining = False
        self._is_leaving = False
        self._changed = asyncio.Event()
        self._heard = asyncio.Event()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Keep the claim on this channel until the stream ends."""
        call = registry_pb2_grpc.RegistryStub(channel).Keep()
        try:
            await call.write(registry_pb2.Claim(register=_register(self.claim, is_draining=not self.takes_requests)))
            kept = await call.read()
            if kept is grpc.aio.EOF:
                return
            self.is_registered = True
            self._heard.set()
            _log.info("registered as %s", self.claim.name)
            renew_s = max(LEAST_RENEW_S, kept.renew_every_ms / 1000)
            await self._keep(call, renew_s)
        finally:
            self.is_registered = False
            call.cancel()

    async def _keep(self, call: grpc.aio.StreamStreamCall, renew_s: float) -> None:
        reading = asyncio.create_task(self._read(call))
        try:
            while not reading.done():
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, reading}, timeout=renew_s, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if reading.done():
                    break
                if not self._changed.is_set():
                    await call.write(registry_pb2.Claim(alive=registry_pb2.Alive()))
                    continue
                self._changed.clear()
                if self._is_leaving:
                    await call.write(registry_pb2.Claim(leave=registry_pb2.Leave()))
                    await call.done_writing()
                    await reading
                    return
                await call.write(
                    registry_pb2.Claim(resume=registry_pb2.Resume())
                    if self.takes_requests
                    else registry_pb2.Claim(drain=registry_pb2.Drain())
                )
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while await call.read() is not grpc.aio.EOF:
            self._heard.set()

    @property
    def takes_requests(self) -> bool:
        return self.is_ready and not self._is_draining

    def ready(self, is_ready: bool) -> None:
        """Whether the application takes connections. Callers are told of us while it does."""
        self.is_ready = is_ready
        self._changed.set()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new requests from callers. True when the control plane has heard it."""
        self._is_draining = True
        return await self._say(timeout_s)

    async def leave(self, timeout_s: float) -> bool:
        """Be forgotten at once. True when the control plane has heard it."""
        self._is_leaving = True
        return await self._say(timeout_s)

    async def _say(self, timeout_s: float) -> bool:
        if not self.is_registered:
            return False
        self._heard.clear()
        self._changed.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_registered and not self._heard.is_set():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True


def _register(claim: Claim, *, is_draining: bool) -> registry_pb2.Register:
    return registry_pb2.Register(
        name=claim.name,
        labels=claim.labels,
        zone=claim.zone,
        node=claim.node,
        addresses=claim.addresses,
        endpoints=[
            registry_pb2.Endpoint(
                service=one.service, address=one.address, port=one.port, service_port=one.service_port, protocol=one.protocol
            )
            for one in claim.served
        ],
        ttl_s=claim.ttl_s,
        is_draining=is_draining,
    )
