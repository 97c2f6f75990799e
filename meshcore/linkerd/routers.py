"""Routers: each with its servers, and how it makes names and binds them."""

from __future__ import annotations

from ..naming import EMPTY_DTAB, Path, check, read_dtab
from .clients import HTTP2_KEYS, read_client
from .identifiers import read_identifier
from .interpreters import read_interpreter
from .place import Place
from .policies import read_policies
from .servers import PORTS, read_server
from .services import read_service
from .settings import Router

PROTOCOLS = ("http", "h2", "thrift", "mux", "thriftmux")
_STREAMED = "bodies are streamed, and cost no memory"
_KIB = 1024


def read_router(place: Place) -> Router | None:
    """None where it cannot be served; why is among the problems then."""
    protocol = place.word("protocol", PROTOCOLS, "")
    if protocol not in PORTS:
        if protocol:
            hint = "take this router out, or let another proxy serve it"
            place.problem(f"{place.noun}: {protocol} is not spoken here", hint, "protocol")
        return None
    label = place.text("label", protocol)
    place.noun = f"router '{label}'"
    dtab = place.naming("dtab", read_dtab, EMPTY_DTAB)
    for fault in check(dtab):
        place.warn(f"'dtab' of {place.noun}: {fault.message}", "dtab")
    servers = tuple(read_server(one, protocol) for one in place.sections("servers", f"server of {place.noun}"))
    if not servers:
        place.problem(f"{place.noun}: nobody can connect", f"set servers: [{{port: {PORTS[protocol]}}}]")
    idle = _cache(place.section("bindingCache")) if place.has("bindingCache") else None
    found = Router(
        label=label,
        protocol=protocol,
        prefix=place.name("dstPrefix", Path.of("svc")),
        dtab=dtab,
        servers=servers,
        identifier=read_identifier(place, protocol),
        interpreter=read_interpreter(place),
        clients=read_policies(place, "client", read_client),
        services=read_policies(place, "service", read_service),
        binding_timeout=place.duration_ms("bindingTimeoutMs") or "10s",
        idle=idle,
        head_bytes=_kib(place, "maxHeadersKB"),
        target_bytes=_kib(place, "maxInitialLineKB"),
        body_bytes=_kib(place, "maxRequestKB"),
    )
    _meaningless(place)
    place.end()
    return found


def _kib(place: Place, key: str) -> int | None:
    found = place.whole(key, 0, 1, 1 << 20) if place.has(key) else 0
    return found * _KIB or None


def _cache(place: Place) -> str | None:
    place.meaningless("all names share one cache, of `limits.max_bound_names`", "paths", "trees", "bounds", "clients")
    idle = place.whole("idleTtlSecs", 0, 1, 86_400) if place.has("idleTtlSecs") else 0
    place.end()
    return f"{idle}s" if idle else None


def _meaningless(place: Place) -> None:
    place.flag("experimental")
    place.flag("originator")
    place.meaningless("nothing is announced from here", "announcers")
    place.meaningless(_STREAMED, "maxResponseKB", "maxChunkKB", "streamAfterContentLengthKB", "maxErrResponseKB")
    if not place.flag("streamingEnabled", True):
        place.warn(f"'streamingEnabled' of {place.noun} has no meaning here: {_STREAMED}", "streamingEnabled")
    place.meaningless("bodies are passed on as they are", "compressionLevel")
    place.meaningless(
        "`meshproxy tap` shows requests", "httpAccessLog", "httpAccessLogRollPolicy", "httpAccessLogAppend",
        "httpAccessLogRotateCount", "h2AccessLog", "h2AccessLogRollPolicy", "h2AccessLogAppend", "h2AccessLogRotateCount",
    )  # fmt: skip
    place.meaningless("traceparent and x-request-id are passed on or begun", "tracePropagator")
    place.meaningless("bounds of HTTP/2 stand in `limits` of the configuration", *HTTP2_KEYS)
    if place.has("loggers"):
        place.problem(f"{place.noun}: requests are not authorized by Istio's mixer here", "take the key out", "loggers")
    timestamps = ("timestampHeader", "addForwardedHeader")
    place.meaningless("it is a key of servers", *timestamps)
