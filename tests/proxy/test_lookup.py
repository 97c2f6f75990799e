"""Routes that look names up: a miss waits and goes on, is bounded in time and number, and an answer counts at once."""

import threading
import time

import pytest

import meshcore
from meshcore import Binding, Negative
from meshcore.metrics import render
from tests.proxy.named import NamedProxy, binding, clusters, until
from tests.scenario.servers import response

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def named():
    """`named(known, **words)`: a started NamedProxy."""
    running = []

    def start(known=None, **words):
        running.append(NamedProxy(known, **words))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_a_request_waits_for_its_name_and_goes_on(raw_server, raw_client, named):
    server = raw_server()
    proxy = named()
    client = raw_client(proxy)
    client.request("GET", "/x", host="Web.test")
    (asked,) = proxy.wait_asked()
    assert asked == meshcore.Lookup("out", "web.test:80", "", "Web.test", "GET", "/x", "")
    assert not server.requests
    proxy.bind("web.test:80", binding(server))
    assert client.read_response().status == 200
    assert client.get("/y", host="web.test:80").status == 200
    assert [request.path for request in server.requests] == ["/x", "/y"]
    assert len(proxy.asked) == 1, "a bound name is asked for no more"


def test_a_name_is_asked_for_once_however_many_wait(raw_server, raw_client, named):
    server = raw_server()
    proxy = named(workers=2)
    clients = [raw_client(proxy) for _ in range(12)]
    for number, client in enumerate(clients):
        client.request("GET", f"/{number}", host="web.test")
    until(lambda: sum(worker.lookups_waiting for worker in proxy.stats().workers) == 12, "waiting")
    proxy.wait_asked()
    proxy.bind("web.test:80", binding(server))
    assert [client.read_response().status for client in clients] == [200] * 12
    assert [one.name for one in proxy.asked] == ["web.test:80"]
    assert sorted(int(request.target[1:]) for request in server.requests) == list(range(12))
    assert sum(worker.lookups_waiting for worker in proxy.stats().workers) == 0


