"""Names bound by a namerd, over its HTTP interface and over gRPC: the same in both, also while it is away."""

import time

import pytest

from meshcore.binder import metrics, namerd_http
from meshcore.binder.binder import BRANCH_PATIENCE_S
from meshcore.binder.namerd_http import HttpInterpreter
from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.binder.rules import Rules
from meshcore.naming import read_dtab
from tests.binder.conftest import Bound
from tests.binder.namerds import Namerd
from tests.binder.test_binder import get, inet, naming
from tests.scenario.servers import eventually


def place(server):
    """As `inet`, by an id that does not say where it is."""
    return f"/#/places/127.0.0.1/{server.port}"


@pytest.fixture
def namerd():
    started = []

    def start(dtab):
        started.append(Namerd(dtab))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture(params=["http", "mesh"])
def followed(request, raw_client):
    """`followed(namerd)`: a proxy whose names are bound there."""
    started = []

    def start(one, *, base="", trusts=False):
        def interpreter():
            table = read_dtab(base)
            if request.param == "http":
                return HttpInterpreter("127.0.0.1", one.http_port, "default", table)
            return MeshInterpreter("127.1", one.grpc_port, "default", table)

        started.append(Bound("", interpreter=interpreter, trusts=trusts))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_name_is_what_the_namerd_says_and_follows_its_table(raw_server, raw_client, namerd, followed):
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    there = namerd(f"/svc/web => {inet(old)}")
    client = raw_client(followed(there).address)
    assert get(client, "web").body == b"old"
    there.set_table(f"/svc/web => {inet(new)}")
    eventually(lambda: get(client, "web").body == b"new")


def test_a_union_of_the_namerd_is_dealt_by_its_weights(raw_server, raw_client, namerd, followed):
    many, few = raw_server(naming("many")), raw_server(naming("few"))
    client = raw_client(followed(namerd(f"/svc/web => 0.9*{inet(many)} & 0.1*{inet(few)}")).address)
    seen = [get(client, "web").body for _ in range(400)]
    assert 10 <= seen.count(b"few") <= 90 and seen.count(b"many") + seen.count(b"few") == 400


def test_a_name_the_namerd_does_not_know_is_refused_until_it_does(raw_server, raw_client, namerd, followed):
    there = namerd("/srv => /$/inet")
    client = raw_client(followed(there).address)
    assert get(client, "web").status == 502
    there.set_table(f"/svc/web => {inet(raw_server())}")
    eventually(lambda: get(client, "web").status == 200)


def test_the_table_of_the_router_and_that_of_the_request_go_over_the_namespace(raw_server, raw_client, namerd, followed):
    theirs, ours, mine = raw_server(naming("theirs")), raw_server(naming("ours")), raw_server(naming("mine"))
    there = namerd(f"/svc/web => {inet(theirs)}")
    client = raw_client(followed(there, base=f"/svc/web => {inet(ours)}").address)
    assert get(client, "web").body == b"ours"
    client = raw_client(followed(there, trusts=True).address)
    assert get(client, "web", [("l5d-dtab", f"/svc/web => {inet(mine)}")]).body == b"mine"
    assert get(client, "web").body == b"theirs"
    client = raw_client(followed(there, base=f"/svc/web => {inet(ours)}", trusts=True).address)
    assert get(client, "web", [("l5d-dtab", f"/svc/web => {inet(mine)}")]).body == b"mine", "the request's goes over the router's"


def test_while_the_namerd_is_away_its_last_answer_stays_and_the_next_one_counts_when_it_is_back(raw_server, raw_client, namerd, followed):
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    there = namerd(f"/svc/web => {place(old)}")
    running = followed(there)
    client = raw_client(running.address)
    assert get(client, "web").body == b"old"
    there.stop()
    for _ in range(50):
        assert get(client, "web").body == b"old"
    eventually(lambda: [(row.keys, row.stale_keys) for row in running.binder.sources()] == [(2, 2)])
    assert 'mesh_naming_stale_keys{route="names",source="namerd ' in metrics.render(running.binder)
    there.set_table(f"/svc/web => {place(new)}")
    there.start()
    eventually(lambda: get(client, "web").body == b"new")
    assert running.binder.counts().asked == 1
    eventually(lambda: running.binder.sources()[0].stale_keys == 0)


