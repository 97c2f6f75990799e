"""Tap events and conditions as messages of relay.proto, and back. Hostile bytes are data: what cannot be meant is left empty."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any

from meshcore.api import http_types_pb2, net_pb2, relay_pb2, tap_pb2
from meshcore.taps import TapEvent, TapFilter, tap_filter

_METHODS = dict(http_types_pb2.HttpMethod.Registered.items())
_METHOD_NAMES = {number: name for name, number in _METHODS.items()}
_DIRECTIONS = {"": tap_pb2.TapEvent.UNKNOWN, "in": tap_pb2.TapEvent.INBOUND, "out": tap_pb2.TapEvent.OUTBOUND}
_DIRECTION_NAMES = {number: name for name, number in _DIRECTIONS.items()}
# Where an address has no place in the message: a unix socket, or an endpoint that was never chosen.
ADDRESS_LABEL = "address"


def seen_of(event: TapEvent) -> relay_pb2.Seen:
    """The message of an event."""
    seen = relay_pb2.Seen(time_unix_ns=event.time_unix_ns)
    told = seen.event
    if event.direction:
        told.proxy_direction = _DIRECTIONS[event.direction]
    _put_address(told.source, told.source_meta.labels, event.src)
    _put_address(told.destination, told.destination_meta.labels, event.dst)
    if event.src_labels:
        told.source_meta.labels.update(event.src_labels)
    if event.dst_labels:
        told.destination_meta.labels.update(event.dst_labels)
    for name, word in (("route", event.route), ("cluster", event.cluster)):
        if word:
            told.route_meta.labels[name] = word
    if event.kind in ("req", "open"):
        begin = told.http.request_init
        if event.method in _METHODS:
            begin.method.registered = _METHODS[event.method]
        else:
            begin.method.unregistered = event.method
        begin.scheme.registered = http_types_pb2.Scheme.HTTPS if event.scheme == "https" else http_types_pb2.Scheme.HTTP
        begin.authority, begin.path = event.authority, event.path
        _put_fields(begin, event)
        begin.id.base, begin.id.stream = event.worker, event.stream
    elif event.kind == "rsp":
        answer = told.http.response_init
        answer.http_status = event.status
        _put_us(answer.since_request_init, event.latency_us)
        _put_fields(answer, event)
        answer.id.base, answer.id.stream = event.worker, event.stream
    else:
        end = told.http.response_end
        end.response_bytes = event.response_bytes
        _put_us(end.since_request_init, event.latency_us + event.duration_us)
        _put_us(end.since_response_init, event.duration_us)
        if event.grpc_status is not None:
            end.eos.grpc_status_code = event.grpc_status
        elif event.reset_error is not None:
            end.eos.reset_error_code = event.reset_error
        end.id.base, end.id.stream = event.worker, event.stream
    if event.reason:
        seen.reason = event.reason
    if event.request_body or event.response_body:
        seen.request_body, seen.response_body = event.request_body, event.response_body
    if event.tls:
        seen.source_identity, seen.is_secure = event.src_id, True
    if event.scheme == "tcp":
        seen.is_tcp, seen.request_bytes = True, event.request_bytes
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


def _put_fields(part: Any, event: TapEvent) -> None:
    for name, value in event.fields:
        part.headers.headers.add(name=name, value=value.encode("latin-1", "replace"))


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


def _put_us(into: Any, us: int) -> None:
    into.seconds, into.nanos = us // 1_000_000, us % 1_000_000 * 1_000


def _address(told: net_pb2.TcpAddress, labels: Any) -> str:
    kind = told.ip.WhichOneof("ip")
    if kind is None:
        return str(labels.get(ADDRESS_LABEL, ""))
    if kind == "ipv4":
        return f"{ipaddress.IPv4Address(told.ip.ipv4)}:{told.port}"
    return f"[{ipaddress.IPv6Address(told.ip.ipv6.first << 64 | told.ip.ipv6.last)}]:{told.port}"
