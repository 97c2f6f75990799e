"""Services put onto a gRPC server. Owns the list; each service is its own file's.

Messages that many streams share are serialized once, by whoever makes them: those methods hand out bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from meshcore.api import destination_pb2, discovery_pb2, inbound_pb2, outbound_pb2

from . import destination, discovery, inbound, policies

Handler = Callable[..., Any]


def discovery_handlers(service: discovery.Discovery) -> grpc.GenericRpcHandler:
    """Discovery."""
    return grpc.method_handlers_generic_handler(
        discovery.SERVICE,
        {
            "Watch": grpc.stream_stream_rpc_method_handler(
                service.Watch, request_deserializer=discovery_pb2.Asked.FromString
            )
        },
    )


def destination_handlers(service: destination.Destination) -> grpc.GenericRpcHandler:
    """Destination."""
    read = destination_pb2.GetDestination.FromString
    return grpc.method_handlers_generic_handler(
        destination.SERVICE,
        {
            "Get": grpc.unary_stream_rpc_method_handler(service.Get, request_deserializer=read),
            "GetProfile": grpc.unary_stream_rpc_method_handler(service.GetProfile, request_deserializer=read),
        },
    )


def policies_handlers(service: policies.OutboundPolicies) -> grpc.GenericRpcHandler:
    """OutboundPolicies."""
    read = outbound_pb2.TrafficSpec.FromString
    return grpc.method_handlers_generic_handler(
        policies.SERVICE,
        {
            "Get": grpc.unary_unary_rpc_method_handler(service.Get, request_deserializer=read),
            "Watch": grpc.unary_stream_rpc_method_handler(service.Watch, request_deserializer=read),
        },
    )


def inbound_handlers(service: inbound.InboundServerPolicies) -> grpc.GenericRpcHandler:
    """InboundServerPolicies."""
    words = {"request_deserializer": inbound_pb2.PortSpec.FromString, "response_serializer": inbound_pb2.Server.SerializeToString}
    return grpc.method_handlers_generic_handler(
        inbound.SERVICE,
        {
            "GetPort": grpc.unary_unary_rpc_method_handler(service.GetPort, **words),
            "WatchPort": grpc.unary_stream_rpc_method_handler(service.WatchPort, **words),
        },
    )
