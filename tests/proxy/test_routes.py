"""Which route takes a request: host before path before method, the most specific first."""

import pytest

from tests.scenario.servers import response


def named(name, **match):
    return {"name": name, "match": match, "respond": {"status": 200, "body": name}}


@pytest.fixture
def asking(proxy, raw_client, only_meshcore):
    """`asking(routes)(method, target, host)`: the body of the answer, or its reason."""

    def with_routes(*routes):
        client = raw_client(proxy(to=[], routes=list(routes)))

        def ask(target="/", host="a.test", method="GET", headers=()):
            client.request(method, target, headers, host=host)
            answer = client.read_response()
            return answer.text or answer.reason

        return ask

    return with_routes


def test_no_route_is_answered_404_and_keeps_the_connection(asking):
    ask = asking(named("a", host="a.test"))
    assert ask(host="b.test") == "route_not_found"
    assert ask() == "a"


def test_exact_host_wins_over_wildcard_wins_over_any(asking):
    ask = asking(named("any"), named("wild", host="*.a.test"), named("deep", host="*.x.a.test"), named("exact", host="x.a.test"))
    assert [ask(host=h) for h in ("x.a.test", "y.a.test", "z.x.a.test", "a.test", "b.test")] == ["exact", "wild", "deep", "any", "any"]


def test_host_is_compared_without_case_and_port(asking):
    ask = asking(named("a", host="a.test"))
    assert [ask(host=h) for h in ("A.TEST", "a.test:8080", "a.Test:1")] == ["a"] * 3


def test_absolute_form_names_the_host(asking):
    # RFC 9112 3.2.2: the host of an absolute-form target replaces Host.
    ask = asking(named("a", host="a.test"), named("b", host="b.test"))
    assert ask("http://b.test/x", host="a.test") == "b"


def test_exact_path_wins_over_the_longest_prefix(asking):
    ask = asking(named("root", prefix="/"), named("users", prefix="/users"), named("deep", prefix="/users/v1"), named("exact", path="/users/v1/me"))
    assert [ask(p) for p in ("/", "/users", "/users/v2", "/users/v1", "/users/v1/x", "/users/v1/me")] == [
        "root", "users", "users", "deep", "deep", "exact"]


def test_prefix_matches_whole_segments_only(asking):
    ask = asking(named("users", prefix="/users"))
    assert [ask(p) for p in ("/users", "/users/", "/users/1", "/usersx", "/user")] == ["users"] * 3 + ["route_not_found"] * 2


def test_query_takes_no_part_in_the_match(asking):
    ask = asking(named("exact", path="/a"), named("users", prefix="/users"))
    assert [ask(p) for p in ("/a?x=1", "/a?", "/users?/x", "/users/1?a=/b")] == ["exact", "exact", "users", "users"]


def test_methods_narrow_a_route_and_fall_back_to_a_wider_one(asking):
    ask = asking(named("read", prefix="/users", methods=["GET", "HEAD"]), named("rest", prefix="/"))
    assert ask("/users") == "read"
    assert ask("/users", method="POST") == "rest"


def test_first_listed_wins_among_equals(asking):
    ask = asking(named("first", prefix="/a"), named("second", prefix="/a"))
    assert ask("/a") == "first"


def test_fields_narrow_a_route_and_fall_back_to_the_next_and_to_a_wider_one(asking):
    ask = asking(
        named("wide", prefix="/"),
        named("both", prefix="/a", headers={"x-canary": "1", "X-User": "ann"}),
        named("canary", prefix="/a", headers={"x-canary": "1"}),
        named("post", prefix="/a", methods=["POST"], headers={"x-canary": "2"}),
    )
    canary, user = ("x-canary", "1"), ("x-user", "ann")
    assert [ask("/a/b", headers=h) for h in ([], [canary], [user], [user, canary])] == ["wide", "canary", "wide", "both"]
    assert [ask("/a", method=m, headers=[("x-canary", "2")]) for m in ("POST", "GET")] == ["post", "wide"]
    assert ask("/b", headers=[user, canary]) == "wide"


def test_a_route_without_fields_that_is_listed_first_hides_those_with(asking):
    ask = asking(named("all", prefix="/a"), named("canary", prefix="/a", headers={"x-canary": "1"}))
    assert ask("/a", headers=[("x-canary", "1")]) == "all"


