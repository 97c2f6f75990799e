"""Messages of discovery as plain values: changes applied to what is held of a name. Hostile input is data.

What cannot be meant (no address, port 0, an identity that nobody can prove) is left out and counted, so that one bad entry
does not cost a name its good ones, and is never spoken to in the clear instead.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from .answers import (
    MAX_ENDPOINTS,
    MAX_MATCHES,
    MAX_RULES,
    MAX_SPLITS,
    MAX_WEIGHT,
    Answer,
    Endpoint,
    Endpoints,
    Match,
    Policy,
    Rule,
    Split,
    Traffic,
)

MAX_LABELS = 32
MAX_FIELDS = 16
MAX_LABEL_CHARS = 253
MAX_DIGEST_BYTES = 64
MAX_DAY_MS = 86_400_000
_IDENTITY = re.compile(r"spiffe://[A-Za-z0-9._-]{1,255}(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~A-Za-z0-9-]{1,32}")
_PATH = re.compile(r"/[!-~]{0,2047}")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,256}")
_FIELD_VALUE = re.compile(r"([!-~]([\t -~]{0,1022}[!-~])?)?")
_BALANCERS = ("round_robin", "random", "least_request", "peak_ewma")
_MTLS = ("permissive", "strict", "off")


class Held:
    """What is held of one name, as its changes leave it."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        """None: nothing was ever said."""
        self.refused = 0
        self._endpoints = {} if answer is None else {(one.host, one.port): one for one in answer.endpoints.endpoints}

    def apply(self, change: Any) -> bool:
        """One Change. Whether something is different by it."""
        if change.is_current:
            return False
        before = self.answer or Answer()
        exists = before.endpoints.exists
        if change.is_whole and change.updates:
            self._endpoints.clear()
        for update in change.updates:
            exists = self._update(update, exists)
        endpoints = before.endpoints
        if change.updates:
            endpoints = Endpoints(tuple(self._endpoints[key] for key in sorted(self._endpoints)), exists)
        policy = policy_of(change.policy) if change.HasField("policy") else before.policy
        digest = change.digest if len(change.digest) <= MAX_DIGEST_BYTES else b""
        is_different = self.answer is None or (endpoints, policy) != (before.endpoints, before.policy)
        self.answer = Answer(endpoints, policy, digest)
        return is_different

    def _update(self, update: Any, exists: bool) -> bool:
        kind = update.WhichOneof("update")
        if kind == "add":
            for addr in update.add.addrs:
                endpoint = endpoint_of(addr, update.add.metric_labels)
                key = (endpoint.host, endpoint.port) if endpoint is not None else ("", 0)
                if endpoint is None or (key not in self._endpoints and len(self._endpoints) >= MAX_ENDPOINTS):
                    self.refused += 1
                    self._endpoints.pop(_address(addr.addr) or ("", 0), None)
                    continue
                self._endpoints[key] = endpoint
            return True
        if kind == "remove":
            for addr in update.remove.addrs:
                self._endpoints.pop(_address(addr) or ("", 0), None)
            return exists
        if kind == "no_endpoints":
            self._endpoints.clear()
            return bool(update.no_endpoints.exists)
        return exists


def endpoint_of(addr: Any, shared: Mapping[str, str]) -> Endpoint | None:
    """A WeightedAddr with the labels of its set; None when it is no address, or nobody could prove to be it."""
    place = _address(addr.addr)
    if place is None:
        return None
    identity = ""
    if addr.HasField("tls_identity"):
        identity = addr.tls_identity.uri_like_identity.uri
        if len(identity) > 2048 or _IDENTITY.fullmatch(identity) is None:
            return None
    hint = addr.protocol_hint.WhichOneof("protocol")
    return Endpoint(
        host=place[0],
        port=place[1],
        weight=min(addr.weight or 1, MAX_WEIGHT),  # proto3 cannot tell 0 from nothing: who drains is told as removed
        labels=_labels({**shared, **addr.metric_labels}),
        identity=identity,
        is_opaque=hint == "opaque",
        speaks_http2=hint == "h2",
    )


def _address(addr: Any) -> tuple[str, int] | None:
    if not 1 <= addr.port <= 65_535:
        return None
    kind = addr.ip.WhichOneof("ip")
    if kind == "ipv4":
        return str(ipaddress.IPv4Address(addr.ip.ipv4)), addr.port
    if kind == "ipv6":
        return str(ipaddress.IPv6Address((addr.ip.ipv6.first << 64) | addr.ip.ipv6.last)), addr.port
    return None


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    sound = sorted(key for key, value in labels.items() if key and len(key) <= MAX_LABEL_CHARS and len(value) <= MAX_LABEL_CHARS)
    return {key: labels[key] for key in sound[:MAX_LABELS]}


def policy_of(policy: Any) -> Policy:
    """A whole Policy. What this version does not know is passed over; what it cannot mean is left at its default."""
    return Policy(
        name=policy.fully_qualified_name[:512],
        port=policy.port if policy.port <= 65_535 else 0,
        protocol=policy.protocol[:32] or "detect",
        rules=tuple(rule for one in policy.rules[:MAX_RULES] if (rule := _rule(one)) is not None),
        traffic=_traffic(policy.traffic) if policy.HasField("traffic") else Traffic(),
        identities=tuple(one for one in policy.identities[:MAX_SPLITS] if _IDENTITY.fullmatch(one[:2048])),
        is_endpoint=policy.is_endpoint,
    )


def _rule(rule: Any) -> Rule | None:
    """None for one of which nothing can be matched: it must not become one that matches everything."""
    matches = [_match(match) for match in rule.matches[:MAX_MATCHES]]
    if matches and not any(match is not None for match in matches):
        return None
    splits = [Split(one.path, min(one.weight, MAX_WEIGHT)) for one in rule.splits[:MAX_SPLITS] if 0 < len(one.path) <= 1024]
    retries = rule.retries if rule.HasField("retries") else None
    return Rule(
        name=rule.name[:256],
        hosts=tuple(host.lower() for host in rule.hosts[:MAX_SPLITS] if len(host) <= 255),
        matches=tuple(match for match in matches if match is not None),
        splits=tuple(splits) if any(split.weight for split in splits) else (),
        timeout_ms=min(rule.timeout_ms, MAX_DAY_MS),
        attempts=1 if retries is None else min(retries.attempts, 9),
        retry_on=("unsent",) if retries is None else tuple(word[:32] for word in retries.on[:16]),
        per_try_timeout_ms=0 if retries is None else min(retries.per_try_timeout_ms, MAX_DAY_MS),
    )


def _match(match: Any) -> Match | None:
    for text in (match.path, match.prefix):
        if text and (_PATH.fullmatch(text) is None or "?" in text or "#" in text):
            return None
    methods = tuple(method for method in match.methods[:MAX_MATCHES] if _METHOD.fullmatch(method))
    if (match.path and match.prefix) or (match.methods and not methods) or not _are_fields(match.headers):
        return None
    return Match(match.path, match.prefix, methods, dict(match.headers))


def _are_fields(headers: Mapping[str, str]) -> bool:
    """Whether a request can have them: a condition that is left out would take requests of others."""
    return len(headers) <= MAX_FIELDS and all(
        _FIELD_NAME.fullmatch(name) and name != "host" and _FIELD_VALUE.fullmatch(value) for name, value in headers.items()
    )


def _traffic(traffic: Any) -> Traffic:
    share = traffic.retry_budget if 0.0 <= traffic.retry_budget <= 10.0 else 0.2  # a NaN fails both
    return Traffic(
        balancer=traffic.balancer if traffic.balancer in _BALANCERS else "peak_ewma",
        connect_timeout_ms=min(traffic.connect_timeout_ms, 60_000) or 1_000,
        idle_timeout_ms=min(traffic.idle_timeout_ms, MAX_DAY_MS) or 60_000,
        max_connections=min(traffic.max_connections, 1_000_000) or 1_024,
        max_pending=min(traffic.max_pending, 1_000_000),
        queue_timeout_ms=min(traffic.queue_timeout_ms, 600_000) or 3_000,
        retry_budget=share,
        min_retries_per_s=min(traffic.min_retries_per_s, 1_000_000),
        consecutive_failures=min(traffic.consecutive_failures, 1_000_000),
        backoff_ms=min(traffic.backoff_ms, 3_600_000) or 1_000,
        max_backoff_ms=max(min(traffic.max_backoff_ms, MAX_DAY_MS), min(traffic.backoff_ms, 3_600_000) or 1_000),
        panic_percent=min(traffic.panic_percent, 100),
        mtls=traffic.mtls if traffic.mtls in _MTLS else "permissive",
    )
