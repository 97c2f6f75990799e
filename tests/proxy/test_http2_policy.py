"""What the proxy does to requests it does to those of HTTP/2 as well: routes, edits, filters, retries, taps, figures."""

import pytest

import meshcore
from tests.proxy.test_tap_engine import Watching
from tests.scenario import h2_frames as h2
from tests.scenario.h2_links import answering
from tests.scenario.h2_proxies import h2_config
from tests.scenario.servers import eventually, refusing_port, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

ROUND = {"balancer": "round_robin", "breaker": {"consecutive_failures": 0}, "retry_budget": {"ratio_percent": 100, "min_per_second": 100}}


def test_route_is_chosen_by_authority_path_method_and_field(h2_client, h2_proxy):
    def fixed(name, **match):
        return {"name": name, "match": match, "respond": {"status": 200, "body": name}}

    client = h2_client(h2_proxy(to=[], routes=[
        fixed("host", host="b.test"), fixed("path", prefix="/users"), fixed("method", methods=["DELETE"]), fixed("rest")]))
    assert client.get("/", authority="b.test").text == "host"
    assert client.get("/users/7").text == "path"
    assert client.response(client.request("DELETE", "/")).text == "method"
    assert client.get("/").text == "rest"


def test_answers_of_the_proxy_name_their_reason(h2_client, h2_proxy):
    client = h2_client(h2_proxy(to=[], routes=[{"name": "one", "match": {"prefix": "/one"}, "to": "backend"}]))
    assert [(a.status, a.reason) for a in (client.get("/none"), client.get("/one"))] == [(404, "route_not_found"), (503, "no_endpoint")]


def test_prefix_host_and_fields_are_rewritten(link):
    edits = {"set": {"x-set": "new"}, "remove": ["x-gone"]}
    client, server, *_ = link(answering(fields={"x-old": "1"}), route={
        "match": {"prefix": "/users"}, "rewrite": {"prefix": "/v1", "host": "inner.test"},
        "request_headers": edits, "response_headers": {"set": {"x-new": "2"}, "remove": ["x-old"]}})
    answer = client.get("/users/7?q=1", [("x-set", "old"), ("x-gone", "1")])
    seen = server.requests[0]
    assert (seen.path, seen.get("host") or seen.get(":authority"), seen.all("x-set"), seen.all("x-gone")) == (
        "/v1/7?q=1", "inner.test", ["new"], [])
    assert (answer.all("x-old"), answer.all("x-new")) == ([], ["2"])


def test_forwarding_fields_are_added(link):
    client, server, *_ = link()
    client.get("/")
    assert server.requests[0].get("x-forwarded-for") == "127.0.0.1"
    assert server.requests[0].get("x-forwarded-proto") == "http"
    assert server.requests[0].get("x-request-id")


@pytest.mark.parametrize("back, version", [("http1", "1.1"), ("http2", "2.0")])
def test_via_names_the_version_received(back, version, raw_server, h2_server, h2_client, h2_proxy):
    server = (h2_server if back == "http2" else raw_server)()
    answer = h2_client(h2_proxy(to=server, upstream=back)).get("/")
    assert server.requests[0].get("via") == "2.0 meshcore"
    assert answer.get("via") == f"{version} meshcore"


def test_filter_sees_changes_and_answers(link, raw_server, h2_client):
    server = raw_server()
    proxy = meshcore.Proxy(h2_config(to=server))

    @proxy.on_request(route="all")
    def look(request):
        if request.path.startswith("/own"):
            return meshcore.Response(418, b"from the filter")
        request.headers["x-seen"] = f"{request.method} {request.headers['host']} {request.path}"
        return None

    proxy.start()
    try:
        client = h2_client(proxy)
        streams = [client.request("POST", f"/{n}", body=b"body") for n in range(20)]
        assert all(client.response(stream).status == 200 for stream in streams)
        own = client.get("/own")
        assert (own.status, own.text) == (418, "from the filter")
        assert sorted(r.get("x-seen") for r in server.requests) == sorted(f"POST a.test /{n}" for n in range(20))
    finally:
        proxy.stop()


