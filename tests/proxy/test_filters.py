"""Python filters on the routes that ask for them: see, change, answer, choose; and fail without harm."""

import threading

import pytest

import meshcore
from tests.scenario.proxies import config
from tests.scenario.servers import response

pytestmark = pytest.mark.usefixtures("only_meshcore")


@pytest.fixture
def filtered():
    """`filtered(register, **words)`: a started proxy whose filters `register(proxy)` put in place."""
    running = []

    def start(register, **words):
        proxy = meshcore.Proxy(config(**words))
        register(proxy)
        proxy.start()
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        proxy.stop()


def test_filter_reads_one_field_and_sets_another(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def name_the_user(request):
            request.headers["x-user"] = request.headers["authorization"].removeprefix("Bearer ")

    server = raw_server()
    raw_client(filtered(register, to=server)).get("/", {"Authorization": "Bearer ann", "X-User": "forged"})
    assert server.requests[0].all("x-user") == ["ann"]
    assert server.requests[0].all("authorization") == ["Bearer ann"]


def test_filter_sees_method_path_and_authority(raw_server, filtered, raw_client):
    seen = []

    def register(proxy):
        @proxy.on_request(route="all")
        def look(request):
            seen.append((request.method, request.path, request.headers["host"], request.headers.get("x-none")))

    raw_client(filtered(register, to=raw_server())).post("/a/b?c=1", b"body", host="b.test")
    assert len(seen) == 1
    assert (seen[0][0], seen[0][1].split("?")[0], seen[0][2], seen[0][3]) == ("POST", "/a/b", "b.test", None)


def test_filter_removes_a_field(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def forget(request):
            del request.headers["cookie"]

    server = raw_server()
    raw_client(filtered(register, to=server)).get("/", {"Cookie": "a=b", "X-Kept": "k"})
    assert (server.requests[0].all("cookie"), server.requests[0].all("x-kept")) == ([], ["k"])


def test_filter_answers_itself(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def refuse(request):
            if "authorization" not in request.headers:
                return meshcore.Response(401, headers={"www-authenticate": "Bearer"}, body=b"who are you")

    server = raw_server()
    client = raw_client(filtered(register, to=server))
    answer = client.get()
    assert (answer.status, answer.text, answer.get("www-authenticate")) == (401, "who are you", "Bearer")
    assert client.get("/", {"Authorization": "x"}).status == 200
    assert len(server.requests) == 1


def test_answer_of_a_filter_to_a_request_with_a_body_leaves_the_connection_in_step(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def refuse(request):
            return meshcore.Response(403, body=b"no")

    client = raw_client(filtered(register, to=raw_server()))
    client.request("POST", "/", {}, b"x" * 50_000)
    assert client.read_response().status == 403
    if client.end is None:
        client.request("GET", "/")
        message = client.read_message()
        assert message is None or message.status == 403


def test_filter_chooses_the_cluster(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def choose(request):
            if request.headers.get("x-canary"):
                request.cluster = "canary"

    stable, canary = raw_server(response(body=b"stable")), raw_server(response(body=b"canary"))
    client = raw_client(filtered(register, routes=[{"name": "all", "to": "stable"}], clusters=[
        {"name": "stable", "endpoints": [stable.address]}, {"name": "canary", "endpoints": [canary.address]}]))
    assert [client.get().text, client.get("/", {"X-Canary": "1"}).text, client.get().text] == ["stable", "canary", "stable"]


def test_response_filter_changes_the_head(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_response(route="all")
        def sign(response):
            response.headers["x-signed"] = str(response.status)
            if "server" in response.headers:
                del response.headers["server"]

    answer = raw_client(filtered(register, to=raw_server(response(headers={"Server": "secret/1.0"})))).get()
    assert (answer.get("x-signed"), answer.all("server"), answer.text) == ("200", [], "ok")


def test_filter_that_raises_answers_500_with_a_reason_and_is_counted(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def broken(request):
            raise ValueError("not today")

    server = raw_server()
    running = filtered(register, to=server)
    client = raw_client(running)
    for _ in range(3):
        answer = client.get()
        assert (answer.status, answer.reason) == (500, "filter_error")
        assert "not today" not in str(answer.fields)
        if answer.get("connection") == "close":
            client = raw_client(running)
    assert server.requests == []
    assert running.stats().reasons["filter_error"] == 3


def test_response_filter_that_raises_answers_500(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_response(route="all")
        def broken(response):
            raise KeyError("gone")

    answer = raw_client(filtered(register, to=raw_server())).get()
    assert (answer.status, answer.reason) == (500, "filter_error")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
def test_filter_cannot_split_a_message(raw_server, filtered, raw_client, value):
    def register(proxy):
        @proxy.on_request(route="all")
        def split(request):
            request.headers["x-value"] = value

    server = raw_server()
    assert raw_client(filtered(register, to=server)).get().status == 500
    assert server.requests == []


def test_other_routes_never_wait_for_a_filter(raw_server, filtered, raw_client):
    entered, release = threading.Event(), threading.Event()

    def register(proxy):
        @proxy.on_request(route="slow")
        def wait(request):
            entered.set()
            release.wait(10)

    routes = [{"name": "slow", "match": {"path": "/slow"}, "to": "backend"}, {"name": "fast", "to": "backend"}]
    running = filtered(register, to=raw_server(), routes=routes)
    slow, fast = raw_client(running), raw_client(running)
    slow.request("GET", "/slow")
    assert entered.wait(10)
    try:
        for _ in range(5):
            assert fast.get("/fast").status == 200
    finally:
        release.set()
    assert slow.read_response().status == 200


def test_client_that_leaves_while_its_filter_runs_harms_nobody(raw_server, filtered, raw_client):
    entered, release = threading.Event(), threading.Event()

    def register(proxy):
        @proxy.on_request(route="all")
        def wait(request):
            if request.path == "/leaving":
                entered.set()
                release.wait(10)

    server = raw_server()
    running = filtered(register, to=server)
    leaving = raw_client(running)
    leaving.request("GET", "/leaving")
    assert entered.wait(10)
    leaving.reset()
    release.set()
    assert raw_client(running).get("/staying").status == 200
    assert "/staying" in [r.path for r in server.requests]


def test_filters_see_pipelined_requests_in_order(raw_server, filtered, raw_client):
    seen = []

    def register(proxy):
        @proxy.on_request(route="all")
        def note(request):
            seen.append(request.path)

    client = raw_client(filtered(register, to=raw_server()))
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a.test\r\n\r\n" % n for n in range(20)))
    assert [client.read_response().status for _ in range(20)] == [200] * 20
    assert seen == [f"/{n}" for n in range(20)]


def test_filtered_body_is_still_streamed_whole(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def touch(request):
            request.headers["x-touched"] = "1"

        @proxy.on_response(route="all")
        def touch_back(response):
            response.headers["x-touched"] = "1"

    server = raw_server(lambda c: [c.send(response(body=bytes(c.read_request().body))) for _ in range(3)])
    client = raw_client(filtered(register, to=server))
    for n in (0, 5, 300_000):
        answer = client.post("/", b"b" * n)
        assert (answer.body_bytes, answer.get("x-touched")) == (n, "1")


def test_filter_stays_in_place_across_reloads(raw_server, filtered, raw_client):
    def register(proxy):
        @proxy.on_request(route="all")
        def mark(request):
            request.headers["x-mark"] = "1"

    server = raw_server()
    running = filtered(register, to=server)
    client = raw_client(running)
    client.get()
    running.reload(config(to=server, route={"timeout": "3s"}))
    client.get()
    assert [r.all("x-mark") for r in server.requests] == [["1"], ["1"]]


def test_filter_for_an_unknown_route_is_an_error(filtered):
    def register(proxy):
        @proxy.on_request(route="misspelt")
        def never(request):
            pass

    with pytest.raises(Exception, match="misspelt"):
        filtered(register, to=[], routes=[{"name": "all", "respond": {}}])
