"""Why a name is answered as it is: its service, the policies in their order, each endpoint and where it comes from. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..model import Endpoint
from ..model.files import plain
from ..resolve import Address, Foreign, Name, Target, View
from ..resolve.endpoints import endpoint_at, endpoints_of
from ..resolve.policy import port_of, rules_of, traffic_of


def explain(target: Target, view: View, trust_domain: str) -> dict[str, Any]:
    """Plain values for JSON and for people."""
    if isinstance(target, Foreign):
        return {"asked": str(target), "means": "a host outside the mesh: proxies ask DNS, or go where the client went"}
    if isinstance(target, Address):
        return _at(target, view, trust_domain)
    return _named(target, view, trust_domain)


def _at(target: Address, view: View, trust_domain: str) -> dict[str, Any]:
    for value in view.index.at(target.ip):
        if value.kind == "service":
            found = _named(Name(value.namespace, value.name, target.port), view, trust_domain)
            return {**found, "asked": str(target), "means": f"the virtual address of {found['means']}"}
    endpoint = endpoint_at(target, view.index, trust_domain)
    if endpoint is None:
        return {"asked": str(target), "means": "an address that nobody of the mesh has"}
    return {
        "asked": str(target),
        "means": "one endpoint",
        "namespace": endpoint.namespace,
        "endpoints": [_endpoint(endpoint, view)],
    }


def _named(name: Name, view: View, trust_domain: str) -> dict[str, Any]:
    entry = view.index.service((name.namespace, name.service))
    service = entry.service if entry is not None else None
    port = port_of(service, name.port)
    subject = view.look(name)
    found: dict[str, Any] = {
        "asked": str(name),
        "means": f"service {name.namespace}/{name.service}, port {name.port}",
        "namespace": name.namespace,
        "exists": entry is not None and entry.exists,
        "position": str(view.position),
        "service": plain(service) if service is not None else None,
        "protocol": port.protocol if port is not None else None,
        "watchers": len(subject.watchers),
        "keeps_last_endpoints": subject.is_holding,
        "endpoints": [_endpoint(one, view) for one in endpoints_of(name, entry, trust_domain)],
        "rules": [
            {"policy": f"{policy.namespace}/{policy.name}", "number": index, **plain_rule(rule)}
            for policy, index, rule in rules_of(entry)
        ],
        "traffic": {**plain(traffic_of(entry)), "is_default": entry is None or not entry.traffic},
    }
    if port is None:
        found["why_empty"] = f"the service has no port {name.port}"
    elif not found["exists"]:
        found["why_empty"] = "there is no such service, and no endpoint of it"
    elif not found["endpoints"]:
        found["why_empty"] = "no endpoint is registered, and its selector takes no workload that has an address"
    return found


def plain_rule(rule: Any) -> dict[str, Any]:
    """A rule as files have it."""
    made: dict[str, Any] = msgspec.to_builtins(rule)
    return made


def _endpoint(endpoint: Endpoint, view: View) -> dict[str, Any]:
    entry = view.index.service((endpoint.namespace, endpoint.service))
    is_registered = entry is not None and endpoint.name in entry.endpoints
    return {
        **plain(endpoint),
        "from": "registered" if is_registered else "a workload that the service's selector takes",
        "takes_requests": endpoint.weight > 0 and endpoint.workload not in view.index.drained.get(endpoint.namespace, ()),
        "tls": "mTLS" if endpoint.identity else "plain",
    }