def test_a_name_nobody_answers_for_ends_in_504(raw_client, named):
    proxy = named(lookup={"timeout": "50ms"})
    client = raw_client(proxy)
    answer = client.get(host="slow.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (504, "lookup_timeout")
    assert client.get(host="slow.test").status == 504, "the connection goes on, and the name is asked for again"
    assert [one.name for one in proxy.asked] == ["slow.test:80"] * 2


def test_a_late_answer_counts_for_the_next_request(raw_server, raw_client, named):
    proxy = named(lookup={"timeout": "50ms"})
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 504
    proxy.bind("web.test:80", binding(raw_server()))
    assert client.get(host="web.test").status == 200


def test_only_so_many_requests_wait(raw_server, raw_client, named):
    proxy = named(limits={"max_lookups_waiting": 2})
    waiting = [raw_client(proxy) for _ in range(2)]
    for number, client in enumerate(waiting):
        client.request("GET", host=f"n{number}.test")
    proxy.wait_asked(2)
    answer = raw_client(proxy).get(host="n0.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (503, "lookup_overloaded")
    server = raw_server()
    for number in range(2):
        proxy.bind(f"n{number}.test:80", binding(server))
    assert [client.read_response().status for client in waiting] == [200, 200]


def test_a_function_that_raises_fails_its_names_for_a_moment(raw_client):
    proxy = meshcore.Proxy({"workers": 1, "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
                            "routes": [{"name": "out", "lookup": {}}]})
    calls = []

    @proxy.on_lookup
    def broken(batch):
        calls.append(batch)
        raise RuntimeError("no")

    with proxy:
        client = raw_client(proxy)
        for _ in range(3):
            answer = client.get(host="web.test")
            assert (answer.status, answer.get("x-mesh-reason")) == (503, "lookup_failed")
        assert len(calls) == 1


def test_without_a_function_nothing_waits(raw_client):
    with meshcore.Proxy({"workers": 1, "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
                         "routes": [{"name": "out", "lookup": {}}]}) as proxy:
        answer = raw_client(proxy).get(host="web.test")
        assert (answer.status, answer.get("x-mesh-reason")) == (503, "lookup_failed")


@pytest.mark.parametrize(("bound", "status", "reason"), [
    (Negative(), 404, "name_unknown"),
    (Negative(reason="name_refused"), 403, "name_refused"),
    (Negative(reason="name_invalid"), 400, "name_invalid"),
    (Negative(reason="name_unbound"), 502, "name_unbound"),
    (Negative(reason="name_unavailable", status=500), 500, "name_unavailable"),
])
def test_a_name_that_means_nothing_is_answered_at_once(raw_client, named, bound, status, reason):
    proxy = named({"web.test:80": bound})
    client = raw_client(proxy)
    for _ in range(2):
        answer = client.get(host="web.test")
        assert (answer.status, answer.get("x-mesh-reason")) == (status, reason)
    assert len(proxy.asked) == 1
    assert proxy.stats().reasons[reason] == 2


def test_a_negative_says_what_it_was_given_to_say(raw_client, named):
    proxy = named({"web.test:80": Negative(reason="name_unbound", headers={"l5d-err": "no+hosts"}, body="none\n")})
    answer = raw_client(proxy).get(host="web.test")
    assert (answer.status, answer.get("l5d-err"), answer.text, answer.get("x-mesh-reason")) \
        == (502, "no+hosts", "none\n", "name_unbound")


def test_a_negative_is_forgotten_after_its_time(raw_server, raw_client, named):
    proxy = named()
    proxy.bind("web.test:80", Negative(), ttl_s=0.05)
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 404
    proxy.known["web.test:80"] = binding(raw_server())
    until(lambda: client.get(host="web.test").status == 200, "asking again")


def test_a_name_falls_back_to_the_routes_own_cluster(raw_server, raw_client, named):
    fallback, own = raw_server(), raw_server()
    proxy = named({"other.test:80": Negative(fall_back=True), "web.test:80": binding(own)}, route={"to": "passthrough"},
                  clusters=[{"name": "passthrough", "endpoints": [fallback.address]}])
    client = raw_client(proxy)
    assert [client.get(host=host).status for host in ("other.test", "web.test")] == [200, 200]
    assert (len(fallback.requests), len(own.requests)) == (1, 1)
    assert proxy.stats().cluster("passthrough").requests == 1


def test_a_request_without_a_name_takes_the_routes_own_cluster_or_is_refused(raw_server, raw_client, named):
    refusing = named(lookup={"by": "header"})
    answer = raw_client(refusing).get()
    assert (answer.status, answer.get("x-mesh-reason")) == (400, "lookup_no_name")
    fallback = raw_server()
    proxy = named(lookup={"by": "header"}, route={"to": "passthrough"},
                  clusters=[{"name": "passthrough", "endpoints": [fallback.address]}])
    assert raw_client(proxy).get().status == 200
    assert not proxy.asked


def test_a_longer_name_than_the_limit_is_none(raw_client, named):
    proxy = named(lookup={"by": "header_token", "header": "x-name"}, limits={"name_size": 64})
    assert raw_client(proxy).get(headers={"x-name": "n" * 60}).get("x-mesh-reason") == "lookup_no_name"
    raw_client(proxy).request("GET", headers={"x-name": "n" * 50})
    assert proxy.wait_asked()[0].name == "/svc/" + "n" * 50


def test_another_answer_counts_from_the_next_request(raw_server, raw_client, named):
    old, new = raw_server(), raw_server()
    proxy = named({"web.test:80": binding(old, name="web")})
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 200
    proxy.bind("web.test:80", binding(new, name="web"))
    assert client.get(host="web.test").status == 200
    assert (len(old.requests), len(new.requests)) == (1, 1)
    until(lambda: all(connection.closed for connection in old.connections), "the old one's idle connection ends")


def test_an_endpoint_that_is_added_does_not_touch_the_others(raw_server, raw_client, named):
    """Its pooled connection, counters and breaker stay."""
    one, two = raw_server(), raw_server()
    proxy = named({"web.test:80": binding(one, name="web")})
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 200
    proxy.bind("web.test:80", binding(one, two, name="web"))
    for _ in range(40):
        assert client.get(host="web.test").status == 200
    assert len(one.connections) == 1 and len(two.connections) == 1
    assert len(one.requests) + len(two.requests) == 41 and len(two.requests) > 0


def test_a_running_exchange_ends_with_the_answer_it_began_with(raw_server, raw_client, named):
    go_on = threading.Event()

    def slow(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
        go_on.wait(10)
        connection.send(b"ow")

    server = raw_server(slow)
    proxy = named({"web.test:80": binding(server)})
    client = raw_client(proxy)
    client.request("GET", host="web.test")
    until(lambda: server.requests, "the request")
    proxy.proxy.unbind("out", "web.test:80")
    proxy.bind("web.test:80", Negative())
    assert raw_client(proxy).get(host="web.test").status == 404
    go_on.set()
    assert client.read_response().text == "slow"


def test_a_client_that_goes_away_leaves_the_others_waiting(raw_server, raw_client, named):
    proxy = named()
    first, second = raw_client(proxy), raw_client(proxy)
    first.request("GET", host="web.test")
    proxy.wait_asked()
    second.request("GET", host="web.test")
    until(lambda: proxy.stats().workers[0].lookups_waiting == 2, "both wait")
    first.reset()
    until(lambda: proxy.stats().workers[0].lookups_waiting == 1, "the first is gone")
    proxy.bind("web.test:80", binding(raw_server()))
    assert second.read_response().status == 200
    assert proxy.stats().reasons["downstream_closed"] == 1


def test_a_body_waits_with_the_client(raw_server, raw_client, named):
    server = raw_server()
    proxy = named()
    client = raw_client(proxy)
    body = bytes(range(256)) * 1024
    client.reader.expect("POST")
    client.send(b"POST /up HTTP/1.1\r\nHost: web.test\r\nContent-Length: %d\r\n\r\n" % len(body))
    client.send(body[:1000])
    proxy.wait_asked()
    sender = threading.Thread(target=client.send, args=(body[1000:],))
    sender.start()
    proxy.bind("web.test:80", binding(server))
    assert client.read_response().status == 200
    sender.join()
    assert server.requests[0].body == body


def test_pipelined_requests_wait_one_by_one(raw_server, raw_client, named):
    server = raw_server()
    proxy = named({"a.test:80": binding(server), "b.test:80": Negative()})
    client = raw_client(proxy)
    for method in ("GET",) * 3:
        client.reader.expect(method)
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: %s.test\r\n\r\n" % (number, host)
                         for number, host in enumerate((b"a", b"b", b"a"))))
    assert [client.read_response().status for _ in range(3)] == [200, 404, 200]


def test_a_filter_sees_a_request_before_its_lookup_and_the_answer_after(raw_server, raw_client, named):
    server = raw_server()
    seen = []

    def register(proxy):
        @proxy.on_request("out")
        def rename(request):
            seen.append("request")
            request.headers["x-name"] = "chosen"

        @proxy.on_response("out")
        def mark(answer):
            seen.append("response")
            answer.headers["x-seen"] = "yes"

    proxy = named({"/svc/chosen": binding(server)}, lookup={"by": "header_token", "header": "x-name"}, on_start=register)
    answer = raw_client(proxy).get()
    assert (answer.status, answer.get("x-seen"), seen) == (200, "yes", ["request", "response"])
    assert server.requests[0].all("x-name") == ["chosen"]


def test_a_reload_keeps_what_is_bound_and_who_waits(raw_server, raw_client, named):
    server = raw_server()
    proxy = named({"web.test:80": binding(server)})
    client, waiting = raw_client(proxy), raw_client(proxy)
    assert client.get(host="web.test").status == 200
    waiting.request("GET", host="later.test")
    proxy.wait_asked(2)
    changed = proxy.proxy.config.to_dict() | {"limits": {"max_in_flight": 1000}}
    proxy.proxy.reload(changed)
    assert client.get(host="web.test").status == 200
    assert len(server.connections) == 1, "its pooled connection stayed"
    proxy.bind("later.test:80", binding(server))
    assert waiting.read_response().status == 200
    assert [one.name for one in proxy.asked] == ["web.test:80", "later.test:80"]


def test_a_route_that_looks_up_no_more_lets_its_names_go(raw_server, raw_client, named):
    server = raw_server()
    proxy = named({"web.test:80": binding(server)})
    assert raw_client(proxy).get(host="web.test").status == 200
    proxy.proxy.reload(proxy.proxy.config.to_dict() | {"routes": [{"name": "out", "respond": {"status": 204}}]})
    assert raw_client(proxy).get(host="web.test").status == 204
    assert proxy.wait_idle() == [("out", "web.test:80", "")]
    assert proxy.proxy.bindings() == []
    with pytest.raises(meshcore.ConfigError, match="no route 'out' with lookup"):
        proxy.bind("web.test:80", binding(server))


def test_a_proxy_stops_while_requests_wait(raw_client, named):
    proxy = named()
    client = raw_client(proxy)
    client.request("GET", host="web.test")
    proxy.wait_asked()
    proxy.stop()
    assert client.receive() == b""
    with pytest.raises(meshcore.EngineError):
        proxy.bind("web.test:80", Negative())


def test_a_name_nobody_uses_is_let_go_of(raw_server, raw_client, named):
    proxy = named({"web.test:80": binding(raw_server())}, timeouts={"bound_name_idle": "100ms"})
    assert raw_client(proxy).get(host="web.test").status == 200
    assert proxy.wait_idle() == [("out", "web.test:80", "")]
    assert proxy.proxy.bindings() == []
    assert raw_client(proxy).get(host="web.test").status == 200
    assert len(proxy.asked) == 2


def test_a_name_in_use_stays_and_is_let_go_of_later(raw_server, raw_client, named):
    proxy = named({"web.test:80": binding(raw_server())}, timeouts={"bound_name_idle": "600ms"})
    client = raw_client(proxy)
    for _ in range(15):
        assert client.get(host="web.test").status == 200
        time.sleep(0.1)
    assert len(proxy.asked) == 1
    assert proxy.wait_idle() == [("out", "web.test:80", "")]


def test_a_name_bound_for_a_time_is_let_go_of_though_others_stay(raw_server, raw_client, named):
    proxy = named({"web.test:80": binding(raw_server())})
    assert raw_client(proxy).get(host="web.test").status == 200
    time.sleep(0.6)  # that it stays for ten minutes is known by now
    proxy.bind("none.test:80", Negative(), ttl_s=0.1)
    assert proxy.wait_idle() == [("out", "none.test:80", "")]
    assert [row.name for row in proxy.proxy.bindings()] == ["web.test:80"]


def test_the_names_longest_unused_make_room(raw_server, raw_client, named):
    server = raw_server()
    proxy = named({f"n{number}.test:80": binding(server, name="all") for number in range(40)}, limits={"max_bound_names": 32})
    client = raw_client(proxy)
    for number in range(32):
        assert client.get(host=f"n{number}.test").status == 200
    assert client.get(host="n0.test").status == 200
    assert client.get(host="n32.test").status == 200
    gone = {name for _, name, _ in proxy.wait_idle()}
    assert "n0.test:80" not in gone and "n1.test:80" in gone
    assert len(proxy.proxy.bindings()) <= 32


def test_what_is_bound_can_be_looked_at(raw_server, raw_client, named):
    bound = binding(raw_server())
    proxy = named({"web.test:80": bound})
    raw_client(proxy).get(host="web.test")
    proxy.bind("none.test:80", Negative(), ttl_s=60)
    rows = {row.name: row for row in proxy.proxy.bindings()}
    assert rows["web.test:80"].bound is bound and rows["web.test:80"].ttl_s is None
    assert rows["none.test:80"].ttl_s == 60 and rows["none.test:80"].route == "out"


def test_routes_of_a_binding_match_within_the_name(raw_server, raw_client, named):
    web, api = raw_server(), raw_server()
    bound = Binding(clusters=clusters(web=web, api=api), routes=(
        meshcore.config.Route(name="web/api", match={"prefix": "/api"}, to="api", rewrite={"prefix": "/v1"},
                              request_headers={"set": {"x-by": "binding"}}),
        meshcore.config.Route(name="web/get", match={"methods": ["GET"]}, to="web"),
    ))
    proxy = named({"web.test:80": bound})
    client = raw_client(proxy)
    assert client.get("/api/users", host="web.test").status == 200
    assert client.get("/", host="web.test").status == 200
    answer = client.post("/", b"x", host="web.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (404, "route_not_found")
    assert [(r.path, r.all("x-by")) for r in api.requests] == [("/v1/users", ["binding"])]
    assert len(web.requests) == 1
    assert proxy.stats().route("out").requests == 3


def test_a_binding_that_cannot_be_used_is_told_and_changes_nothing(raw_server, raw_client, named):
    server = raw_server()
    proxy = named({"web.test:80": binding(server)})
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 200
    for wrong, says in (
        (binding("web.test:80"), "not an address"),
        (binding(server, protocol="spdy"), "unknown protocol"),
        (binding(server, tls="mesh"), "tls and identity go together"),
        (binding(server, tls="mesh", identity="spiffe://td/a"), "no TLS context 'mesh'"),
        (binding(server, routes=[meshcore.config.Route(to="elsewhere")]), "its clusters and trees are"),
        (Binding(clusters=()), "leads nowhere"),
        (Negative(reason="whim"), "unknown reason"),
    ):
        with pytest.raises(meshcore.ConfigError, match=says):
            proxy.bind("web.test:80", wrong)
    assert client.get(host="web.test").status == 200


def test_answers_that_change_under_load_lose_nothing(raw_server, raw_client, named):
    servers = [raw_server() for _ in range(3)]
    proxy = named({"web.test:80": binding(*servers, name="web")}, workers=2)
    statuses: list[int] = []

    def ask():
        client = raw_client(proxy)
        statuses.extend(client.get(f"/{number}", host="web.test").status for number in range(150))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    turn = 0
    while any(thread.is_alive() for thread in threads):
        proxy.bind("web.test:80", binding(*(servers[turn % 3:] + servers[:turn % 2]), name="web"))
        turn += 1
    for thread in threads:
        thread.join()
    assert statuses == [200] * 600 and turn > 10
    assert proxy.stats().reasons == {}


def test_ten_thousand_names_are_bound(raw_server, raw_client, named):
    server = raw_server()
    bound = binding(server, name="all")
    proxy = named()
    proxy.proxy.bind_many([("out", f"n{number}.test:80", "", bound, None) for number in range(10_000)])
    client = raw_client(proxy)
    for number in (0, 999, 1000, 1001, 5000, 9999):
        assert client.get(host=f"n{number}.test").status == 200
    assert len(proxy.proxy.bindings()) == 10_000 and not proxy.asked
    assert len(server.connections) == 1, "they share their cluster, and so its connections"


def test_a_response_of_its_own_answers_without_a_cluster(raw_client, named):
    bound = Binding(clusters=(), routes=(meshcore.config.Route(respond={"status": 418, "body": "tea"}),))
    answer = raw_client(named({"web.test:80": bound})).get(host="web.test")
    assert (answer.status, answer.text) == (418, "tea")


def test_an_empty_cluster_answers_503(raw_client, named):
    answer = raw_client(named({"web.test:80": binding()})).get(host="web.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (503, "no_endpoint")


def test_interim_answers_and_closing_clients_pass_as_ever(raw_server, raw_client, named):
    server = raw_server(lambda connection: (connection.read_request(), connection.send(response(200, b"bye", {"Connection": "close"}))))
    proxy = named({"web.test:80": binding(server)})
    client = raw_client(proxy)
    client.request("GET", host="web.test", headers={"Connection": "close"})
    assert client.read_response().text == "bye"


def test_what_is_bound_is_counted_once_however_many_names_share_it(raw_server, raw_client, named):
    server = raw_server()
    bound = binding(server, name="web", labels={"workload": "web"}, routes=[meshcore.config.Route(name="web/all", to="web")])
    proxy = named({"web.test:80": bound, "other.test:80": bound})
    client = raw_client(proxy)
    assert [client.get(host=host).status for host in ("web.test", "other.test")] == [200, 200]
    until(lambda: proxy.stats().route("out").requests == 2, "the end of the last")
    stats = proxy.stats()
    (endpoint,) = stats.cluster("web").endpoints
    assert (stats.cluster("web").requests, endpoint.requests, endpoint.labels) == (2, 2, {"workload": "web"})
    assert stats.route("web/all").requests == stats.route("out").requests == 2


def test_histograms_of_bound_names_are_bounded_and_what_comes_later_is_folded(raw_server, raw_client, named):
    """A cluster and an endpoint for each name: without a bound, 28 KiB each and worker."""
    server = raw_server()
    known = {f"n{number}.test:80": binding(server, name=f"n{number}") for number in range(20)}
    proxy = named(known, limits={"max_latency_histograms": 16})
    client = raw_client(proxy)
    for number in range(20):
        assert client.get(host=f"n{number}.test").status == 200
    until(lambda: proxy.stats().route("out").requests == 20, "the end of the last")
    stats = proxy.stats()
    (worker,) = stats.workers
    assert worker.histograms == 16
    own = sum(row.latency.count for row in (*stats.routes, *stats.clusters, *stats.endpoints))
    assert own + worker.folded == 3 * 20 and worker.folded == stats.folded_latency.count == 60 - own > 0
    assert all(row.requests == 1 for row in (*stats.clusters, *stats.endpoints)), "numbers are kept of everybody"
    page = render(stats)
    assert 'mesh_worker_latency_histograms{worker="0"} 16' in page and f"mesh_folded_duration_seconds_count {worker.folded}" in page


def test_a_name_that_is_let_go_makes_room_for_the_histograms_of_another(raw_server, raw_client, named):
    server = raw_server()
    proxy = named(limits={"max_latency_histograms": 16})
    client = raw_client(proxy)
    for shop in ("old", "new"):
        names = [f"{shop}{number}.test:80" for number in range(7)]
        for name in names:
            proxy.bind(name, binding(server, name=name))
            assert client.get(host=name).status == 200
        until(lambda: [row.latency.count for row in proxy.stats().clusters] == [1] * 7, "a histogram for each")
        for name in names:
            proxy.proxy.unbind("out", name)
        until(lambda: proxy.stats().workers[0].histograms == 1, "the histograms' return")
    assert proxy.stats().workers[0].folded == 0


def test_a_tap_of_the_route_that_looks_up_sees_what_its_names_lead_to(raw_server, raw_client, named):
    bound = binding(raw_server(), name="web", routes=[meshcore.config.Route(name="web/all", to="web")])
    proxy = named({"web.test:80": bound})
    with proxy.proxy.tap(route="out") as session:
        assert raw_client(proxy).get(host="web.test").status == 200
        events = session.read(10)
    assert {event.cluster for event in events} == {"web"}
