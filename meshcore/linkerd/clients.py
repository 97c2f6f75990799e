"""Client settings, by bound name: balancer, connections, failure accrual, TLS, in words of our clusters."""

from __future__ import annotations

from typing import Any

from ..binder.policies import ClientTls
from ..config import Duration
from .budgets import read_budget
from .place import Place

BALANCERS = {
    "p2c": "least_request",
    "ewma": "peak_ewma",
    "heap": "least_request",
    "aperture": "least_request",
    "roundRobin": "round_robin",
}
ACCRUALS = ("io.l5d.consecutiveFailures", "io.l5d.successRate", "io.l5d.successRateWindowed", "none")
HTTP2_KEYS = ("initialStreamWindowBytes", "windowUpdateRatio", "headerTableBytes", "maxFrameBytes", "maxHeaderListBytes",
              "maxConcurrentStreamsPerConnection")  # fmt: skip
# A rate by time is no judgement on fewer requests: Linkerd, which had no such bound, ejected a quiet endpoint for one failure.
LEAST_WINDOWED = 5
LEAST_PERCENT = 0.0001
_PLAIN_TRIAL = "an endpoint is looked for until one is found that may be used"

# Linkerd's defaults, where they are not ours.
DEFAULTS: dict[str, Any] = {
    "balancer": "least_request",
    "breaker": {"consecutive_failures": 5, "backoff": "5s", "max_backoff": "5m"},
    "retry_budget": {"min_per_second": 10, "ratio_percent": 20, "ttl": "10s"},
    "timeout": 0,
}


def read_client(place: Place) -> dict[str, Any]:
    """The settings that a client's keys make; keys that are not set make none."""
    found: dict[str, Any] = {}
    if place.has("loadBalancer"):
        found |= _balancer(place.section("loadBalancer"))
    if place.has("failureAccrual"):
        found |= _accrual(place.section("failureAccrual"))
    if place.has("hostConnectionPool"):
        found |= _pool(place.section("hostConnectionPool"))
    if place.has("clientSession"):
        found |= _session(place.section("clientSession"))
    if place.has("tls"):
        found["tls"] = read_tls(place.section("tls"))
    if place.has("requeueBudget"):
        found["retry_budget"] = read_budget(place.section("requeueBudget"))
    for key, ours in (("requestAttemptTimeoutMs", "timeout"), ("connectTimeoutMs", "connect_timeout")):
        if (duration := place.duration_ms(key)) is not None:
            found[ours] = duration
    if place.has("failFast") and place.flag("failFast"):
        place.warn(f"'failFast' of {place.noun} has no meaning here: failureAccrual ejects who refuses connections", "failFast")
    if place.has("forwardClientCert") and place.flag("forwardClientCert"):
        place.warn(
            f"'forwardClientCert' of {place.noun} has no meaning here: `tls.forwarded_client_cert` of a listener sets "
            "x-forwarded-client-cert",
            "forwardClientCert",
        )
    for key in ("requestAuthorizers", "loggers"):
        if place.has(key):
            place.problem(f"{place.noun}: requests are not authorized by Istio's mixer here", "take the key out", key)
    place.meaningless("bodies are streamed, whatever their length", "streamAfterContentLengthKB", "maxErrResponseKB")
    place.meaningless("sockets are set up as the engine needs them", "engine", "socketOptions")
    place.meaningless("bounds of HTTP/2 stand in `limits` of the configuration", *HTTP2_KEYS)
    return found


def _balancer(place: Place) -> dict[str, Any]:
    kind = place.word("kind", tuple(BALANCERS), "p2c")
    place.meaningless(_PLAIN_TRIAL, "maxEffort")
    place.meaningless("an endpoint that is removed is let go", "enableProbation")
    if kind == "aperture":
        place.warn(f"{place.noun}: aperture counts as p2c, over all endpoints", "kind")
        place.meaningless("there is no aperture", "smoothWindowMs", "smoothWin", "lowLoad", "highLoad", "minAperture")
    if kind == "heap":
        place.warn(f"{place.noun}: heap counts as p2c, the less loaded of two", "kind")
    decay = place.duration_ms("decayTimeMs") if kind == "ewma" else None
    place.end()
    return {"balancer": BALANCERS[kind], "ewma_decay": decay or "10s"}


