"""Tap events and conditions as messages of relay.proto, and back. Hostile bytes are data: what cannot be meant is left empty."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any

from meshcore.api import http_types_pb2, net_pb2, relay_pb2, tap_pb2
from meshcore.api.octets import field, number_field, text_field, varint
from meshcore.taps import TapEvent, TapFilter, tap_filter

_METHODS = dict(http_types_pb2.HttpMethod.Registered.items())
_METHOD_NAMES = {number: name for name, number in _METHODS.items()}
_DIRECTIONS = {"": tap_pb2.TapEvent.UNKNOWN, "in": tap_pb2.TapEvent.INBOUND, "out": tap_pb2.TapEvent.OUTBOUND}
_SCHEMES = tuple(field(3, http_types_pb2.Scheme(registered=one).SerializeToString()) for one in (http_types_pb2.Scheme.HTTP, http_types_pb2.Scheme.HTTPS))
_DIRECTION_NAMES = {number: name for name, number in _DIRECTIONS.items()}
# Where an address has no place in the message: a unix socket, or an endpoint that was never chosen.
ADDRESS_LABEL = "address"


def seen_of(event: TapEvent, direction: str = "") -> bytes:
    """The octets of a `Seen`. direction: stands for the event's own where that has none.

    Octets, not a message: a proxy tells hundreds of them a second beside its traffic, and most parts of one were in the one before.
    """
    exchange = b"\x08" + varint(event.worker) + b"\x10" + varint(event.stream)
    if event.kind in ("req", "open"):
        part = (
            field(1, exchange) + _method(event.method) + _SCHEMES[event.scheme == "https"]
            + text_field(4, event.authority) + text_field(5, event.path) + _headers(6, event.fields)
        )  # fmt: skip
        http = field(1, part)
    elif event.kind == "rsp":
        part = field(1, exchange) + field(2, _duration(event.latency_us)) + number_field(3, event.status) + _headers(4, event.fields)
        http = field(2, part)
    else:
        part = (
            field(1, exchange) + field(2, _duration(event.latency_us + event.duration_us)) + field(3, _duration(event.duration_us))
            + number_field(4, event.response_bytes) + _eos(event)
        )  # fmt: skip
        http = field(3, part)
    told = (
        _side(1, 5, event.src, tuple(event.src_labels.items())) + _side(2, 4, event.dst, tuple(event.dst_labels.items()))
        + _way(event.direction or direction, event.route, event.cluster) + field(3, http)
    )  # fmt: skip
    seen = field(1, told) + b"\x11" + event.time_unix_ns.to_bytes(8, "little")
    if event.reason:
        seen += text_field(3, event.reason)
    if event.request_body or event.response_body:
        seen += text_field(4, event.request_body) + text_field(5, event.response_body)
    if event.tls:
        seen += text_field(6, event.src_id) + b"\x38\x01"  # is_secure
    if event.scheme == "tcp":
        seen += b"\x40\x01" + number_field(9, event.request_bytes)  # is_tcp
    return seen


def event_of(seen: relay_pb2.Seen) -> TapEvent | None:
    """The event in a message; None when it is none that we know."""
    told = seen.event
    kind = told.http.WhichOneof("event") if told.WhichOneof("event") == "http" else None
    if kind is None:
        return None
    part = getattr(told.http, kind)
    common: dict[str, Any] = {
        "worker": part.id.base,
        "stream": part.id.stream,
        "time_unix_ns": seen.time_unix_ns,
        "src": _address(told.source, told.source_meta.labels),
        "dst": _address(told.destination, told.destination_meta.labels),
        "src_labels": _labels(told.source_meta.labels),
        "dst_labels": _labels(told.destination_meta.labels),
        "route": told.route_meta.labels.get("route", ""),
        "cluster": told.route_meta.labels.get("cluster", ""),
        "direction": _DIRECTION_NAMES.get(told.proxy_direction, ""),
        "reason": seen.reason,
        "src_id": seen.source_identity,
        "tls": seen.is_secure,
    }
    if kind == "request_init":
        is_known = part.method.WhichOneof("type") == "registered"
        if seen.is_tcp:
            return TapEvent(kind="open", scheme="tcp", authority=part.authority, **common)
        return TapEvent(
            kind="req",
            method=_METHOD_NAMES.get(part.method.registered, "") if is_known else part.method.unregistered,
            scheme="https" if part.scheme.registered == http_types_pb2.Scheme.HTTPS else "http",
            authority=part.authority,
            path=part.path,
            fields=_fields(part),
            **common,
        )
    if kind == "response_init":
        latency_us = part.since_request_init.ToMicroseconds()
        return TapEvent(kind="rsp", status=part.http_status, latency_us=latency_us, fields=_fields(part), **common)
    end = part.eos.WhichOneof("end")
    return TapEvent(
        kind="end",
        scheme="tcp" if seen.is_tcp else "",
        request_bytes=seen.request_bytes,
        latency_us=part.since_request_init.ToMicroseconds() - part.since_response_init.ToMicroseconds(),
        duration_us=part.since_response_init.ToMicroseconds(),
        response_bytes=part.response_bytes,
        grpc_status=part.eos.grpc_status_code if end == "grpc_status_code" else None,
        reset_error=part.eos.reset_error_code if end == "reset_error_code" else None,
        request_body=seen.request_body,
        response_body=seen.response_body,
        **common,
    )


def ask_of(asked: TapFilter) -> relay_pb2.Ask:
    """The message of a filter."""
    return relay_pb2.Ask(
        method=asked.method,
        scheme=asked.scheme,
        authority=asked.authority,
        path=asked.path,
        to=asked.to,
        to_labels=asked.to_labels,
        route=asked.route,
        status=asked.status,
        min_latency_us=asked.min_latency_us,
        reason=asked.reason,
        headers=asked.headers,
        body_bytes=asked.body,
        max_rps=asked.max_rps,
        **{"from": asked.from_},
    )


def filter_of(ask: relay_pb2.Ask) -> TapFilter:
    """The filter in a message, checked as flags are; TapFilterError."""
    return tap_filter(
        method=ask.method,
        scheme=ask.scheme,
        authority=ask.authority,
        path=ask.path,
        to=ask.to,
        to_labels=dict(ask.to_labels),
        from_=getattr(ask, "from"),
        route=ask.route,
        status=ask.status,
        min_latency=int(ask.min_latency_us),
        reason=ask.reason,
        headers=ask.headers,
        body=int(ask.body_bytes),
        max_rps=ask.max_rps,
    )


@functools.lru_cache(256)
def _method(method: str) -> bytes:
    if method in _METHODS:
        return field(2, b"\x08" + varint(_METHODS[method]))
    return field(2, field(2, method.encode("utf-8", "replace")))


def _headers(number: int, fields: tuple[tuple[str, str], ...]) -> bytes:
    if not fields:
        return b""
    return field(number, b"".join(field(1, text_field(1, name) + field(2, value.encode("latin-1", "replace"))) for name, value in fields))


def _eos(event: TapEvent) -> bytes:
    # A member of a oneof is there even when it is 0.
    if event.grpc_status is not None:
        return field(5, b"\x08" + varint(event.grpc_status))
    return b"" if event.reset_error is None else field(5, b"\x10" + varint(event.reset_error))


def _duration(us: int) -> bytes:
    return number_field(1, us // 1_000_000) + number_field(2, us % 1_000_000 * 1_000)


@functools.lru_cache(4_096)
def _side(number: int, meta: int, text: str, labels: tuple[tuple[str, str], ...]) -> bytes:
    """One side of an exchange: its address, and what is known of it."""
    told = tap_pb2.TapEvent.EndpointMeta(labels=dict(labels))
    address = net_pb2.TcpAddress()
    _put_address(address, told.labels, text)
    return field(number, address.SerializeToString()) + (field(meta, told.SerializeToString()) if told.labels else b"")


@functools.lru_cache(4_096)
def _way(direction: str, route: str, cluster: str) -> bytes:
    labels = {name: word for name, word in (("route", route), ("cluster", cluster)) if word}
    octets: bytes = tap_pb2.TapEvent(
        proxy_direction=_DIRECTIONS[direction], route_meta=tap_pb2.TapEvent.RouteMeta(labels=labels) if labels else None
    ).SerializeToString()
    return octets


def _fields(part: Any) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.value.decode("latin-1")) for field in part.headers.headers)


def _labels(labels: Any) -> dict[str, str]:
    return {name: text for name, text in labels.items() if name != ADDRESS_LABEL}


def _put_address(into: net_pb2.TcpAddress, labels: Any, text: str) -> None:
    host, _, port = text.rpartition(":")
    number = _number(host)
    if number is None or not port.isdigit() or int(port) > 65_535:
        if text:
            labels[ADDRESS_LABEL] = text
        return
    into.port = int(port)
    if ":" in host:
        into.ip.ipv6.first, into.ip.ipv6.last = number >> 64, number & (1 << 64) - 1
    else:
        into.ip.ipv4 = number


@functools.lru_cache(4_096)
def _number(host: str) -> int | None:
    try:
        return int(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _address(told: net_pb2.TcpAddress, labels: Any) -> str:
    kind = told.ip.WhichOneof("ip")
    if kind is None:
        return str(labels.get(ADDRESS_LABEL, ""))
    if kind == "ipv4":
        return f"{ipaddress.IPv4Address(told.ip.ipv4)}:{told.port}"
    return f"[{ipaddress.IPv6Address(told.ip.ipv6.first << 64 | told.ip.ipv6.last)}]:{told.port}"
