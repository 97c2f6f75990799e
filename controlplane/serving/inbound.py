"""InboundServerPolicies: linkerd's proxies ask what to let in on a port before they listen. Owns the calls; there is one answer yet.

It is linkerd's own default, `all-unauthenticated`: any protocol, told by the first octets, from everywhere, with identity where
there is one. What a mesh may want beyond that is authorization, which this does not have.
"""

from __future__ import annotations

from typing import Any

from meshcore.api import inbound_pb2

from ..resolve import Malformed
from .answers import refuse
from .destination import Destination
from .peers import Peers
from .streams import Streams

SERVICE = "io.linkerd.proxy.inbound.InboundServerPolicies"
DETECT_MS = 10_000  # what linkerd's own controller says
LABELS = {"group": "", "kind": "default", "name": "all-unauthenticated"}


class InboundServerPolicies:
    """GetPort and WatchPort."""

    def __init__(self, destination: Destination, peers: Peers, streams: Streams) -> None:
        self._destination = destination
        self._peers = peers
        self._streams = streams

    async def GetPort(self, request: Any, context: Any) -> Any:
        try:
            self._peers.member(context)
            _check(request)
            return default_server()
        except Exception as error:
            await refuse(context, error)

    async def WatchPort(self, request: Any, context: Any) -> None:
        try:
            peer = self._peers.member(context)
            _check(request)
            with self._streams.one(peer):
                await context.write(default_server())
                await self._destination.until_drained()
        except Exception as error:
            await refuse(context, error)


def _check(request: Any) -> None:
    if not 1 <= request.port <= 65_535:
        raise Malformed(f"port {request.port}; expected 1 to 65535")


def default_server() -> Any:
    """Everybody may come in, over mTLS or not. A proxy of linkerd answers every request 404 without a route that takes it."""
    server = inbound_pb2.Server(labels=LABELS)
    server.protocol.detect.timeout.FromMilliseconds(DETECT_MS)
    route = server.protocol.detect.http_routes.add()
    route.metadata.default = "default"
    route.rules.add().matches.add().path.prefix = "/"
    allowed = server.authorizations.add(labels=LABELS)
    allowed.metadata.default = LABELS["name"]
    allowed.authentication.unauthenticated.SetInParent()
    allowed.networks.add().net.ip.ipv4 = 0  # 0.0.0.0/0: a member of a oneof is there even when it is 0
    allowed.networks.add().net.ip.ipv6.SetInParent()
    return server
