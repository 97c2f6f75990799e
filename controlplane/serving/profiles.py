"""linkerd's DestinationProfile of a name. Pure. It can say less than our policy: no headers, and splits for all routes.

Rules whose matches need a header are left out: their requests are treated as if no rule were there. Splits are those of
the first rule that takes every request.
"""

from __future__ import annotations

import re
from typing import Any

from meshcore.api import destination_pb2, http_types_pb2, meta_pb2

from ..resolve import Address, Subject

METHODS = {name: number for name, number in http_types_pb2.HttpMethod.Registered.items()}
RETRY_BUDGET_TTL_S = 10


def profile_of(subject: Subject, policy: Any) -> Any:
    """The profile, whether the name exists or not: linkerd's proxies ask for both."""
    profile = destination_pb2.DestinationProfile(fully_qualified_name=policy.fully_qualified_name)
    if not policy.fully_qualified_name:
        return profile
    profile.opaque_protocol = policy.protocol in ("tcp", "opaque")
    profile.retry_budget.retry_ratio = policy.traffic.retry_budget
    profile.retry_budget.min_retries_per_second = policy.traffic.min_retries_per_s
    profile.retry_budget.ttl.FromSeconds(RETRY_BUDGET_TTL_S)
    profile.parent_ref.resource.MergeFrom(_service(policy))
    for rule in policy.rules:
        profile.routes.extend(_routes(rule))
        if rule.splits and not rule.matches and not profile.dst_overrides:
            for split in rule.splits:
                authority = f"{split.path.partition(':')[0]}.{_domain(policy)}:{split.path.rpartition(':')[2]}"
                profile.dst_overrides.add(authority=authority, weight=split.weight)
    if isinstance(subject.target, Address) and policy.is_endpoint:
        for octets in subject.state.endpoints.values():
            found = destination_pb2.WeightedAddrSet.FromString(octets)
            profile.endpoint.MergeFrom(found.addrs[0])
    return profile


def _domain(policy: Any) -> str:
    return str(policy.fully_qualified_name).split(".svc.", 1)[1]


def _service(policy: Any) -> Any:
    return meta_pb2.Resource(
        group="core", kind="Service", name=policy.service, namespace=policy.namespace, port=policy.port
    )


def _routes(rule: Any) -> list[Any]:
    routes = []
    for match in rule.matches or [None]:
        if match is not None and match.headers:
            continue
        route = destination_pb2.Route(is_retryable=rule.retries.attempts > 0, metrics_labels={"route": rule.name})
        route.condition.MergeFrom(_condition(match))
        if rule.timeout_ms:
            route.timeout.FromMilliseconds(rule.timeout_ms)
        route.response_classes.add(
            condition=destination_pb2.ResponseMatch(status=destination_pb2.HttpStatusRange(min=500, max=599)),
            is_failure=True,
        )
        routes.append(route)
    return routes


def _condition(match: Any) -> Any:
    if match is None or not (match.path or match.prefix or match.methods):
        return destination_pb2.RequestMatch(path=destination_pb2.PathMatch(regex=".*"))
    parts = []
    if match.path:
        parts.append(_path(re.escape(match.path)))
    elif match.prefix:
        stem = match.prefix.rstrip("/")
        parts.append(_path(f"{re.escape(stem)}(/.*)?"))
    if match.methods:
        methods = [destination_pb2.RequestMatch(method=_method(name)) for name in match.methods]
        alternatives = destination_pb2.RequestMatch.Seq(matches=methods)
        parts.append(methods[0] if len(methods) == 1 else destination_pb2.RequestMatch(any=alternatives))
    if len(parts) == 1:
        return parts[0]
    return destination_pb2.RequestMatch(all=destination_pb2.RequestMatch.Seq(matches=parts))


def _path(regex: str) -> Any:
    return destination_pb2.RequestMatch(path=destination_pb2.PathMatch(regex=regex))


def _method(name: str) -> Any:
    if name in METHODS:
        return http_types_pb2.HttpMethod(registered=METHODS[name])
    return http_types_pb2.HttpMethod(unregistered=name)