def _accrual(place: Place) -> dict[str, Any]:
    kind = place.word("kind", ACCRUALS, "io.l5d.consecutiveFailures")
    breaker: dict[str, Any] = {"backoff": "5s", "max_backoff": "5m"}
    if kind == "none":
        breaker["consecutive_failures"] = 0
    elif kind == "io.l5d.consecutiveFailures":
        breaker["consecutive_failures"] = place.whole("failures", 5, 1, 1_000_000)
    else:
        breaker |= {"consecutive_failures": 0, "success_rate": _success_rate(place, kind)}
    if place.has("backoff"):
        breaker |= read_backoff(place.section("backoff"))
    place.end()
    return {"breaker": breaker}


def _success_rate(place: Place, kind: str) -> dict[str, Any]:
    for key in ("successRate", "window" if kind.endswith("Windowed") else "requests"):
        if not place.has(key):
            place.problem(f"{place.noun}: the key '{key}' is missing", f"{kind} is nothing without it")
    share = place.number("successRate", 0.8, 0.0, 1.0)
    found: dict[str, Any] = {"least_percent": max(round(share * 100, 4), LEAST_PERCENT)}
    if kind.endswith("Windowed"):
        return {**found, "requests": LEAST_WINDOWED, "window": f"{place.whole('window', 10, 1, 86_400)}s"}
    return {**found, "requests": place.whole("requests", 100, 1, 1_000_000)}


def read_backoff(place: Place) -> dict[str, Any]:
    """How long is waited: until an endpoint that was ejected is tried again, or a request is."""
    kind = place.word("kind", ("constant", "jittered"), "jittered")
    if kind == "constant":
        wait = place.duration_ms("ms") or "5s"
        found: dict[str, Any] = {"backoff": wait, "max_backoff": wait, "jitter_percent": 0}
    else:
        least, most = place.duration_ms("minMs") or "5s", place.duration_ms("maxMs") or "5m"
        if Duration(least) > Duration(most):
            place.problem(f"{place.noun}: minMs {least} is longer than maxMs {most}", "exchange them", "minMs")
        found = {"backoff": least, "max_backoff": most, "jitter": "decorrelated"}
    place.end()
    return found


def _pool(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if most := place.whole("maxSize", 0, 1, 10_000_000):
        found["max_connections"] = most
    if (idle := place.duration_ms("idleTimeMs")) is not None:
        found["pool"] = {"idle_timeout": idle}
    if place.has("maxWaiters"):
        found["max_queue"] = place.whole("maxWaiters", 0, 0, 10_000_000)
    if place.whole("minSize", 0):
        place.warn(f"'minSize' of {place.noun} has no meaning here: connections are opened by requests", "minSize")
    place.end()
    return found


def _session(place: Place) -> dict[str, Any]:
    idle = place.duration_ms("idleTimeMs")
    place.meaningless("a connection lives while it is used", "lifeTimeMs")
    place.end()
    return {} if idle is None else {"pool": {"idle_timeout": idle}}


def read_tls(place: Place) -> ClientTls | None:
    """None where it is switched off."""
    is_on = place.flag("enabled", True)
    name = place.text("commonName")
    trust = (*place.texts("trustCerts"), *place.texts("trustCertsBundle"))
    proof = place.section("clientAuth")
    cert, key = proof.text("certPath") or None, proof.text("keyPath") or None
    if proof.values and not (cert and key):
        place.problem(f"{proof.noun}: certPath and keyPath go together", "set both", "clientAuth")
    proof.meaningless("intermediates stand below the certificate, in the file of certPath", "intermediateCertsPath")
    proof.end()
    place.meaningless("TLS 1.2 and 1.3 are spoken, no others", "protocols")
    disabled = place.flag("disableValidation")
    place.end()
    if not is_on:
        return None
    if disabled:
        hint = "set commonName and trustCerts, or take tls out"
        place.problem(f"{place.noun}: nothing is sent to an endpoint that does not prove who it is", hint, "disableValidation")
    elif not name:
        place.problem(f"{place.noun}: nothing says who an endpoint must be", "set commonName: <name>")
    return ClientTls(name, trust, cert, key)
