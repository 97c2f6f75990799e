"""Names, the model in memory, and what is told of each name: against slow oracles, over random histories."""

from __future__ import annotations

import random

import pytest

from controlplane.model import (
    Change,
    Changes,
    Drain,
    Endpoint,
    Entry,
    Position,
    RoutePolicy,
    Rule,
    Service,
    ServicePort,
    Snapshot,
    Split,
    TrafficPolicy,
    Workload,
)
from controlplane.resolve import Address, Foreign, Index, Malformed, Name, View, parse
from controlplane.resolve.endpoints import endpoints_of
from meshcore.api import destination_pb2, discovery_pb2
from tests.controlplane.members import DOMAIN, address_text

DOMAIN_OF_CLUSTER = "cluster.local"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("web.shop", Name("shop", "web", 80)),
        ("WEB.Shop.svc", Name("shop", "web", 80)),
        ("web.shop.svc.cluster.local:8080", Name("shop", "web", 8080)),
        ("web.shop.svc.cluster.local.", Name("shop", "web", 80)),
        ("web", Name("mine", "web", 80)),
        ("web:81", Name("mine", "web", 81)),
        ("192.0.2.7:80", Address("192.0.2.7", 80)),
        ("192.0.2.7", Address("192.0.2.7", 80)),
        ("[2001:db8::7]:443", Address("2001:db8::7", 443)),
        ("[2001:DB8:0::7]", Address("2001:db8::7", 80)),
        ("www.example.org", Foreign("www.example.org", 80)),
        ("a_b.shop", Foreign("a_b.shop", 80)),
        ("x.web.shop.svc.cluster.local", Foreign("x.web.shop.svc.cluster.local", 80)),
    ],
)
def test_a_path_means_one_thing(path, meant):
    assert parse(path, "mine", DOMAIN_OF_CLUSTER) == meant


@pytest.mark.parametrize(
    "path",
    ["", ":", "web:", "web:0", "web:65536", "web:80:80", "web:-1", "web: 80", "web:٨٠", "[::1", "[::1]80", "[]:80", "2001:db8::7",
     "a..b", ".", "-a.shop", "a b", "web\n", "x" * 64, "a." * 200, "😀.shop", "web\x00.shop", "[fe80::1%eth0]:80"],
)  # fmt: skip
def test_what_means_nothing_is_refused_with_a_reason(path):
    with pytest.raises(Malformed) as error:
        parse(path, "mine", DOMAIN_OF_CLUSTER)
    assert str(error.value) and str(error.value).isascii() or "…" in str(error.value)


class Catalogue:
    """Stands in for nothing: the view is fed by hand here."""


def view() -> View:
    return View(Catalogue(), DOMAIN, DOMAIN_OF_CLUSTER)


class Seeing:
    """A watcher that does what a proxy does: it applies what it is told to what it has."""

    def __init__(self, view: View, target) -> None:
        self.endpoints: dict[str, bytes] = {}
        self.exists: bool | None = None
        self.policy = b""
        self.told = None
        self.subject = view.begin(target, self)
        self.is_due = True

    def changed(self, subject) -> None:
        self.is_due = True

    def read(self) -> None:
        octets = self.subject.change(self.told)
        self.told = self.subject.state
        self.is_due = False
        change = discovery_pb2.Change.FromString(octets)
        if change.is_whole:
            self.endpoints = {}
        for update in change.updates:
            what = update.WhichOneof("update")
            if what == "no_endpoints":
                self.endpoints, self.exists = {}, update.no_endpoints.exists
            elif what == "add":
                self.exists = True
                self.endpoints |= {address_text(one.addr): one.SerializeToString(deterministic=True) for one in update.add.addrs}
            else:
                for addr in update.remove.addrs:
                    del self.endpoints[address_text(addr)]
        if change.HasField("policy"):
            self.policy = change.policy.SerializeToString(deterministic=True)


NAMESPACES, SERVICES = ("shop", "ops"), ("web", "db")


def a_value(rng: random.Random):
    namespace, service = rng.choice(NAMESPACES), rng.choice(SERVICES)
    kind = rng.randrange(9)
    ip = f"192.0.2.{rng.randrange(6)}"
    if kind == 0:
        ports = () if rng.random() < 0.5 else (ServicePort(port=80, target_port=rng.choice((0, 8080))),)
        selector = {} if rng.random() < 0.5 else {"app": rng.choice("ab")}
        addresses = () if rng.random() < 0.7 else ("198.51.100.1",)
        return Service(namespace=namespace, name=service, ports=ports, selector=selector, addresses=addresses)
    if kind == 1:
        labels = {"app": rng.choice("abc")}
        return Workload(namespace=namespace, name=f"m-{rng.randrange(3)}", labels=labels, addresses=(ip,))
    if kind == 2:
        rules = (Rule(splits=(Split(service=rng.choice(SERVICES), weight=rng.randrange(1, 5)),)),)
        return RoutePolicy(namespace=namespace, name=f"r-{rng.randrange(2)}", service=service, rules=rules)
    if kind == 3:
        words = {"when_empty": rng.choice(("keep", "drain")), "mtls": rng.choice(("permissive", "off"))}
        return TrafficPolicy(namespace=namespace, name=f"t-{rng.randrange(2)}", service=service, **words)
    if kind == 4:
        return Drain(namespace=namespace, name=f"m-{rng.randrange(3)}")
    return Endpoint(
        namespace=namespace,
        service=service,
        workload=rng.choice(("", "m-0", "m-1")),
        name=f"e-{rng.randrange(4)}",
        address=ip,
        port=rng.choice((8080, 8081)),
        weight=rng.choice((0, 100, 100, 50)),
        service_port=rng.choice((0, 80, 81)),
        identity=rng.choice(("", f"spiffe://{DOMAIN}/ns/shop/sa/web")),
    )


