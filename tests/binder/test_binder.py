"""Requests go where their names are bound, and follow when the table changes."""

import asyncio
import threading
from collections import Counter
from urllib.parse import unquote

from meshcore.binder import binder
from meshcore.namers.interpreter import LocalInterpreter
from meshcore.namers.live import Cell
from meshcore.namers.namer import LiveNamer, LiveNamers
from meshcore.naming import Bound, Leaf, Pending, read_dtab, read_path
from tests.scenario.clients import RawClient
from tests.scenario.servers import eventually, refusing_port, response


def inet(server):
    return f"/$/inet/127.0.0.1/{server.port if hasattr(server, 'port') else server}"


def naming(text):
    def script(connection):
        while connection.read_request() is not None:
            connection.send(response(body=text.encode()))

    return script


def get(client, host, headers=()):
    return client.get(host=host, headers=headers)


def test_a_name_is_bound_when_it_is_asked_for_and_stays_bound(raw_server, raw_client, bound):
    server = raw_server(naming("web"))
    running = bound(f"/svc/web => {inet(server)}")
    client = raw_client(running.address)
    for _ in range(5):
        assert get(client, "web").body == b"web"
    counts = running.binder.counts()
    assert (counts.names, counts.asked) == (1, 1)


def test_a_name_that_nobody_binds_is_refused_with_the_reason_in_linkerds_header(raw_client, bound):
    client = raw_client(bound("/srv => /$/inet").address)
    answer = get(client, "web")
    assert answer.status == 502
    assert unquote(answer.get("l5d-err")) == "/svc/web: no such name"
    assert b"no such name" in answer.body


def test_an_edit_of_the_table_moves_the_traffic_and_no_request_fails(raw_server, raw_client, bound):
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    running = bound(f"/svc/web => {inet(old)}")
    client = raw_client(running.address)
    assert get(client, "web").body == b"old"
    running.set_table(f"/svc/web => {inet(new)}")

    def moved():
        answer = get(client, "web")
        assert answer.status == 200
        return answer.body == b"new"

    eventually(moved)
    assert running.binder.counts().asked == 1, "the proxy asks once; after that it is told"


def test_a_union_is_dealt_by_weight_for_each_request(raw_server, raw_client, bound):
    many, few = raw_server(naming("many")), raw_server(naming("few"))
    client = raw_client(bound(f"/svc/web => 0.9*{inet(many)} & 0.1*{inet(few)}").address)
    seen = Counter(get(client, "web").body for _ in range(600))
    assert set(seen) == {b"many", b"few"}
    assert 20 <= seen[b"few"] <= 120  # 60, give or take eight standard deviations


def test_a_bound_name_without_a_live_endpoint_falls_over_to_the_next_alternative(raw_server, raw_client, bound):
    """In Linkerd it would not: an address that nobody serves is bound all the same."""
    server = raw_server(naming("second"))
    client = raw_client(bound(f"/svc/web => {inet(refusing_port())} | {inet(server)}").address)
    assert [get(client, "web").status for _ in range(8)].count(200) == 8


def test_a_table_in_the_request_counts_for_it_alone_where_its_sender_is_trusted(raw_server, raw_client, bound):
    usual, other = raw_server(naming("usual")), raw_server(naming("other"))
    client = raw_client(bound(f"/svc/web => {inet(usual)}", trusts=True).address)
    override = [("l5d-dtab", f"/svc/web => {inet(other)}")]
    assert [get(client, "web", headers).body for headers in ((), override, ())] == [b"usual", b"other", b"usual"]
    head = other.requests[0]
    assert "l5d-dtab" not in head.names
    assert head.get("l5d-ctx-dtab") == f"/svc/web=>{inet(other)}"
    assert "l5d-ctx-dtab" not in usual.requests[0].names


def test_the_table_of_a_stranger_is_not_heard_and_not_passed_on(raw_server, raw_client, bound):
    usual, other = raw_server(naming("usual")), raw_server(naming("other"))
    client = raw_client(bound(f"/svc/web => {inet(usual)}").address)
    headers = [("l5d-dtab", f"/svc/web => {inet(other)}"), ("l5d-ctx-dtab", f"/svc/web => {inet(other)}")]
    assert get(client, "web", headers).body == b"usual"
    assert not {"l5d-dtab", "l5d-ctx-dtab"} & set(usual.requests[0].names)


def test_a_request_with_a_table_that_is_none_is_answered_400(raw_server, raw_client, bound):
    client = raw_client(bound(f"/svc/web => {inet(raw_server())}", trusts=True).address)
    answer = get(client, "web", [("l5d-dtab", "/svc/web -> /srv")])
    assert answer.status == 400
    assert "expected but" in unquote(answer.get("l5d-err"))


def test_upstreams_are_told_the_name_what_it_is_bound_to_and_the_rest(raw_server, raw_client, bound):
    server = raw_server(naming("web"))
    client = raw_client(bound(f"/svc/web => {inet(server)}/users/7").address)
    assert get(client, "web").status == 200
    head = server.requests[0]
    assert [head.get(f"l5d-dst-{what}") for what in ("service", "client", "residual")] == ["/svc/web", inet(server), "/users/7"]