def test_retry_of_an_answer_follows_the_route(h2_server, h2_client, h2_proxy):
    bad, good = h2_server(answering(503, b"")), h2_server()
    client = h2_client(h2_proxy(to=[bad, good], upstream="http2", cluster=ROUND, route={"retries": {"on": ["503"]}}))
    assert [client.get().status for _ in range(6)] == [200] * 6
    assert len(bad.requests) >= 1


def test_failures_open_the_breaker(h2_server, h2_client, h2_proxy):
    def failing(connection):
        while True:
            connection.reset_stream(connection.next_request().stream, h2.INTERNAL_ERROR)

    running = h2_proxy(to=h2_server(failing), upstream="http2", cluster={"breaker": {"consecutive_failures": 3, "panic_percent": 0}})
    client = h2_client(running)
    statuses = [client.post("/", b"x").status for _ in range(6)]
    assert statuses[:3] == [502] * 3
    assert running.stats().cluster("backend").endpoints[0].ejections == 1
    assert 504 in statuses or 503 in statuses


def test_refused_endpoints_are_a_502(h2_client, h2_proxy):
    answer = h2_client(h2_proxy(to=f"127.0.0.1:{refusing_port()}", upstream="http2")).get()
    assert (answer.status, answer.reason) == (502, "upstream_connect_failed")


@pytest.mark.parametrize("route, reason", [({"total_timeout": "100ms"}, "total_timeout"), ({"timeout": "100ms"}, "upstream_response_timeout")])
def test_upstream_that_does_not_answer_is_a_504(h2_server, h2_client, h2_proxy, route, reason):
    codes = []

    def silent(connection):
        codes.append(connection.wait_reset(connection.next_request().stream))
        connection.read_to_end()

    client = h2_client(h2_proxy(to=h2_server(silent), upstream="http2", route=route))
    answer = client.get()
    assert (answer.status, answer.reason) == (504, reason)
    eventually(lambda: codes == [h2.CANCEL])


def test_every_stream_is_an_exchange_in_the_tap(link):
    client, server, running, _ = link(answering(404, b"x" * 100))
    watching = Watching(running)
    client.get("/a/b?secret=1")
    request, answer, end = watching.first(3)
    assert [e.kind for e in (request, answer, end)] == ["req", "rsp", "end"]
    assert (request.method, request.path, request.authority.split(":")[0]) == ("GET", "/a/b", "a.test")
    assert (answer.dst, answer.status, end.response_bytes) == (server.address, 404, 100)


def test_reset_is_seen_in_the_tap_with_its_code(h2_server, h2_client, h2_proxy):
    def script(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200")])
        connection.reset_stream(request.stream, h2.INTERNAL_ERROR)
        connection.read_to_end()

    running = h2_proxy(to=h2_server(script), upstream="http2")
    watching = Watching(running)
    client = h2_client(running)
    client.reset_code(client.request("GET", "/"))
    assert watching.first(3)[2].reset_error == h2.INTERNAL_ERROR


def test_streams_are_counted_as_requests(link):
    client, _, running, _ = link()
    for _ in range(10):
        client.get()
    eventually(lambda: running.stats().route("all").requests == 10)
    stats = running.stats()
    assert (stats.route("all").status_class[2], stats.cluster("backend").endpoints[0].successes) == (10, 10)
    assert (stats.listeners[0].accepted, stats.listeners[0].requests) == (1, 10)


def test_http1_and_http2_share_a_listener(raw_server, raw_client, h2_client, h2_proxy):
    server = raw_server(response(body=b"same"))
    running = h2_proxy(to=server)
    assert [raw_client(running).get().text, h2_client(running).get().text, raw_client(running).get().text] == ["same"] * 3


def test_load_spreads_over_http2_endpoints_by_stream_not_by_connection(h2_server, h2_client, h2_proxy):
    servers = [h2_server() for _ in range(3)]
    client = h2_client(h2_proxy(to=servers, upstream="http2", cluster={"balancer": "round_robin"}))
    for _ in range(30):
        assert client.get().status == 200
    assert [len(server.requests) for server in servers] == [10, 10, 10]
