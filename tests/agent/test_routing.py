"""Rules in order against routes by the longest path: the engine's own table must decide as a list of rules would."""

import random

import pytest

from meshcore.agent.answers import Match, Policy, Rule, Split
from meshcore.agent.routing import routes_of
from meshcore.cli.explain import find

PATHS = ("/", "/a", "/a/b", "/a/b/c", "/ab", "/x")
METHODS = ("GET", "POST", "PUT")
FIELDS = (("x-canary", "1"), ("x-user", "ann"))


def first_rule(policy: Policy, path: str, method: str, fields=()) -> str:
    """The slow oracle: the first rule with a match, or none."""
    for rule in policy.rules:
        for match in rule.matches or (Match(),):
            prefix = match.prefix.rstrip("/")
            if match.path and path != match.path:
                continue
            if prefix and not (path == prefix or path.startswith(prefix + "/")):
                continue
            if match.methods and method not in match.methods:
                continue
            if not set(match.headers.items()) <= set(fields):
                continue
            return rule.name
    return ""


def any_policy(rng: random.Random) -> Policy:
    rules = []
    for number in range(rng.randrange(1, 6)):
        matches = []
        for _ in range(rng.randrange(0, 3)):
            where = rng.choice(PATHS)
            methods = tuple(rng.sample(METHODS, rng.randrange(0, 3)))
            kind = "path" if rng.random() < 0.4 else "prefix"
            headers = dict(rng.sample(FIELDS, rng.choice((0, 0, 1, 2))))
            matches.append(Match(**{kind: where}, methods=methods, headers=headers))
        rules.append(Rule(name=f"rule-{number}", matches=tuple(matches)))
    return Policy(rules=tuple(rules))


def test_any_rules_decide_as_a_list_would(rng):
    for _ in range(400):
        policy = any_policy(rng)
        routes = list(routes_of(policy, "web.shop", "web", str))
        for path in (*PATHS, "/a/", "/a/b/d", "/abc", "/x/y", "/y"):
            for method in METHODS:
                for fields in ((), FIELDS[:1], FIELDS):
                    found = find(routes, "web.shop", path, method, fields)
                    assert found is not None
                    assert found.name == first_rule(policy, path, method, fields), (policy, path, method, fields)


def test_a_rule_for_another_host_takes_nothing():
    rules = (
        Rule(name="other", hosts=("*.example.org",)),
        Rule(name="mine", hosts=("nobody.test", "web.shop")),
    )
    routes = list(routes_of(Policy(rules=rules), "web.shop", "web", str))
    assert find(routes, "web.shop", "/", "GET").name == "mine"
    assert {route.name for route in routes} == {"mine"}


def test_a_wildcard_host_takes_what_lies_below_it():
    rules = (Rule(name="below", hosts=("*.shop",)),)
    assert routes_of(Policy(rules=rules), "web.shop", "web", str)[0].name == "below"
    assert routes_of(Policy(rules=rules), "shop", "web", str)[0].name == ""


def test_splits_timeouts_and_retries_are_those_of_the_rule():
    rule = Rule(
        name="canary",
        splits=(Split("web.shop:80", 9), Split("next.shop:80", 1), Split("web.shop:80", 1)),
        timeout_ms=1500, per_try_timeout_ms=300, attempts=2, retry_on=("unsent", "503", "something-new"),
    )  # fmt: skip
    route = routes_of(Policy(rules=(rule,)), "web.shop", "web", lambda path: path.partition(".")[0])[0]
    assert route.to is None and {split.cluster: split.weight for split in route.split} == {"web": 10, "next": 1}
    assert (str(route.total_timeout), str(route.timeout)) == ("1500ms", "300ms")
    assert route.retries.max_attempts == 3 and list(route.retries.on) == ["connect_failure", "reset", "503"]


def test_a_rule_without_attempts_never_repeats():
    route = routes_of(Policy(rules=(Rule(name="once", attempts=0),)), "web.shop", "web", str)[0]
    assert route.retries.max_attempts == 1


def test_where_nobody_said_anything_a_member_that_just_left_is_asked_elsewhere():
    route = routes_of(Policy(), "web.shop", "web", str)[0]
    assert (route.to, route.retries.max_attempts) == ("web", 3)
    assert list(route.retries.on) == ["connect_failure", "reset", "502", "503"]
    assert str(route.timeout) == "0s" or not route.timeout.seconds


def test_a_policy_of_the_largest_size_stays_within_bounds():
    rules = tuple(
        Rule(name=f"rule-{number}", matches=tuple(Match(prefix=f"/{number}/{part}") for part in range(16))) for number in range(128)
    )
    assert len(routes_of(Policy(rules=rules), "web.shop", "web", str)) <= 1_000 * 3


@pytest.mark.parametrize("prefix", ["/", ""])
def test_a_rule_for_everything_takes_everything(prefix):
    routes = list(routes_of(Policy(rules=(Rule(name="all", matches=(Match(prefix=prefix),)),)), "web.shop", "web", str))
    assert find(routes, "web.shop", "/any", "DELETE").name == "all"
