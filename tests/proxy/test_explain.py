"""`meshproxy explain` decides as the engine does, and says why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshcore.cli import main
from meshcore.cli.explain import explained, find, mismatch
from meshcore.config import loads

MESH = """\
listeners:
- {name: web, address: ":8080"}
- {name: internal, address: "127.0.0.1:8081", routes: [health]}
routes:
- {name: users, match: {host: a.test, prefix: /users}, to: users, rewrite: {prefix: /v1, host: u.test}, timeout: 5s,
   request_headers: {set: {x-a: "1"}, remove: [cookie]}}
- {name: wild, match: {host: "*.a.test"}, split: [{cluster: users, weight: 3}, {cluster: orders, weight: 1}]}
- {name: health, match: {path: /health, methods: [GET]}, respond: {status: 200, body: fine}}
clusters:
- {name: users, endpoints: ["127.0.0.1:9000", "127.0.0.1:9001"]}
- {name: orders, endpoints: ["127.0.0.1:9002"]}
"""


@pytest.fixture
def explain(tmp_path, capfd):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["explain", "-c", str(path), *arguments])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


def test_a_route_is_explained_with_all_that_would_happen(explain):
    code, out, _ = explain("GET", "http://A.test:8080/users/7?x=1")
    assert code == 0
    assert "route      users: host a.test, prefix /users" in out
    assert "forwards   /v1/7?x=1, host u.test" in out
    assert "= x-a: 1" in out
    assert "- cookie" in out
    assert "cluster    users, peak_ewma: 127.0.0.1:9000, 127.0.0.1:9001" in out
    assert "response 5s, total off" in out
    assert "not health: path is not /health" in out


def test_a_split_shows_its_shares(explain):
    code, out, _ = explain("GET", "http://b.a.test/")
    assert code == 0
    assert "users 75%" in out
    assert "orders 25%" in out


def test_a_direct_answer_needs_no_cluster(explain):
    code, out, _ = explain("--listener", "internal", "GET", "/health")
    assert code == 0
    assert "answers    200" in out


def test_a_request_without_a_route_exits_1_and_names_what_failed(explain):
    code, out, _ = explain("POST", "http://b.test/health")
    assert code == 1
    assert "route_not_found" in out
    assert "not health: method is not GET" in out
    assert "not users: host is not a.test" in out


def test_an_unknown_listener_lists_the_known_ones(explain):
    code, _, err = explain("--listener", "x", "GET", "/")
    assert code == 2
    assert "listeners are: web, internal" in err


def test_fields_of_the_request_decide_with_the_rest(tmp_path, capfd):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.replace("- {name: users, match", "- {name: canary, match: {headers: {x-canary: '1'}}, to: orders}\n- {name: users, match"))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["explain", "-c", str(path), *arguments])
        return ended.value.code, *capfd.readouterr()

    code, out, _ = run("-H", "X-Canary: 1", "GET", "/orders")
    assert code == 0 and "route      canary: header x-canary: 1" in out
    code, out, _ = run("-H", "x-canary: 2", "GET", "/orders")
    assert code == 1 and "not canary: no header x-canary: 1" in out
    code, _, err = run("-H", "x canary 1", "GET", "/orders")
    assert code == 2 and "it is written 'name: value'" in err


def test_the_decision_as_json(explain):
    code, out, _ = explain("--json", "GET", "http://a.test/users")
    assert code == 0
    assert json.loads(out)["clusters"][0]["share_percent"] == 100


HOSTS = ["a.test", "b.a.test", "c.b.a.test", "b.test", ""]
PATHS = ["/", "/users", "/users/", "/users/7", "/usersx", "/health", "/health/x"]


@given(st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from(["GET", "POST", "PURGE"]))
def test_the_words_agree_with_the_engines_table(host, path, method):
    routes = list(loads(MESH).routes)
    found = find(routes, host, path, method)
    matching = [route for route in routes if not mismatch(route.match, host, path, method)]
    assert (found in matching) if found else not matching


def test_a_rewrite_of_everything_leaves_a_slash():
    config = loads(MESH.replace("prefix: /v1,", "prefix: /,"))
    facts = explained(config, config.listeners[0], "GET", "http://a.test/users")
    assert facts["forwards"] == "/, host u.test"


def test_tcp_listeners_are_passed_over_and_their_routes_do_not_serve_requests(tmp_path, capfd):
    path = tmp_path / "mesh.yaml"
    path.write_text("""\