def test_a_namerd_that_dies_before_it_has_told_the_addresses_of_a_new_id_costs_no_request(raw_server, raw_client, namerd, followed):
    """The tree has come, the addresses of its id have not, and then cannot: what was bound before stays."""
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    there = namerd(f"/svc/web => {place(old)}")
    running = followed(there)
    client = raw_client(running.address)
    assert get(client, "web").body == b"old"
    there.addresses_are_held = True
    there.set_table(f"/svc/web => {place(new)}")
    eventually(lambda: there.held)
    there.stop()
    deadline = time.monotonic() + 2 * BRANCH_PATIENCE_S
    while time.monotonic() < deadline:
        assert get(client, "web").body == b"old"
    there.addresses_are_held = False
    there.start()
    eventually(lambda: get(client, "web").body == b"new")


def test_other_rules_while_the_namerd_is_away_cost_no_request(raw_server, raw_client, namerd, followed):
    """A reload makes new interpreters, which know nothing yet and find nobody: what was bound before stays."""
    there = namerd(f"/svc/web => {inet(raw_server(naming('web')))}")
    running = followed(there)
    client = raw_client(running.address)
    assert get(client, "web").body == b"web"
    there.stop()

    async def make():
        return [Rules(route="names", interpreter=HttpInterpreter("127.0.0.1", there.http_port, "default"))]

    running.binder.use(make)
    eventually(lambda: [(row.keys, row.failures > 1) for row in running.binder.sources()] == [(1, True)])
    for _ in range(50):
        assert get(client, "web").body == b"web"


def test_a_new_name_while_the_namerd_is_away_is_refused_with_the_reason_and_bound_when_it_is_back(raw_server, raw_client, namerd, followed):
    there = namerd(f"/svc/web => {inet(raw_server())}")
    there.stop()
    client = raw_client(followed(there).address)
    answer = get(client, "web")
    assert answer.status == 503 and answer.get("x-mesh-reason") == "name_unavailable"
    there.start()
    eventually(lambda: get(client, "web").status == 200)


def test_names_that_share_an_id_share_its_watch(raw_server, raw_client, namerd, followed):
    there = namerd(f"/svc => {place(raw_server())}")
    client = raw_client(followed(there).address)
    for number in range(20):
        assert get(client, f"web-{number}").status == 200
    assert there.streams == 20 + 1


def test_an_id_that_is_an_address_is_not_asked_for(raw_server, raw_client, namerd, followed):
    """Traffic moves to it as soon as the tree is there, however the namerd does meanwhile."""
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    there = namerd(f"/svc/web => {inet(old)}")
    there.addresses_are_held = True
    client = raw_client(followed(there).address)
    assert get(client, "web").body == b"old"
    there.set_table(f"/svc/web => {inet(new)}")
    eventually(lambda: get(client, "web").body == b"new")
    assert (there.streams, there.held) == (1, 0)


def test_a_namerd_whose_heartbeats_end_is_asked_anew_though_its_connection_stands(raw_server, raw_client, namerd, monkeypatch):
    monkeypatch.setattr(namerd_http, "SILENCE_S", 0.3)
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    there = namerd(f"/svc/web => {inet(old)}")
    running = Bound("", interpreter=lambda: HttpInterpreter("127.0.0.1", there.http_port, "default"))
    try:
        client = raw_client(running.address)
        assert get(client, "web").body == b"old"
        there.is_silent = True
        there.set_table(f"/svc/web => {inet(new)}")
        eventually(lambda: running.binder.sources()[0].failures)
        there.is_silent = False
        eventually(lambda: get(client, "web").body == b"new")
    finally:
        running.stop()
