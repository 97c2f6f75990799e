"""What may be written into the model, and how a mistake is told: what, where, what it got, what it expected."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import Invalid, Unreadable
from controlplane.model import (
    KINDS,
    Drain,
    Endpoint,
    Match,
    Retries,
    RoutePolicy,
    Rule,
    Service,
    ServicePort,
    Split,
    TrafficPolicy,
    Workload,
    decode,
    encode,
    names,
    read,
)

WEB = Service(
    namespace="shop", name="web", ports=(ServicePort(port=80, protocol="http1", name="http"),), labels={"app": "web"}
)
ONE = Endpoint(
    namespace="shop",
    service="web",
    name="web-1.node",
    address="192.0.2.7",
    port=8080,
    zone="eu-1a",
    identity="spiffe://mesh.example.org/ns/shop/sa/web",
    labels={"example.org/rev": "v1"},
    workload="web-1",
    lease=5,
)
ROUTE = RoutePolicy(
    namespace="shop",
    name="web-routes",
    service="web",
    hosts=("*.shop.example",),
    rules=(
        Rule(
            matches=(Match(prefix="/api", methods=("GET",), headers={"x-user": "a"}),),
            timeout_ms=1000,
            splits=(Split(service="web", weight=90), Split(service="web-next", weight=10)),
            retries=Retries(attempts=2, on=("unsent", "503"), per_try_timeout_ms=300),
        ),
        Rule(),
    ),
)
SOUND = [
    WEB,
    ONE,
    ROUTE,
    Workload(namespace="shop", name="vm-7", account="web", addresses=("2001:db8::1",), node="host.example"),
    TrafficPolicy(namespace="shop", name="web", service="web", retry_budget=0.1),
    Drain(namespace="shop", name="vm-7"),
]


@pytest.mark.parametrize("value", SOUND, ids=lambda value: value.kind)
def test_a_sound_value_comes_back_as_it_was(value):
    assert decode(value.kind, value.key, encode(value)) == value
    assert read(value.kind, msgspec.to_builtins(value)) == value


def test_the_key_of_an_endpoint_lies_below_its_service():
    assert ONE.key == "shop/web/web-1.node" and WEB.key == "shop/web"
    assert set(KINDS) == {"service", "workload", "endpoint", "drain", "route_policy", "traffic_policy"}


@pytest.mark.parametrize(
    ("kind", "plain", "told"),
    [
        (
            "service",
            {"namespace": "Shop", "name": "web"},
            "service 'Shop/web': namespace: got 'Shop'; expected a DNS label",
        ),
        ("service", {"namespace": "shop", "name": "web.x"}, "name: got 'web.x'; expected a DNS label"),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"port": 70000}]},
            "ports[0].port: got 70000; expected a number from 1 to 65535",
        ),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"port": 80}, {"port": 80}]},
            "ports: port 80 stands there twice",
        ),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"port": "80"}]},
            "ports[0].port: got str; expected int",
        ),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"port": 80.5}]},
            "ports[0].port: got float; expected int",
        ),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"port": True}]},
            "ports[0].port: got bool; expected int",
        ),
        ("service", {"namespace": "shop", "name": "web", "ports": [{"port": 10**40}]}, "ports[0].port"),
        (
            "service",
            {"namespace": "shop", "name": "web", "ports": [{"prot": 80, "port": 1}]},
            "ports[0].prot: unknown field; expected one of port",
        ),
        ("service", {"namespace": "shop", "name": "web", "lables": {}}, "lables: unknown field"),
        ("service", {"name": "web"}, "missing required field 'namespace'"),
        ("service", [], "service: got array; expected object"),
        (
            "service",
            {"namespace": "shop", "name": "web", "labels": {"a b": "x"}},
            "labels.a b: got 'a b'; expected a label key",
        ),
        (
            "service",
            {"namespace": "shop", "name": "web", "labels": {"a": "x y"}},
            "labels.a: got 'x y'; expected a label value",
        ),
        (
            "workload",
            {"namespace": "shop", "name": "w", "addresses": ["192.0.2.1", "192.0.2.256"]},
            "addresses[1]: got '192.0.2.256'; expected an IPv4",
        ),
        ("workload", {"namespace": "shop", "name": "w", "addresses": ["fe80::1%eth0"]}, "addresses[0]"),
        (
            "endpoint",
            {"namespace": "shop", "service": "web", "name": "1", "address": "192.0.2.1", "port": 80, "weight": -1},
            "weight: got -1; expected a number from 0",
        ),
        (
            "endpoint",
            {
                "namespace": "shop",
                "service": "web",
                "name": "1",
                "address": "192.0.2.1",
                "port": 80,
                "identity": "spiffe://d/ns/dev/sa/ns/admin/x",
            },
            "identity: got 'spiffe://d/ns/dev/sa/ns/admin/x'; expected spiffe://",
        ),
        (
            "endpoint",
            {
                "namespace": "shop",
                "service": "web",
                "name": "1",
                "address": "192.0.2.1",
                "port": 80,
                "protocol": "spdy",
            },
            "protocol: got 'spdy'; expected one of",
        ),
        (
            "route_policy",
            {"namespace": "a", "name": "b", "service": "c", "rules": [{"splits": [{"service": "x", "weight": 0}]}]},
            "rules[0].splits: every weight is 0",
        ),
        (
            "route_policy",
            {"namespace": "a", "name": "b", "service": "c", "rules": [{"matches": [{"path": "/a", "prefix": "/b"}]}]},
            "rules[0].matches[0].prefix: path and prefix",
        ),
        (
            "route_policy",
            {"namespace": "a", "name": "b", "service": "c", "rules": [{"matches": [{"path": "/a?x"}]}]},
            "rules[0].matches[0].path",
        ),
        (
            "route_policy",
            {"namespace": "a", "name": "b", "service": "c", "rules": [{"retries": {"on": ["always"]}}]},
            "rules[0].retries.on[0]: got 'always'",
        ),
        (
            "route_policy",
            {
                "namespace": "a",
                "name": "b",
                "service": "c",
                "rules": [{"timeout_ms": 10, "retries": {"per_try_timeout_ms": 20}}],
            },
            "rules[0].retries.per_try_timeout_ms: got 20, longer than",
        ),
        ("route_policy", {"namespace": "a", "name": "b", "service": "c", "hosts": ["a.*.c"]}, "hosts[0]"),
        (
            "traffic_policy",
            {"namespace": "a", "name": "b", "service": "c", "connect_timeout_ms": "5s"},
            "connect_timeout_ms: got str; expected int",
        ),
        (
            "traffic_policy",
            {"namespace": "a", "name": "b", "service": "c", "connect_timeout_ms": -1},
            "connect_timeout_ms: got -1",
        ),
        (
            "traffic_policy",
            {"namespace": "a", "name": "b", "service": "c", "connect_timeout_ms": 1e99},
            "connect_timeout_ms",
        ),
        (
            "traffic_policy",
            {"namespace": "a", "name": "b", "service": "c", "retry_budget": float("nan")},
            "retry_budget: got nan; expected a number from 0 to 1",
        ),
        (
            "traffic_policy",
            {"namespace": "a", "name": "b", "service": "c", "breaker": {"panic_percent": 101}},
            "breaker.panic_percent: got 101",
        ),
        ("gateway", {}, "kind 'gateway': unknown; expected one of service"),
    ],
)
def test_a_mistake_is_told_with_its_place(kind, plain, told):
    with pytest.raises(Invalid) as caught:
        read(kind, plain)
    assert told in str(caught.value)
    assert caught.value.problems


def test_all_mistakes_are_told_at_once():
    with pytest.raises(Invalid) as caught:
        encode(Service(namespace="S", name="w_b", ports=(ServicePort(port=0), ServicePort(port=1, protocol="x"))))
    assert [problem.path for problem in caught.value.problems] == [
        ("namespace",),
        ("name",),
        ("name",),
        ("ports", 0, "port"),
        ("ports", 1, "protocol"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        Service(namespace="shop", name="web", ports=(ServicePort(port="80"),)),
        Service(namespace=5, name="web"),
        Service(namespace="shop", name="web", labels={"a": object()}),
        Service(namespace="shop", name="web", ports=[{"port": 0}]),
    ],
)
def test_values_built_in_python_with_wrong_types_are_refused_like_those_from_outside(wrong):
    with pytest.raises(Invalid):
        encode(wrong)


def test_what_another_version_wrote_is_read_as_far_as_it_is_known():
    assert decode("service", "shop/web", b'{"namespace":"shop","name":"web","from_the_future":[1]}') == Service(
        namespace="shop", name="web"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"namespace":"shop","name":"other"}',
        b'{"namespace":1,"name":"web"}',
        b"[" * 100_000,
        b'{"namespace":"shop","name":"web","ports":' + b"[" * 50_000,
    ],
)
def test_what_cannot_be_read_is_said_to_be_unreadable(data):
    with pytest.raises(Unreadable, match="shop/web"):
        decode("service", "shop/web", data)
    with pytest.raises(Unreadable):
        decode("unheard_of", "shop/web", b"{}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["namespace", "name", "ports", "port", "rules", "matches", "labels", "service", "x"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    ),
    st.sampled_from(sorted(KINDS)),
)
def test_anything_at_all_is_a_value_or_a_told_mistake(plain, kind):
    try:
        value = read(kind, plain)
    except Invalid as invalid:
        assert invalid.problems and all(problem.message for problem in invalid.problems)
    else:
        assert decode(kind, value.key, encode(value)) == value


@given(st.text(max_size=300))
def test_names_have_no_room_for_anything_else(text):
    if (
        names.is_label(text)
        or names.is_name(text)
        or names.is_label_key(text)
        or names.is_label_value(text)
        or names.is_host(text)
    ):
        assert text.isascii() and not set(text) & set(" \n\r\t\0\"'%\\:@?#")
        assert ".." not in text or names.is_label_value(text) or names.is_label_key(text)