def test_a_field_is_one_of_its_lines_to_the_octet_and_its_name_has_no_case(asking):
    ask = asking(named("canary", headers={"x-canary": "Yes sir"}), named("other"))
    takes = [[("X-CANARY", "Yes sir")], [("x-canary", "  Yes sir \t")], [("x-canary", "no"), ("x-a", "b"), ("x-canary", "Yes sir")]]
    leaves = [[("x-canary", "yes sir")], [("x-canary", "Yes sir, no")], [("x-canary", "")], [("x-canaryy", "Yes sir")], [("y-canary", "Yes sir")]]
    assert [ask(headers=h) for h in takes] == ["canary"] * 3
    assert [ask(headers=h) for h in leaves] == ["other"] * 5


def test_an_empty_value_asks_for_an_empty_field(asking):
    ask = asking(named("empty", headers={"x-a": ""}), named("other"))
    assert [ask(headers=h) for h in ([("x-a", "")], [], [("x-a", "1")])] == ["empty", "other", "other"]


def test_less_specific_host_serves_paths_the_exact_one_lacks(asking):
    ask = asking(named("narrow", host="a.test", prefix="/only"), named("wide"))
    assert [ask("/only"), ask("/else")] == ["narrow", "wide"]


def test_options_asterisk_is_routed_by_host(asking):
    ask = asking(named("a", host="a.test"))
    assert ask("*", method="OPTIONS") == "a"


def test_thousands_of_routes_are_told_apart(asking):
    ask = asking(*[named(f"r{n}", host=f"h{n % 50}.test", prefix=f"/p{n}") for n in range(3000)])
    assert [ask(f"/p{n}/x", host=f"h{n % 50}.test") for n in (0, 1, 1234, 2999)] == ["r0", "r1", "r1234", "r2999"]
    assert ask("/p7", host="h8.test") == "route_not_found"


def test_direct_response_has_its_status_body_and_fields(proxy, raw_client, only_meshcore):
    client = raw_client(proxy(to=[], routes=[{"name": "fixed", "respond": {"status": 418, "body": "short", "headers": {"x-kind": "teapot"}}}]))
    for _ in range(2):
        answer = client.post("/", b"ignored body")
        assert (answer.status, answer.text, answer.get("x-kind")) == (418, "short", "teapot")


def test_split_shares_requests_by_weight(raw_server, proxy, raw_client, only_meshcore):
    servers = {name: raw_server(response(body=name.encode())) for name in ("heavy", "light", "none")}
    client = raw_client(proxy(
        clusters=[{"name": name, "endpoints": [server.address]} for name, server in servers.items()],
        routes=[{"name": "all", "split": [{"cluster": "heavy", "weight": 90}, {"cluster": "light", "weight": 10}, {"cluster": "none", "weight": 0}]}],
    ))
    answers = [client.get().text for _ in range(600)]
    # 10 % of 600 is 60; 25 to 105 is beyond six standard deviations.
    assert 25 < answers.count("light") < 105
    assert answers.count("none") == 0


def test_endpoint_weights_are_honoured(raw_server, proxy, raw_client, only_meshcore):
    heavy, light, off = raw_server(response(body=b"h")), raw_server(response(body=b"l")), raw_server(response(body=b"0"))
    weighted = [{"address": heavy.address, "weight": 3}, {"address": light.address, "weight": 1}, {"address": off.address, "weight": 0}]
    client = raw_client(proxy(to=weighted, cluster={"balancer": "round_robin"}))
    assert sorted(client.get().text for _ in range(40)) == ["h"] * 30 + ["l"] * 10


@pytest.mark.parametrize("balancer", ["round_robin", "random", "least_request", "peak_ewma"])
def test_every_balancer_uses_every_endpoint(raw_server, proxy, raw_client, only_meshcore, balancer):
    servers = [raw_server() for _ in range(3)]
    client = raw_client(proxy(to=servers, cluster={"balancer": balancer}))
    for _ in range(90):
        assert client.get().status == 200
    # peak_ewma leaves the slowest alone on purpose, but tries each at least once.
    assert all(len(server.requests) >= (1 if balancer == "peak_ewma" else 5) for server in servers)


def test_listener_serves_only_its_own_routes(proxy, raw_client, only_meshcore):
    running = proxy(to=[], routes=[named("one"), named("two")], listeners=[
        {"name": "first", "address": "127.0.0.1:0", "routes": ["one"]},
        {"name": "second", "address": "127.0.0.1:0", "routes": ["two"]},
    ])
    assert raw_client(running, "first").get().text == "one"
    assert raw_client(running, "second").get().text == "two"
