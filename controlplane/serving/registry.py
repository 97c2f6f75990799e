"""Registry: workloads that register themselves and their endpoints, and stay while they show that they live.

A member may claim what is its own: a workload of its namespace under its own account, and endpoints that carry its own
identity. A service that names accounts takes endpoints of these accounts only; a name that somebody else holds is not
taken over.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from meshcore.api import registry_pb2, registry_pb2_grpc
from meshcore.errors import Problem

from ..catalogue import Catalogue
from ..errors import Denied, Invalid, LeaseExpired
from ..model import Endpoint, Entry, Named, Service, Workload
from ..model.members import DEFAULT_WEIGHT
from ..resolve import Malformed
from ..spiffe import SpiffeId
from .answers import refuse
from .departures import Departures
from .peers import Peers
from .streams import Streams

DEFAULT_TTL_S = 15  # three signs of life may get lost
MIN_TTL_S, MAX_TTL_S = 3, 600
MAX_ENDPOINTS = 64
SIGNS_PER_TTL = 3


class Registry(registry_pb2_grpc.RegistryServicer):  # type: ignore[misc]
    """The service. One stream is one claim."""

    def __init__(self, catalogue: Catalogue, peers: Peers, streams: Streams, departures: Departures) -> None:
        self._catalogue = catalogue
        self._peers = peers
        self._streams = streams
        self._departures = departures

    async def Keep(self, request_iterator: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            if peer.identity is None:
                raise Denied("not_yours", "the socket for operators has no identity to register")
            with self._streams.one(peer):
                first = await anext(aiter(request_iterator), None)
                if first is None or first.WhichOneof("what") != "register":
                    raise Malformed("the first message on a stream is `register`")
                claim = _Claim(self._catalogue, peer.identity, first.register)
                await claim.begin()
                try:
                    with self._departures.one():
                        await self._keep(claim, request_iterator, context)
                except asyncio.CancelledError:
                    # Its connection is gone. (What fails on our side, as a store that is away, says nothing of the member.)
                    self._departures.broke(claim.lease)
                    raise
                if not claim.has_left:
                    self._departures.broke(claim.lease)
        except Exception as error:
            await refuse(context, error)

    async def _keep(self, claim: _Claim, requests: Any, context: Any) -> None:
        await context.write(claim.kept())
        signs = aiter(requests)
        while True:
            # As long as the lease may last: whoever is silent for longer has lost it already.
            try:
                async with asyncio.timeout(claim.ttl_s):
                    sign = await anext(signs, None)
            except TimeoutError:
                return
            if sign is None:
                return
            what = sign.WhichOneof("what")
            if what == "leave":
                await claim.leave()
                return
            if what == "register":
                raise Malformed("`register` comes once on a stream")
            if what in ("drain", "resume"):
                await claim.drain(what == "drain")
            await claim.renew()
            await context.write(claim.kept())


class _Claim:
    """What one stream keeps alive."""

    def __init__(self, catalogue: Catalogue, identity: SpiffeId, register: Any) -> None:
        self._catalogue = catalogue
        self._identity = identity
        self.ttl_s = register.ttl_s or DEFAULT_TTL_S
        self._values = _values(identity, register, self.ttl_s)
        self.lease = 0
        self.has_left = False
        self._is_draining: bool = register.is_draining
        self._position = ""

    async def begin(self) -> None:
        for value in self._values:
            await self._check(value)
        await self._register()

    async def drain(self, is_draining: bool) -> None:
        """Its endpoints take no new requests, or do again."""
        if is_draining == self._is_draining:
            return
        self._is_draining = is_draining
        values = (msgspec.structs.replace(value, lease=self.lease) for value in self._told())
        self._position = str(await self._catalogue.put(*values, by=str(self._identity)))

    async def renew(self) -> None:
        """Full time again; registered anew when it had run out, as after a store that was away."""
        try:
            await self._catalogue.store.keep_alive(self.lease)
        except LeaseExpired:
            await self._register()

    async def leave(self) -> None:
        self.has_left = True
        await self._catalogue.store.revoke(self.lease)

    def kept(self) -> Any:
        every_ms = self.ttl_s * 1_000 // SIGNS_PER_TTL
        return registry_pb2.Kept(renew_every_ms=every_ms, position=self._position)

    async def _register(self) -> None:
        lease = await self._catalogue.register(*self._told(), ttl_s=self.ttl_s, by=str(self._identity))
        self.lease = lease.id

    def _told(self) -> tuple[Named, ...]:
        """Its values as they are stored: an endpoint without weight is there, and gets nothing."""
        if not self._is_draining:
            return self._values
        return tuple(
            msgspec.structs.replace(value, weight=0) if isinstance(value, Endpoint) else value for value in self._values
        )

    async def _check(self, value: Named) -> None:
        """Denied when it is somebody else's."""
        there: Entry[Any] | None = await self._catalogue.get(type(value), value.key)
        if isinstance(value, Workload):
            if there is not None and there.value.account != self._identity.account:
                raise Denied("not_yours", f"workload '{value.key}' is of account {there.value.account}")
            return
        assert isinstance(value, Endpoint)
        if there is not None and there.value.identity not in ("", str(self._identity)):
            raise Denied("not_yours", f"endpoint '{value.key}' is of {there.value.identity}")
        service = await self._catalogue.get(Service, f"{value.namespace}/{value.service}")
        accounts = service.value.accounts if service is not None else ()
        if accounts and self._identity.account not in accounts:
            raise Denied("not_yours", f"service '{value.service}' takes endpoints of {', '.join(accounts)} only")


def _values(identity: SpiffeId, register: Any, ttl_s: int) -> tuple[Named, ...]:
    problems = []
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        expected = f"{MIN_TTL_S} to {MAX_TTL_S}"
        problems.append(Problem(message=f"got {ttl_s}", path=("ttl_s",), expected=expected))
    if len(register.endpoints) > MAX_ENDPOINTS:
        problems.append(
            Problem(
                message=f"got {len(register.endpoints)}", path=("endpoints",), expected=f"at most {MAX_ENDPOINTS}"
            )
        )
    if problems:
        raise Invalid("registration", problems)
    workload = Workload(
        namespace=identity.namespace,
        name=register.name,
        account=identity.account,
        labels=dict(register.labels),
        zone=register.zone,
        node=register.node,
        addresses=tuple(register.addresses),
    )
    endpoints = [
        Endpoint(
            namespace=identity.namespace,
            service=one.service,
            name=f"{register.name}.{one.port}"[:253],
            address=one.address,
            port=one.port,
            service_port=one.service_port,
            weight=one.weight or DEFAULT_WEIGHT,
            labels=dict(register.labels),
            zone=register.zone,
            identity="" if one.is_plain else str(identity),
            protocol=one.protocol or "detect",
            workload=register.name,
        )
        for one in register.endpoints
    ]
    return (workload, *endpoints)
