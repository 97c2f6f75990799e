"""OutboundPolicies: linkerd's proxies ask how to call a name. Owns the calls; what a policy says is `outbound`'s."""

from __future__ import annotations

import ipaddress
from typing import Any

from meshcore.api import discovery_pb2

from ..errors import Denied
from ..resolve import Address, Foreign, Malformed, Subject, Target, View, parse
from .answers import refuse
from .destination import Destination, namespace_of
from .outbound import policy_of
from .peers import Peer, Peers
from .streams import Streams

SERVICE = "io.linkerd.proxy.outbound.OutboundPolicies"


class OutboundPolicies:
    """Get and Watch. A name that does not exist is NOT_FOUND: the caller then goes where its client went."""

    def __init__(self, destination: Destination, view: View, peers: Peers, streams: Streams, cluster_domain: str) -> None:
        self._destination = destination
        self._view = view
        self._peers = peers
        self._streams = streams
        self._cluster_domain = cluster_domain

    async def Get(self, request: Any, context: Any) -> Any:
        try:
            target = self._target(request, self._peers.member(context))
            subject = self._existing(target)
            return _Policies().news(subject)[0]
        except Exception as error:
            await refuse(context, error)

    async def Watch(self, request: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            target = self._target(request, peer)
            with self._streams.one(peer):
                self._existing(target)
                await self._destination.follow(target, context, _Policies())
        except Exception as error:
            await refuse(context, error)

    def _existing(self, target: Target) -> Subject:
        subject = self._view.look(target)
        if isinstance(target, Foreign) or not subject.state.exists:
            raise Denied("not_found", f"{target} is not in the mesh")
        return subject

    def _target(self, request: Any, peer: Peer) -> Target:
        what = request.WhichOneof("target")
        if what is None:
            raise Malformed("target is required")
        own = peer.identity.namespace if peer.identity is not None else ""
        if what == "authority":
            return parse(request.authority, namespace_of(request.source_workload) or own, self._cluster_domain)
        addr = request.addr
        if not 1 <= addr.port <= 65_535:
            raise Malformed(f"port {addr.port}; expected 1 to 65535")
        if addr.ip.WhichOneof("ip") == "ipv6":
            number = addr.ip.ipv6.first << 64 | addr.ip.ipv6.last
            return Address(str(ipaddress.IPv6Address(number)), addr.port)
        return Address(str(ipaddress.IPv4Address(addr.ip.ipv4)), addr.port)


class _Policies:
    """What Watch says."""

    def __init__(self) -> None:
        self._told = b""

    def news(self, subject: Subject) -> tuple[bytes, ...]:
        if not subject.state.policy:
            return ()  # it has ceased to exist: what was said stays
        policy = discovery_pb2.Policy.FromString(subject.state.policy)
        message: bytes = policy_of(policy).SerializeToString(deterministic=True)
        if message == self._told:
            return ()
        self._told = message
        return (message,)
