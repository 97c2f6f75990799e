"""The plan holds what the engine needs: nanoseconds, bytes, numbers, sockets."""

import re
import resource
import socket
from pathlib import Path

import pytest

import meshcore
from meshcore.config import Cluster, Config, ConfigError, Limits, Listener, Route, compile_plan, for_targets, loads
from meshcore.config.plan import BALANCERS, RETRY_ON, X_FORWARDED

ENGINE = Path(meshcore.__file__).parent / "engine"


def plan_of(**route):
    config = Config(
        listeners=[Listener(address=":0")],
        routes=[Route(name="r", **({"to": "c"} if not {"split", "respond", "to"} & set(route) else {}), **route)],
        clusters=[Cluster(name="c", endpoints=["127.0.0.1:1"]), Cluster(name="d")],
    )
    return compile_plan(config)


def route_of(**route):
    return plan_of(**route)["routes"][0]


@pytest.mark.parametrize(
    ("match", "host", "host_kind", "path", "path_kind"),
    [
        ({}, "", 0, "", 0),
        ({"prefix": "/"}, "", 0, "/", 2),
        ({"prefix": "/a/"}, "", 0, "/a/", 2),
        ({"path": "/a"}, "", 0, "/a", 1),
        ({"host": "A.Test"}, "a.test", 1, "", 0),
        ({"host": "*.A.test"}, "*.a.test", 2, "", 0),
        ({"host": "[::1]"}, "[::1]", 1, "", 0),
    ],
)
def test_a_match_becomes_text_and_kinds(match, host, host_kind, path, path_kind):
    got = route_of(match=match)["match"]
    assert got == {"host": host, "host_kind": host_kind, "path": path, "path_kind": path_kind, "methods": [], "headers": []}


def test_a_split_becomes_weighted_targets():
    targets = route_of(split=[{"cluster": "c", "weight": 90}, {"cluster": "d"}])["targets"]
    assert targets == [("c", 90), ("d", 1)]


def test_idle_timeouts_that_are_off_never_end():
    off = route_of(idle_timeout=0, tunnel_idle_timeout="0", timeout="0", total_timeout=0)
    never = 3650 * 86400 * 10**9
    assert (off["idle_timeout_ns"], off["tunnel_idle_timeout_ns"]) == (never, never)
    assert (off["response_timeout_ns"], off["total_timeout_ns"]) == (0, 0)


def test_an_answer_of_the_route_has_bytes_and_a_content_type():
    assert route_of(respond={"status": 404, "body": "wo?ß"})["direct"] == {
        "status": 404,
        "headers": [("content-type", "text/plain; charset=utf-8")],
        "body": "wo?ß".encode(),
    }
    assert route_of(respond={})["direct"] == {"status": 200, "headers": [], "body": b""}
    typed = route_of(respond={"body": "{}", "headers": {"Content-Type": "application/json"}})["direct"]
    assert typed["headers"] == [("content-type", "application/json")]


def test_header_edits_are_removed_set_and_added_in_this_order():
    edits = {"add": {"A": "1"}, "set": {"B": " 2 "}, "remove": ["C"]}
    assert route_of(request_headers=edits)["request_headers"] == [(2, "c", ""), (0, "b", "2"), (1, "a", "1")]


def test_retries_become_bits():
    assert route_of()["retry_on"] == 1 | 2
    assert route_of(retries={"on": ["502", 504]})["retry_on"] == 4 | 16
    assert route_of(retries={"max_attempts": 1})["retry_on"] == 0


def enum_of(prefix: str) -> dict[str, int]:
    text = (ENGINE / "snapshot.pxd").read_text()
    return {name.lower(): int(value) for name, value in re.findall(rf"^\s+{prefix}_(\w+) = (\d+)", text, re.MULTILINE)}


def test_the_numbers_are_those_of_the_snapshot():
    assert enum_of("BALANCER") == BALANCERS
    assert enum_of("RETRY") == RETRY_ON
    assert X_FORWARDED == {"off": 0, "append": 1, "replace": 2}


def fields_of(struct: str) -> set[str]:
    text = (ENGINE / "snapshot.pxd").read_text()
    body = re.search(rf"cdef struct {struct}:.*?\n(.*?)\n\n", text, re.DOTALL).group(1)
    return set(re.findall(r"^    [\w*]+ (\w+)", body, re.MULTILINE))


@pytest.mark.parametrize(("struct", "part"), [("Limits", "limits"), ("Forwarding", "forwarding")])
def test_the_plan_names_every_field_of_the_snapshot(struct, part):
    assert fields_of(struct) <= set(plan_of()[part])


def test_the_plan_names_every_field_of_a_cluster():
    derived = {"slot", "n_endpoints", "cumulative_weights", "total_weight", "weights_equal", "is_nothing"}
    cluster = plan_of()["clusters"][0]
    of_each_endpoint = {"tls"}
    assert fields_of("ClusterConf") - derived == set(cluster) - of_each_endpoint
    assert fields_of("BreakerConf") == set(cluster["breaker"])
    assert fields_of("BudgetConf") == set(cluster["budget"])


