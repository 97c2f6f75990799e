"""Taps by what is said of endpoints: their labels, judged in the engine, also of those that appear while the tap runs."""

import pytest

from meshcore.metrics import render
from tests.proxy.named import NamedProxy, binding
from tests.proxy.test_tap_engine import Watching
from tests.scenario.servers import eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def named():
    started = []

    def start(known, **words):
        started.append(NamedProxy(known, **words))
        return started[-1].proxy

    yield start
    for one in started:
        one.stop()


def labelled(server, **labels):
    return binding(server, name="-".join(labels.values()), labels=labels)


def test_an_endpoint_is_seen_with_its_labels(raw_server, raw_client, named):
    running = named({"users:80": labelled(raw_server(), service="users", namespace="shop")})
    watching = Watching(running)
    raw_client(running).get("/", host="users")
    request, answer, end = watching.first(3)
    assert request.dst_labels == answer.dst_labels == end.dst_labels == {"service": "users", "namespace": "shop"}
    assert request.cluster == "users-shop"


def test_labels_choose_among_names_known_before_and_after_the_tap_began(raw_server, raw_client, named):
    known = {f"{name}:80": labelled(raw_server(), service=name, namespace="shop") for name in ("users", "carts", "late", "other")}
    running = named(known)
    client = raw_client(running)
    for host in ("users", "carts"):
        client.get("/before", host=host)
    watching, everything = Watching(running, to_labels={"service": "users"}), Watching(running)
    late = Watching(running, to_labels={"service": "late", "namespace": "shop"})
    for host in ("users", "carts", "late", "other", "late", "users"):
        client.get(f"/{host}", host=host)
    everything.first(18)
    assert [one.path for one in watching.first(6) if one.kind == "req"] == ["/users", "/users"]
    assert [one.path for one in late.first(6) if one.kind == "req"] == ["/late", "/late"]
    assert len(watching.events) == len(late.events) == 6


def test_the_ceiling_of_a_tap_by_labels_is_the_engines(raw_server, raw_client, named):
    running = named({f"{name}:80": labelled(raw_server(), service=name) for name in ("users", "carts")})
    client = raw_client(running)
    for host in ("users", "carts"):
        client.get("/", host=host)
    tap = running.tap(to_labels={"service": "users"}, max_rps=5)
    for _ in range(60):
        client.get("/", host="carts")
        client.get("/", host="users")
    shown = []

    def all_are_told():
        shown.extend(one for one in tap.take() if one.kind == "req")
        return tap.hidden + len(shown) >= 60

    eventually(all_are_told)
    windows = {one.time_unix_ns // 1_000_000_000 for one in shown}
    assert len(shown) <= 5 * (len(windows) + 1) and tap.hidden + len(shown) == 60
    tap.close()


def test_without_labels_nothing_is_asked_for(raw_server, raw_client, proxy):
    running = proxy(to=raw_server())
    watching, everything = Watching(running, to_labels={"service": "users"}), Watching(running)
    raw_client(running).get("/")
    everything.first(3)
    assert not watching.events


def test_what_bindings_name_is_in_the_statistics_with_its_labels(raw_server, raw_client, named):
    running = named({"users:80": labelled(raw_server(), service="users", namespace="shop")})
    client = raw_client(running)
    for _ in range(3):
        client.get("/", host="users")
    eventually(lambda: running.stats().cluster("users-shop").requests == 3)
    (endpoint,) = running.stats().cluster("users-shop").endpoints
    assert (endpoint.requests, endpoint.labels) == (3, {"service": "users", "namespace": "shop"})
    text = render(running.stats())
    assert 'dst_namespace="shop",dst_service="users"' in text