def test_a_name_that_nobody_uses_is_let_go_and_bound_again_when_it_is_asked_for(raw_server, raw_client, bound):
    server = raw_server(naming("web"))
    running = bound(f"/svc/web => {inet(server)}", timeouts={"bound_name_idle": "200ms"})
    client = raw_client(running.address)
    assert get(client, "web").status == 200
    eventually(lambda: running.binder.counts().names == 0)
    assert running.binder.counts().let_go == 1
    eventually(lambda: get(client, "web").status == 200 and running.binder.counts().asked == 2)


def test_a_refusal_that_has_run_out_is_told_again(raw_client, bound, monkeypatch):
    """The proxy forgets refusals after a while, and asks again: nothing has changed, and an answer it must have all the same."""
    monkeypatch.setattr(binder, "NEGATIVE_TTL_S", 0.05)
    running = bound("/srv => /$/inet")
    client = raw_client(running.address)

    def asked_again():
        answer = get(client, "web")
        assert (answer.status, answer.get("x-mesh-reason")) == (502, "name_unbound")
        return running.binder.counts().asked >= 3

    eventually(asked_again)


def test_a_name_that_comes_to_be_bound_is_told_to_those_who_were_refused(raw_server, raw_client, bound):
    server = raw_server(naming("web"))
    running = bound("/srv => /$/inet")
    client = raw_client(running.address)
    assert get(client, "web").status == 502
    running.set_table(f"/svc/web => {inet(server)}")
    eventually(lambda: get(client, "web").status == 200)


def test_other_rules_take_over_while_requests_go_on(raw_server, raw_client, bound):
    """What a reload of a Linkerd file does: new interpreters, and old bindings until the new ones are known."""
    from meshcore.binder.rules import Rules

    old, new = raw_server(naming("old")), raw_server(naming("new"))
    running = bound(f"/svc/web => {inet(old)}")
    stop, bad = threading.Event(), []

    def load():
        client = RawClient(running.address)
        while not stop.is_set():
            if get(client, "web").status != 200:
                bad.append(1)
        client.close()

    client = raw_client(running.address)
    assert get(client, "web").body == b"old"
    loading = threading.Thread(target=load)
    loading.start()
    try:
        async def make():
            return [Rules(route="names", interpreter=LocalInterpreter(LiveNamers(), read_dtab(f"/svc/web => {inet(new)}")))]

        running.binder.use(make)
        eventually(lambda: get(client, "web").body == b"new")
    finally:
        stop.set()
        loading.join()
    assert not bad


class Silent(LiveNamer):
    """Binds every name at once, and never says where anything is."""

    kind = "silent"
    prefix = read_path("/#/silent")
    source = None

    def answer(self, rest, read):
        return Leaf(Bound(self.prefix + rest))

    def replicas(self, rest):
        return Cell(Pending())


def test_a_branch_that_does_not_say_where_it_is_holds_the_others_up_for_a_moment_only(raw_server, raw_client, bound):
    table = read_dtab(f"/svc/web => {inet(raw_server(naming('web')))} & /#/silent/x")
    running = bound("", interpreter=lambda: LocalInterpreter(LiveNamers([Silent()]), table))
    client = raw_client(running.address)
    assert [get(client, "web").body for _ in range(5)] == [b"web"] * 5


def test_nothing_on_purpose_keeps_its_share_and_finds_no_endpoint(raw_server, raw_client, bound):
    """`$` in a union: how a part of the requests is made to fail. What fails for other reasons gives its share away."""
    server = raw_server(naming("web"))
    running = bound(f"/svc/web => {inet(server)} & $")
    answers = [get(raw_client(running.address), "web") for _ in range(60)]  # a refusal closes its connection
    refused = [answer for answer in answers if answer.status == 503]
    assert 10 <= len(refused) <= 50
    assert {answer.get("x-mesh-reason") for answer in refused} == {"no_endpoint"}
    assert {unquote(answer.get("l5d-err")) for answer in refused} == {"the cluster has no endpoint"}
    assert len(refused) + sum(answer.status == 200 for answer in answers) == len(answers)


def test_a_tap_shows_what_a_name_was_bound_to(raw_server, raw_client, bound):
    server = raw_server(naming("web"))
    running = bound(f"/svc/web => {inet(server)}")
    client = raw_client(running.address)
    assert get(client, "web").status == 200  # the cluster is known now
    with running.proxy.tap(to=f"127.0.0.1:{server.port}", max_rps=100.0) as tap:
        assert get(client, "web").status == 200
        event = next(iter(tap))
        assert (event.cluster, event.route) == (f"names:{inet(server)}", "names")


def test_a_name_that_is_let_go_while_a_note_about_it_waits_is_not_told(raw_server, bound):
    """The proxy has dropped it: what is told now would be bound, and followed by nobody."""
    running = bound(f"/svc/web => {inet(raw_server())}")
    key = ("names", "/svc/web", "")

    async def ask_and_let_go():
        running.binder._ask([key])
        running.binder._let_idle_go([key])

    async def turns():
        for _ in range(10):
            await asyncio.sleep(0)

    for coroutine in (ask_and_let_go(), turns()):
        asyncio.run_coroutine_threadsafe(coroutine, running.binder._loop).result(5)
    assert running.binder.counts().names == 0
    assert (running.binder.counts().told, running.proxy.bindings()) == (0, [])
