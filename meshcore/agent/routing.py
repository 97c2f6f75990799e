"""Rules of which the first that matches decides, as routes of which the most specific does. Pure.

The control plane's rules are a list; a proxy finds a route by the longest path. Both agree when every region of paths has
its own routes, in the order of the rules that cover it: for each path or prefix that any rule names, the routes are those of
all rules whose own path contains it, up to the first that takes every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from meshcore.config import Match as RouteMatch
from meshcore.config import Retries, Route
from meshcore.config import Split as RouteSplit

from .answers import Match, Policy, Rule

MAX_ROUTES = 1_000
MAX_ATTEMPTS = 10
NO_LIMIT = "0"
# What clients wait for is theirs to say: nothing is cut that they would have waited for.
IDLE = "1h"
# The model's words for what may be sent again, as the proxy's. A word that is missing here is not repeated.
RETRY_ON = {"unsent": ("connect_failure", "reset")} | {
    word: (word,) for word in ("502", "503", "504", "cancelled", "deadline_exceeded", "resource_exhausted", "unavailable")
}


class Region(NamedTuple):
    """Paths: one (`is_prefix` false), or all at and below one."""

    path: str
    is_prefix: bool

    def contains(self, other: Region) -> bool:
        if not self.is_prefix:
            return self == other
        below = self.path.rstrip("/") + "/"
        return self.path == other.path or self.path == "/" or other.path.startswith(below)


EVERYTHING = Region("/", True)
# Where no rule says anything. A sidecar answers 502 for its application that just died, and 503 while it leaves: another
# endpoint can answer, and only what is idempotent is asked again, within the cluster's budget.
UNRULED = Rule(attempts=2, retry_on=("unsent", "502", "503"))


def routes_of(policy: Policy, host: str, target: str, target_of: Callable[[str], str]) -> tuple[Route, ...]:
    """The routes of one name. `target`: the cluster of the name itself; `target_of(path)`: that of another name."""
    rules = [rule for rule in policy.rules if _takes_host(rule, host)]
    named = {_region(match): None for rule in rules for match in rule.matches}
    regions = sorted(named | {EVERYTHING: None}, key=lambda region: -len(region.path))
    routes: list[Route] = []
    for region in regions:
        routes += _of_region(region, rules, target, target_of)
        if len(routes) > MAX_ROUTES:
            break
    return tuple(routes[:MAX_ROUTES])


def _of_region(
    region: Region, rules: Sequence[Rule], target: str, target_of: Callable[[str], str]
) -> Iterable[Route]:
    for rule in rules:
        for match in rule.matches or (Match(),):
            if not _region(match).contains(region):
                continue
            yield _route(region, match, rule, target, target_of)
            if not match.methods and not match.headers:
                return
    yield _route(region, Match(), UNRULED, target, target_of)


def _route(
    region: Region, asked: Match, rule: Rule, target: str, target_of: Callable[[str], str]
) -> Route:
    place = {"prefix": region.path} if region.is_prefix else {"path": region.path}
    match = RouteMatch(**place, methods=asked.methods, headers=asked.headers)
    shares: dict[str, int] = {}
    for share in rule.splits:
        shares[target_of(share.path)] = shares.get(target_of(share.path), 0) + share.weight
    split = [RouteSplit(cluster=cluster, weight=weight) for cluster, weight in shares.items()]
    where: dict[str, Any] = {"split": split} if split else {"to": target}
    return Route(
        name=rule.name,
        match=match,
        **where,
        timeout=f"{rule.per_try_timeout_ms}ms" if rule.per_try_timeout_ms else NO_LIMIT,
        total_timeout=f"{rule.timeout_ms}ms" if rule.timeout_ms else NO_LIMIT,
        idle_timeout=IDLE,
        retries=_retries(rule),
    )


def _retries(rule: Rule) -> Retries:
    on = dict.fromkeys(word for asked in rule.retry_on for word in RETRY_ON.get(asked, ()))
    if not rule.attempts or not on:
        return Retries(max_attempts=1)
    return Retries(max_attempts=min(rule.attempts + 1, MAX_ATTEMPTS), on=list(on))


def _region(match: Match) -> Region:
    return Region(match.path, False) if match.path else Region(match.prefix.rstrip("/") or "/", True)


def _takes_host(rule: Rule, host: str) -> bool:
    return not rule.hosts or any(
        host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[2:]) for pattern in rule.hosts
    )