TARGETS = [Name(namespace, service, port) for namespace in NAMESPACES for service in SERVICES for port in (80, 81)]
TARGETS += [Address(f"192.0.2.{number}", 8080) for number in range(6)] + [Address("198.51.100.1", 80)]


@pytest.mark.parametrize("seed", range(25))
def test_watchers_in_step_late_and_fresh_ones_end_with_the_same_truth(seed):
    rng = random.Random(seed)
    there: dict[tuple[str, str], object] = {}
    kept = view()
    seeing = [Seeing(kept, target) for target in TARGETS for _ in range(2)]
    for revision in range(1, 120):
        value = a_value(rng)
        place = (value.kind, value.key)
        is_gone = place in there and rng.random() < 0.4
        there.pop(place, None) if is_gone else there.__setitem__(place, value)
        position = Position("0" * 16, revision)
        if rng.random() < 0.1:
            entries = tuple(Entry(kind, key, one, 1) for (kind, key), one in there.items())
            event = Snapshot(position, entries)
        else:
            event = Changes(position, (Change(revision, *place, None if is_gone else value),))
        kept._take(kept.layers.from_store(event))
        for one in seeing:
            # Every second one reads at once, the others now and then: they are told differences over many states.
            if one.is_due and (seeing.index(one) % 2 == 0 or rng.random() < 0.1):
                one.read()
    oracle = Index()
    oracle.feed(Snapshot(position, tuple(Entry(kind, key, one, 1) for (kind, key), one in there.items())))
    for one in seeing:
        if one.is_due:
            one.read()
        target = one.subject.target
        assert one.policy == one.subject.state.policy
        if isinstance(target, Name):
            entry = oracle.service((target.namespace, target.service))
            wanted = {f"{end.address}:{end.port}" for end in endpoints_of(target, entry, DOMAIN)
                          if end.weight and ("drain", f"{end.namespace}/{end.workload}") not in there}
            # Two that claim one address are one; which counts is the order of names, in both.
            assert set(one.endpoints) == wanted or (one.subject.is_holding and not wanted), (seed, target)
            assert one.exists == (entry is not None and entry.exists) or one.endpoints
    pairs = zip(seeing[::2], seeing[1::2], strict=True)
    assert all(a.endpoints == b.endpoints and a.policy == b.policy and a.exists == b.exists for a, b in pairs)
    for one in seeing:
        kept.end(one.subject, one)
    assert not kept.subjects and not kept._by_service and not kept._by_address and not kept._services_of


def test_messages_are_made_once_for_all_who_are_in_step():
    kept = view()
    target = Name("shop", "web", 80)
    seeing = [Seeing(kept, target) for _ in range(10)]
    for one in seeing:
        one.read()
    event = Changes(Position("0" * 16, 1), (Change(1, "endpoint", "shop/web/e", Endpoint(
        namespace="shop", service="web", name="e", address="192.0.2.1", port=1)),))  # fmt: skip
    kept._take(kept.layers.from_store(event))
    assert len({id(one.subject.change(one.told)) for one in seeing}) == 1
    assert kept.refreshed == 1


def test_a_change_elsewhere_looks_at_nothing_here():
    kept = view()
    Seeing(kept, Name("shop", "web", 80))
    other = Endpoint(namespace="shop", service="db", name="e", address="192.0.2.1", port=1)
    event = Changes(Position("0" * 16, 1), (Change(1, other.kind, other.key, other),))
    kept._take(kept.layers.from_store(event))
    assert kept.refreshed == 0


def test_updates_are_those_of_linkerds_wire():
    kept = view()
    seen = Seeing(kept, Name("shop", "web", 80))
    event = Changes(Position("0" * 16, 1), tuple(
        Change(1, "endpoint", f"shop/web/e{n}", Endpoint(namespace="shop", service="web", name=f"e{n}", address=ip, port=80))
        for n, ip in enumerate(("192.0.2.1", "2001:db8::1"))))  # fmt: skip
    kept._take(kept.layers.from_store(event))
    (added,) = seen.subject.updates(None)
    update = destination_pb2.Update.FromString(added)
    assert [address_text(one.addr) for one in update.add.addrs] == ["192.0.2.1:80", "[2001:db8::1]:80"]
    assert update.SerializeToString(deterministic=True) == added
