"""Which services stand where: for members behind the door, for operators there and on the socket of this machine.

A service of another room is one line here. Everything it needs it takes from the parts of the plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshcore.api import admin_pb2_grpc, identity_pb2_grpc, registry_pb2_grpc, trust_pb2_grpc

from .serving.admin import Admin
from .serving.certify import Certify
from .serving.handlers import destination_handlers, discovery_handlers, inbound_handlers, policies_handlers
from .serving.inbound import InboundServerPolicies
from .serving.peers import Peers
from .serving.policies import OutboundPolicies
from .serving.registry import Registry

if TYPE_CHECKING:
    from .server import ControlPlane


def add_for_members(plane: ControlPlane, server: Any, peers: Peers) -> None:
    """What workloads call. Each call finds out who it is from `peers`."""
    identity_pb2_grpc.add_IdentityServicer_to_server(Certify(plane.issuer, peers), server)
    trust_pb2_grpc.add_TrustServicer_to_server(plane.bundles, server)
    policies = OutboundPolicies(plane.destination, plane.view, peers, plane.streams, plane.settings.cluster_domain)
    inbound = InboundServerPolicies(plane.destination, peers, plane.streams)
    server.add_generic_rpc_handlers((
        discovery_handlers(plane.discovery), destination_handlers(plane.destination), policies_handlers(policies), inbound_handlers(inbound),
    ))  # fmt: skip
    plane.observing.serve_proxies(server, peers)
    registry_pb2_grpc.add_RegistryServicer_to_server(Registry(plane.catalogue, peers, plane.streams, plane.departures), server)


def add_for_operators(plane: ControlPlane, server: Any, peers: Peers) -> None:
    """What meshctl calls. Each call is checked against `plane.permissions`."""
    settings = plane.settings
    admin = Admin(
        plane.catalogue,
        plane.view,
        plane.join_tokens,
        peers,
        plane.permissions,
        settings.trust_domain,
        settings.cluster_domain,
        plane.status,
        plane.roots,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
    plane.observing.serve_operators(server, peers)