listeners:
- {name: db, address: ":5432", protocol: tcp, tcp_route: db}
- {name: web, address: ":8080"}
routes:
- {name: db, to: c}
- {name: web, match: {prefix: /a}, to: c}
clusters: [{name: c, endpoints: ["127.0.0.1:9000"]}]
""")
    with pytest.raises(SystemExit) as ended:
        main(["explain", "-c", str(path), "GET", "/b"])
    assert ended.value.code == 1 and "no route matches" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        main(["explain", "-c", str(path), "--listener", "db", "GET", "/b"])
    assert "every connection takes route 'db'" in capfd.readouterr().err


NAMED = """\
listeners: [{name: web, address: ":8080"}]
routes:
- {name: out, match: {host: "*.shop"}, lookup: {by: method_and_host}}
- {name: token, lookup: {by: header_token, header: x-name}, to: rest}
clusters: [{name: rest, endpoints: ["127.0.0.1:9000"]}]
"""


@pytest.fixture
def explain_names(tmp_path, capfd):
    (tmp_path / "mesh.yaml").write_text(NAMED)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["explain", "-c", str(tmp_path / "mesh.yaml"), *arguments])
        return ended.value.code, capfd.readouterr().out

    return run


def test_a_route_that_looks_up_tells_the_name_it_would_ask_for(explain_names):
    """It ended in an IndexError: there is no cluster to tell of."""
    code, out = explain_names("GET", "http://Web.shop:8080/x?y")
    assert code == 0
    assert "name       /svc/1.1/GET/web.shop:8080, by method_and_host" in out
    assert "waits 10s" in out
    code, out = explain_names("--json", "PUT", "http://web.shop/")
    assert json.loads(out)["name"] == {"text": "/svc/1.1/PUT/web.shop", "by": "method_and_host", "waits": "10s"}


def test_a_request_without_a_name_goes_to_the_routes_own_cluster(explain_names):
    code, out = explain_names("GET", "http://elsewhere/")
    assert code == 0
    assert "name       none, by header_token x-name: its own clusters" in out
    assert "cluster    rest" in out


RELAYING = """\
listeners:
- {name: edge, address: ":8443", protocol: detect, tls_routes: [exact, below], tcp_route: rest, routes: [web]}
- {name: plain, address: ":8080", protocol: detect, tls_routes: [exact], routes: [web]}
routes:
- {name: web, to: users, grpc_web: true}
- {name: exact, match: {sni: a.test}, to: users}
- {name: below, match: {sni: "*.a.test"}, to: users}
- {name: rest, to: users}
clusters:
- {name: users, endpoints: ["127.0.0.1:9000"]}
"""


@pytest.mark.parametrize(
    ("listener", "host", "told"),
    [
        ("edge", "a.test", "exact: relayed as it is, by sni a.test"),
        ("edge", "x.a.test", "below: relayed as it is, by sni *.a.test"),
        ("edge", "b.test", "rest: relayed as it is, for no route of tls_routes has the name"),
        ("plain", "b.test", "reset: no route of tls_routes has the name, and there is no tcp_route"),
    ],
)
def test_where_tls_that_is_not_ended_here_goes_is_told(tmp_path, capfd, listener, host, told):
    path = tmp_path / "mesh.yaml"
    path.write_text(RELAYING)
    with pytest.raises(SystemExit):
        main(["explain", "-c", str(path), "--listener", listener, "GET", f"https://{host}/"])
    out = capfd.readouterr().out
    assert f"over TLS   {told}" in out
    assert "grpc-web   calls of gRPC-Web go on as gRPC" in out
