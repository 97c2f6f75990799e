"""Service settings, by logical name: retries, what may be repeated, the time a request has, in words of our routes."""

from __future__ import annotations

from typing import Any

from ..config import Duration
from .budgets import read_budget
from .clients import read_backoff
from .place import Place

UNSENT = ["connect_failure", "reset"]
FAILED = [*UNSENT, "502", "503", "504"]
# Kind -> what is repeated. Ours never repeats a POST that may have been seen.
CLASSIFIERS = {
    "io.l5d.http.nonRetryable5XX": UNSENT,
    "io.l5d.http.retryableRead5XX": FAILED,
    "io.l5d.http.retryableIdempotent5XX": FAILED,
    "io.l5d.http.retryableAll5XX": FAILED,
    "io.l5d.http.allSuccessful": UNSENT,
    "io.l5d.h2.nonRetryable5XX": UNSENT,
    "io.l5d.h2.retryableRead5XX": FAILED,
    "io.l5d.h2.retryableIdempotent5XX": FAILED,
    "io.l5d.h2.retryableAll5XX": FAILED,
    "io.l5d.h2.allSuccessful": UNSENT,
    "io.l5d.h2.grpc.default": UNSENT,
    "io.l5d.h2.grpc.compliant": UNSENT,
    "io.l5d.h2.grpc.alwaysRetryable": UNSENT,
    "io.l5d.h2.grpc.neverRetryable": [],
    "io.l5d.h2.grpc.retryableStatusCodes": UNSENT,
}
# Linkerd repeats while the budget lasts; more than the most we allow would be another endpoint's failure each time.
MOST_ATTEMPTS = 10


def read_service(place: Place) -> dict[str, Any]:
    """The settings that a service's keys make; keys that are not set make none."""
    found: dict[str, Any] = {}
    if place.has("retries"):
        found |= _retries(place.section("retries"))
    if place.has("responseClassifier"):
        found["retries"] = _classifier(place.section("responseClassifier"))
    if (total := place.duration_ms("totalTimeoutMs")) is not None:
        found["total_timeout"] = total
    place.meaningless("whether to repeat is decided when the head comes", "classificationTimeoutMs", "retryBufferSize")
    return found


def _retries(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if place.has("budget"):
        found["retry_budget"] = read_budget(place.section("budget"))
    if place.has("backoff"):
        found["retry_backoff"] = _backoff(place.section("backoff"))
    place.end()
    return found


def _backoff(place: Place) -> dict[str, Any]:
    """As an ejection's, within what a client may wait for."""
    found = read_backoff(place)
    for key, least, most in (("backoff", "2ms", "1m"), ("max_backoff", "2ms", "10m")):
        wanted = Duration(found[key])
        found[key] = min(max(wanted, Duration(least)), Duration(most))
        if found[key] != wanted:
            place.warn(f"{place.noun}: a retry waits from 2ms to 1m, and 10m in the end; {wanted} counts as {found[key]}")
    return {**found, "backoff": str(found["backoff"]), "max_backoff": str(found["max_backoff"])}


def _classifier(place: Place) -> dict[str, Any]:
    kind = place.word("kind", tuple(CLASSIFIERS), "io.l5d.http.nonRetryable5XX")
    on = CLASSIFIERS[kind]
    if kind.endswith("retryableAll5XX"):
        place.warn(f"{place.noun}: POST and PATCH that may have been seen are not repeated", "kind")
    elif ".grpc." in kind and kind.rpartition(".")[2] in ("alwaysRetryable", "retryableStatusCodes", "default"):
        place.warn(f"{place.noun}: a call is repeated where it is certain that nobody has seen it, whatever its status", "kind")
    place.meaningless("what is repeated is decided by what was sent", "retryableStatusCodes", "successStatusCodes")
    place.end()
    return {"on": list(on), "max_attempts": MOST_ATTEMPTS if on else 1}