def test_a_name_becomes_all_its_addresses_each_asked_for_once():
    asked = []

    def resolve(name):
        asked.append(name)
        return ["10.0.0.1", "fd00::1"]

    config = Config(
        listeners=[Listener(address=":0")],
        clusters=[
            Cluster(name="a", endpoints=[{"address": "Svc.test:80", "weight": 7}, "10.0.0.1:80"]),
            Cluster(name="b", endpoints=["svc.test:81"]),
        ],
    )
    a, b = compile_plan(config, resolve=resolve)["clusters"]
    assert asked == ["svc.test"]
    assert a["endpoints"] == [
        {"address": "10.0.0.1:80", "family": socket.AF_INET, "sockaddr": ("10.0.0.1", 80), "weight": 7},
        {"address": "[fd00::1]:80", "family": socket.AF_INET6, "sockaddr": ("fd00::1", 80), "weight": 7},
    ]
    assert [e["address"] for e in b["endpoints"]] == ["10.0.0.1:81", "[fd00::1]:81"]


def test_every_name_that_does_not_resolve_is_told():
    config = Config(
        listeners=[Listener(address=":0")], clusters=[Cluster(name="a", endpoints=["x.test:1", "y.test:1"])]
    )

    def resolve(name):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(ConfigError) as caught:
        compile_plan(config, resolve=resolve)
    assert [problem.got for problem in caught.value.problems] == ["x.test", "y.test"]


@pytest.mark.parametrize(
    ("address", "planned", "sockaddr"),
    [
        (":8080", "0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("[::]:8080", "[::]:8080", ("::", 8080)),
        ("127.0.0.1:0", "127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:1", "127.0.0.1:1", ("127.0.0.1", 1)),
    ],
)
def test_a_listener_gets_a_socket_address(address, planned, sockaddr):
    plan = compile_plan(Config(listeners=[Listener(address=address)]), resolve=lambda name: ["127.0.0.1"])
    assert (plan["listeners"][0]["address"], plan["listeners"][0]["sockaddr"]) == (planned, sockaddr)


def test_connections_are_bounded_by_the_open_files_limit():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = Config(listeners=[Listener(address=":0")], workers=2)
    bound = compile_plan(config)["limits"]["max_connections"]
    assert 64 <= bound <= max(64, soft if soft != resource.RLIM_INFINITY else 2**20)
    own = Config(listeners=[Listener(address=":0")], limits=Limits(max_connections=5))
    assert compile_plan(own)["limits"]["max_connections"] == 5


def test_ten_thousand_routes_become_a_plan():
    routes = [{"name": f"r{i}", "match": {"prefix": f"/r{i}"}, "to": "c"} for i in range(10_000)]
    clusters = [{"name": "c", "endpoints": [f"10.0.{i // 250}.{i % 250}:80" for i in range(1000)]}]
    plan = compile_plan(Config.from_dict({"listeners": [{"address": ":0"}], "routes": routes, "clusters": clusters}))
    assert len(plan["routes"]) == 10_000 and len(plan["listeners"][0]["routes"]) == 10_000
    assert len(plan["clusters"][0]["endpoints"]) == 1000


def test_no_file_form_spreads_options_over_their_sections():
    config = for_targets(
        ":8080,[::1]:8081", "127.0.0.1:1", timeout="3s", balancer="random", head_size="8KiB", workers=2,
        drain="5s", max_body=None, admin="unix:/run/a.sock",
    )  # fmt: skip
    assert [(one.name, one.address) for one in config.listeners] == [
        ("default", "0.0.0.0:8080"),
        ("default-1", "[::1]:8081"),
    ]
    assert (str(config.routes[0].timeout), config.clusters[0].balancer) == ("3s", "random")
    assert (config.limits.head_size, str(config.timeouts.drain), config.workers) == (8192, "5s", 2)
    assert config.admin.address == "unix:/run/a.sock"


@pytest.mark.parametrize(
    ("listen", "to", "options", "said"),
    [
        (":80", ["127.0.0.1"], {}, "--to 127.0.0.1: the address '127.0.0.1' has no port; did you mean '127.0.0.1:80'?"),
        ("80", ["a:1"], {}, "--listen 80: the address '80' is a port alone; did you mean ':80'?"),
        (":80", [], {}, "no target; name at least one address"),
        (":80", ["a:1"], {"timout": "1s"}, "unknown option 'timout'; did you mean 'timeout'?"),
        (":80", ["a:1"], {"timeout": "1"}, "the duration '1' has no unit; did you mean '1s' or '1ms'?"),
    ],
)
def test_no_file_form_tells_which_flag_is_wrong(listen, to, options, said):
    with pytest.raises(ConfigError) as caught:
        for_targets(listen, to, **options)
    assert said in str(caught.value)


def test_yaml_11_surprises_stay_strings():
    text = """
listeners: [{address: ":80"}]
routes:
- name: on
  respond: {body: no, headers: {x-time: 12:30:45, x-version: 010}}
  retries: {on: [reset]}
"""
    route = loads(text).routes[0]
    assert (route.name, route.respond.body) == ("on", "no")
    assert route.respond.headers == {"x-time": "12:30:45", "x-version": "10"}


def test_anchors_merges_and_x_keys_make_a_file_shorter():
    text = """
x-slow: &slow {timeout: 1m, retries: {max_attempts: 3}}
listeners: [{address: ":80"}]
routes:
- {<<: *slow, name: a, respond: {}}
- {<<: *slow, name: b, respond: {}, timeout: 2m}
"""
    a, b = loads(text).routes
    assert (str(a.timeout), a.retries.max_attempts) == ("1m", 3)
    assert (str(b.timeout), b.retries.max_attempts) == ("2m", 3)
