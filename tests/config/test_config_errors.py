"""What is wrong in a file is told with its place, what is meant, and all at once."""

import pytest
from hypothesis import assume, HealthCheck, given, settings
from hypothesis import strategies as st

from meshcore.config import ConfigError, Route, check, compile_plan, load, loads, read
from meshcore.config.section import specs
from meshcore.config.suggest import ELSEWHERE, distance, nearest
from meshcore.config.types import SECTIONS

GOOD = """\
listeners:
- {name: web, address: ":8080"}
routes:
- name: users
  match: {prefix: /users, methods: [GET]}
  to: users
  timeout: 5s
clusters:
- name: users
  endpoints: ["127.0.0.1:9000"]
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, "mesh.yaml")
    return str(caught.value).splitlines()


def the_problem_of(text: str) -> str:
    (problem,) = problems_of(text)
    return problem


def test_the_good_file_is_good():
    loads(GOOD)


# (what stands in the good file, what is mistyped instead, line, the word that is suggested)
TYPOS = [
    ("listeners:", "listner:", 1, "listeners"),
    ("listeners:", "Listeners:", 1, "listeners"),
    ("address:", "adress:", 2, "address"),
    ("address:", "bind:", 2, "address"),
    ("address:", "addresss:", 2, "address"),
    ("routes:", "route:", 3, "routes"),
    ("routes:", "ruotes:", 3, "routes"),
    ("- name: users\n  match", "- nmae: users\n  match", 4, "name"),
    ("- name: users\n  match", "- nam: users\n  match", 4, "name"),
    ("match:", "mach:", 5, "match"),
    ("match:", "matches:", 5, "match"),
    ("prefix:", "perfix:", 5, "prefix"),
    ("prefix:", "prefx:", 5, "prefix"),
    ("methods:", "method:", 5, "methods"),
    ("methods:", "metods:", 5, "methods"),
    ("to: users", "too: users", 6, "to"),
    ("to: users", "ot: users", 6, "to"),
    ("to: users", "cluster: users", 6, "to"),
    ("to: users", "backend: users", 6, "to"),
    ("timeout:", "timout:", 7, "timeout"),
    ("timeout:", "timeuot:", 7, "timeout"),
    ("timeout:", "time-out:", 7, "timeout"),
    ("timeout:", "total-timeout:", 7, "total_timeout"),
    ("timeout:", "totalTimeout:", 7, "total_timeout"),
    ("timeout:", "max_boddy:", 7, "max_body"),
    ("clusters:", "cluster:", 8, "clusters"),
    ("clusters:", "upstreams:", 8, "clusters"),
    ("- name: users\n  endpoints", "- naem: users\n  endpoints", 9, "name"),
    ("endpoints:", "endpoint:", 10, "endpoints"),
    ("endpoints:", "endponits:", 10, "endpoints"),
    ("endpoints:", "servers:", 10, "endpoints"),
    ("endpoints:", "load_balancer:", 10, "balancer"),
]


@pytest.mark.parametrize(("right", "wrong", "line", "meant"), TYPOS, ids=[typo[1].split(":")[0] for typo in TYPOS])
def test_a_mistyped_key_is_told_once_with_line_key_and_suggestion(right, wrong, line, meant):
    text = GOOD.replace(right, wrong, 1)
    key = wrong.removeprefix("- ").split(":")[0]
    told = the_problem_of(text)
    column = text.splitlines()[line - 1].index(f"{key}:") + 1
    assert told.startswith(f"mesh.yaml:{line}:{column}: unknown key '{key}' in ")
    assert told.endswith(f"; did you mean '{meant}'?")


def test_a_file_of_linkerd_is_told_how_it_is_given():
    told = the_problem_of(GOOD.replace("routes:", "routers: []\nroutes:", 1))
    assert told.endswith("unknown key 'routers' in the configuration; did you mean 'routes'; a file of Linkerd 1.x is given with --linkerd")


def test_the_message_has_the_promised_form():
    text = GOOD.replace("timeout: 5s", "timout: 5s")
    assert the_problem_of(text) == "mesh.yaml:7:3: unknown key 'timout' in route 'users'; did you mean 'timeout'?"


def test_a_key_near_to_none_lists_the_valid_ones():
    told = the_problem_of(GOOD.replace("timeout: 5s", "zzzzzz: 5s"))
    assert told.startswith("mesh.yaml:7:3: unknown key 'zzzzzz' in route 'users'; keys are: connect, grpc_web, idle_timeout, ")


def test_a_key_of_another_section_is_sent_home():
    told = the_problem_of(GOOD.replace("timeout: 5s", "head_size: 5s"))
    assert told == "mesh.yaml:7:3: unknown key 'head_size' in route 'users'; it belongs in limits"


KEYS = sorted((section, key) for section in range(len(SECTIONS)) for key in specs(SECTIONS[section]) if len(key) > 3)


@given(st.sampled_from(KEYS), st.data())
def test_any_key_one_or_two_edits_away_gets_a_suggestion(where, data):
    section, key = where
    known = list(specs(SECTIONS[section]))
    typo = key
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(typo) - 1))
        letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
        typo = data.draw(
            st.sampled_from(
                [
                    typo[:at] + typo[at + 1 :],
                    typo[:at] + letter + typo[at:],
                    typo[:at] + letter + typo[at + 1 :],
                    typo[:at] + typo[at : at + 2][::-1] + typo[at + 2 :],
                ]
            )
        )
    assume(distance(typo, key) <= 2)  # a letter put between two swapped ones makes three
    meant = nearest(typo, known)
    # Another key may be as near, or the typo may be a word of another proxy; an arbitrary key is no suggestion.
    assert meant is not None
    assert meant == key or distance(typo, meant) <= distance(typo, key) or typo in ELSEWHERE


def in_route(line: str) -> str:
    return GOOD.replace("timeout: 5s", line)


def in_cluster(line: str) -> str:
    return GOOD + f"  {line}\n"


def at_top(line: str) -> str:
    return GOOD + line + "\n"


def with_endpoint(text: str) -> str:
    return GOOD.replace('"127.0.0.1:9000"', text)


# (a file, what the message says after the place)
VALUES = [
    (in_route("timeout: 15"), "'timeout' in route 'users': the duration '15' has no unit; did you mean '15s' or '15ms'?"),
    (in_route("timeout: 1.5s"), "a duration is a whole number and a unit, not '1.5s'; write '1500ms'"),
    (in_route("timeout: 1m30s"), "a duration has one unit, not '1m30s'; write '90s'"),
    (in_route("timeout: -1s"), "a duration cannot be negative: '-1s'; 0 switches a timeout off"),
    (in_route("timeout: -1"), "a duration cannot be negative: the number -1"),
    (in_route("timeout: 15 sec"), "unknown unit 'sec' in the duration '15 sec'; did you mean '15s'?"),
    (in_route("timeout: 15x"), "unknown unit 'x' in the duration '15x'; units are: us, ms, s, m, h, d"),
    (in_route("timeout: 9999999999999999d"), "the duration '9999999999999999d' overflows; the longest is 3650d"),
    (in_route("timeout: 99999999999999999999999s"), "the duration overflows"),
    (in_route("timeout: 99999999999999999999999"), "the duration overflows"),
    (in_route("timeout: 2d"), "2d is out of range; from 1ms to 1d (or 0 for off)"),
    (in_route("timeout: [1s]"), "expected a duration such as '250ms' or '15s', got a list"),
    (in_route("timeout: true"), "expected a duration such as '250ms' or '15s', got the boolean true"),
    (in_route("timeout:"), "the key 'timeout' has no value"),
    (in_route("max_body: 1MB"), "unknown unit 'MB' in the size '1MB'; did you mean '1MiB' (1048576 bytes)?"),
    (in_route("max_body: -1"), "a size cannot be negative"),
    (in_route("max_body: 2TiB"), "2TiB is out of range"),
    (in_route("upgrade: yes"), "expected true or false, got the string 'yes'; write true"),
    (in_route("retries: {max_attempts: 11}"), "'max_attempts' in retries of route 'users': 11 is out of range; from 1 to 10"),
    (in_route('retries: {max_attempts: "2"}'), "expected a whole number, got the string '2'; remove the quotes: 2"),
    (in_route("retries: {max_attempts: 2.0}"), "expected a whole number, got the number 2.0; write 2"),
    (in_route("retries: {on: [resets]}"), "unknown value 'resets'; did you mean 'reset'?"),
    (in_route("retries: {on: reset}"), "expected a list, got the string 'reset'; put it in brackets: [reset]"),
    (in_route("retries: 3"), "retries of route 'users': expected a mapping, got the number 3"),
    (in_route("split: [{cluster: users}]"), "'split' in route 'users': 'to' and 'split' exclude each other; keep one of them"),
    (in_route("respond: {status: 204, body: x}"), "a 204 response has no body"),
    (in_route("respond: {status: 101}"), "101 is out of range; from 200 to 599"),
    (in_route("respond: {status: 600}"), "600 is out of range"),
    (in_route("request_headers: {set: {Host: a}}"), "'host' cannot be edited as a header; use rewrite.host"),
    (in_route("request_headers: {add: {Content-Length: 1}}"), "'content-length' cannot be edited"),
    (in_route("response_headers: {remove: [connection]}"), "'connection' cannot be edited"),
    (in_route("request_headers: {add: {Transfer-Encoding: x}}"), "'transfer-encoding' cannot be edited"),
    (in_route("request_headers: {add: {a b: x}}"), "the string 'a b' is not a header name"),
    (in_route('request_headers: {add: {a: "x\\ny"}}'), "a header value cannot hold a line feed"),
    (in_route('request_headers: {add: {a: "x\\ry"}}'), "a header value cannot hold a carriage return"),
    (in_route('request_headers: {add: {a: "x\\0y"}}'), "a header value cannot hold a NUL"),
    (in_route("request_headers: {add: {a: é}}"), "a header value cannot hold U+00E9"),
    (in_route("request_headers: {add: {a: 1.10}}"), "expected a header value, got the number 1.1; put it in quotes"),
    (in_route("request_headers: {set: {a: x}, remove: [A]}"), "'a' is also in 'set'"),
    (in_route("request_headers: {set: {a: x, A: y}}"), "'a' is listed twice"),
    (GOOD.replace("prefix: /users", "prefix: users"), "the path 'users' does not start with '/'; did you mean '/users'?"),
    (GOOD.replace("prefix: /users", "path: /a?b"), "the path '/a?b' has a query"),
    (GOOD.replace("prefix: /users", "prefix: /users/*"), "ends in a wildcard; write prefix: /users"),
    (GOOD.replace("prefix: /users", 'prefix: "/a b"'), "holds U+0020; percent-encode it"),
    (GOOD.replace("prefix: /users", "path: /a, prefix: /b"), "path and prefix exclude each other"),
    (GOOD.replace("prefix: /users", "headers: {host: a}"), "'host' cannot be looked at as a header; use match.host"),
    (GOOD.replace("prefix: /users", "headers: {a b: c}"), "header name"),
    (GOOD.replace("prefix: /users", 'host: "*"'), "'*' alone is not a host; leave host out to match every host"),
    (GOOD.replace("prefix: /users", 'host: "a.*.test"'), "stands in the wrong place; only a leading '*.'"),
    (GOOD.replace("prefix: /users", 'host: "*a.test"'), "stands in the wrong place"),
    (GOOD.replace("prefix: /users", 'host: "**.test"'), "stands in the wrong place"),
    (GOOD.replace("prefix: /users", 'host: "a.test:80"'), "has a port; write 'a.test'"),
    (GOOD.replace("prefix: /users", 'host: "http://a.test"'), "is a URL; write the host name only"),
    (GOOD.replace("prefix: /users", "host: a..test"), "is not a host name"),
    (GOOD.replace("prefix: /users", "host: a.test."), "ends in a dot; write 'a.test'"),
    (GOOD.replace("[GET]", "[get]"), "unknown method 'get'; did you mean 'GET'?"),
    (GOOD.replace("[GET]", "[GTE]"), "unknown method 'GTE'; did you mean 'GET'?"),
    (GOOD.replace("[GET]", '["G:T"]'), "the string 'G:T' is not a request method"),
    (GOOD.replace("[GET]", "[GET, GET]"), "'GET' is listed twice"),
    (GOOD.replace("to: users", "split: []"), "the list is empty; it needs at least 1"),
    (GOOD.replace("to: users", "split: [{cluster: users, weight: 0}]"), "all weights are 0"),
    (GOOD.replace("to: users", "split: [{cluster: users, weight: 65536}]"), "65536 is out of range; from 0 to 65535"),
    (GOOD.replace("to: users", "split: [{cluster: users}, {cluster: users}]"), "cluster 'users' is listed twice"),
    (GOOD.replace("  to: users\n", ""), "route 'users': nothing says where requests go; set one of to, split, respond"),
    (GOOD.replace("to: users", "to: user"), "route 'users' names unknown cluster 'user'; did you mean 'users'? clusters are: users"),
    (GOOD.replace("{name: web,", "{routes: [user],"), "names unknown route 'user'; did you mean 'users'? routes are: users"),
    (GOOD.replace("prefix: /users,", "") .replace("timeout: 5s", "rewrite: {prefix: /v1}"), "add match.prefix: /"),
    (with_endpoint("9000"), "got the number 9000; did you mean '127.0.0.1:9000'?"),
    (with_endpoint('"9000"'), "the address '9000' is a port alone; did you mean '127.0.0.1:9000'?"),
    (with_endpoint('":9000"'), "the address ':9000' has no host; did you mean '127.0.0.1:9000'?"),
    (with_endpoint('"a.test"'), "the address 'a.test' has no port; did you mean 'a.test:80'?"),
    (with_endpoint('"a.test:http"'), "the port in 'a.test:http' is not a number"),
    (with_endpoint('"a.test:65536"'), "the port 65536 is out of range"),
    (with_endpoint('"a.test:0"'), "has port 0"),
    (with_endpoint('"http://a.test:80/"'), "is a URL; write 'a.test:80' without 'http://'"),
    (with_endpoint('"1.2.3.256:80"'), "'1.2.3.256' is not an IPv4 address"),
    (with_endpoint('"::1:80"'), "the IPv6 address in '::1:80' needs brackets; write '[::1]:80'"),
    (with_endpoint('"[::g]:80"'), "'::g' is not an IPv6 address"),
    (with_endpoint('"/run/a.sock"'), "did you mean 'unix:/run/a.sock'?"),
    (with_endpoint('"unix:run/a.sock"'), "the unix socket path 'run/a.sock' is not absolute"),
    (with_endpoint('"unix:/' + "x" * 107 + '"'), "the unix socket path is longer than 107 bytes"),
    (with_endpoint('"a.test:80", "A.test:80"'), "endpoint 'a.test:80' is listed twice"),
    (with_endpoint("{weight: 2}"), "endpoint 1 of cluster 'users': the key 'address' is missing"),
    (with_endpoint('{address: "a.test:80", weight: x}'), "'weight' in endpoint 'a.test:80' of cluster 'users': expected a whole number"),
    (GOOD.replace('["127.0.0.1:9000"]', '"127.0.0.1:9000"'), "expected a list, got the string '127.0.0.1:9000'"),
    (in_cluster("balancer: least_requests"), "unknown value 'least_requests'; did you mean 'least_request'?"),
    (in_cluster("breaker: {backoff: 2m}"), "backoff 2m is longer than max_backoff 1m"),
    (in_cluster("breaker: {panic_percent: 101}"), "101 is out of range; from 0 to 100"),
    (GOOD + "- name: users\n", "duplicate cluster name 'users'; it is also the name of cluster 1"),
    (GOOD.replace("clusters:", "- {name: users, to: users}\nclusters:"), "duplicate route name 'users'"),
    (GOOD.replace("routes:", '- {address: ":8080"}\nroutes:'), "listens on '0.0.0.0:8080', which listener 'web' already takes"),
    (GOOD.replace("routes:", '- {address: "127.0.0.1:8080"}\nroutes:'), "which listener 'web' already takes"),
    (at_top('admin: {address: "127.0.0.1:8080"}'), "admin listens on '127.0.0.1:8080', which listener 'web' already takes"),
    (at_top('admin: {address: ":9901"}'), "did you mean '127.0.0.1:9901'?"),
    (at_top('admin: {address: "10.0.0.1:9901"}'), "is not a loopback address; it has no authentication"),
    (at_top('admin: {address: "[::]:9901"}'), "is not a loopback address"),
    (at_top("workers: 0"), "0 is out of range; from 1 to 256"),
    (at_top("workers: Auto"), "did you mean 'auto'?"),
    (at_top("limits: {head_size: 32}"), "32 is out of range; from 1KiB to 1MiB"),
    (at_top("forwarding: {via: a b}"), "is not a token"),
    (at_top("limits: [1]"), "limits: expected a mapping, got a list"),
    (at_top("? [a]\n: b"), "a key must be a single word"),
    (at_top("routes: []"), "duplicate key 'routes'; it is already set at line 3"),
    (GOOD.replace("to: users", "to: users\n  to: users"), "duplicate key 'to'; it is already set at line 6"),
    (GOOD.replace('\n- {name: web, address: ":8080"}', " []"), "the list is empty; it needs at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), VALUES, ids=[said[:60] for _, said in VALUES])
def test_a_wrong_value_is_told_once_with_its_line(text, said):
    told = the_problem_of(text)
    place, message = told.split(": ", 1)
    file, line, column = place.split(":")
    assert file == "mesh.yaml" and int(line) > 0 and int(column) > 0
    assert said in message


NOT_YAML = [
    ("", "mesh.yaml: the configuration is empty"),
    ("# nothing\n", "mesh.yaml: the configuration is empty"),
    ("- a\n", "mesh.yaml:1:1: the configuration: expected a mapping, got a list"),
    ("hello\n", "mesh.yaml:1:1: the configuration: expected a mapping, got the string 'hello'"),
    ("a: b: c\n", "mesh.yaml:1:5: not valid YAML: mapping values are not allowed"),
    ("listeners:\n\t- a\n", "mesh.yaml:2:1: a tab indents this line; YAML indents with spaces only"),
    ("a: [1\n", "mesh.yaml:2:1: not valid YAML"),
    ('a: "b\n', "mesh.yaml:2:1: not valid YAML: found unexpected end of stream while scanning a quoted scalar; close the quote"),
    ("host: *.a.test\n", "quote a value that begins with '*'"),
    ("a: *b\n", "mesh.yaml:1:4: alias '*b' has no anchor '&b' before it"),
    ("a: &a [*a]\n", "mesh.yaml:1:8: alias '*a' stands inside its own anchor"),
    ("a: `b`\n", "quote a value that begins with this character"),
    ("a: b\x01\n", "mesh.yaml:1:5: the character U+0001 is not allowed in YAML"),
    ("a: 1\n---\nb: 1\n", "mesh.yaml:2:1: a second document starts here"),
    ("a: !!python/object:os.system x\n", "the tag 'tag:yaml.org,2002:python/object:os.system' is not used here"),
    ("a: " + "[" * 100 + "]" * 100 + "\n", "nested deeper than 64 levels"),
    ("<<: 5\n", "'<<' merges mappings only"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), NOT_YAML, ids=[said[:50] for _, said in NOT_YAML])
def test_what_is_no_configuration_is_told_in_words(text, said):
    assert any(said in told for told in problems_of(text))


def test_all_problems_are_told_together_in_file_order():
    text = in_route("timeout: 15").replace("to: users", "to: user").replace("address:", "adress:") + "  balancer: x\n"
    assert [told.split(": ")[0] for told in problems_of(text)] == [
        "mesh.yaml:2:15",
        "mesh.yaml:6:7",
        "mesh.yaml:7:12",
        "mesh.yaml:11:13",
    ]


def test_a_reference_to_a_broken_cluster_is_no_second_problem():
    assert "balancer" in the_problem_of(in_cluster("balancer: x"))
    assert "'name' is missing" in the_problem_of(GOOD.replace("- name: users\n  endpoints", "- endpoints"))


def test_lines_are_right_after_a_section_that_cannot_be_read():
    text = GOOD.replace("clusters:", "- {name: broken}\n- {name: later, to: nowhere}\nclusters:")
    assert [told.split(": ")[0] for told in problems_of(text)] == ["mesh.yaml:8:3", "mesh.yaml:9:21"]


TCP = """\
listeners:
- {name: web, address: ":8080"}
- {name: db, address: ":5432", protocol: tcp, tcp_route: db}
routes:
- {name: web, to: users}
- {name: db, to: users}
clusters:
- {name: users, endpoints: ["127.0.0.1:9000"]}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (", tcp_route: db}", "}", "mesh.yaml:3:3: "),
        (", tcp_route: db}", "}", "set tcp_route"),
        ("protocol: tcp, tcp_route: db", "protocol: detect", "set tcp_route"),
        ("tcp_route: db", "routes: [web], tcp_route: db", "a TCP listener reads no requests"),
        ("tcp_route: db", "tcp_route: bd", "did you mean 'db'"),
        ("tcp_route: db", "tls_routes: [bd]", "did you mean 'db'"),
        ("protocol: tcp, tcp_route: db", "tls_routes: [db]", "takes no TLS"),
        ("tcp_route: db", "tcp_route: db, mesh_hop: on", "come over HTTP/2"),
        ("protocol: tcp", "protocol: http", "only `protocol: tcp` and `protocol: detect`"),
        ("tcp_route: db", "tcp_route: db, deferred_accept: true", "begin with the server's"),
        ("{name: db, to", "{name: db, match: {host: a.test}, to", "'match' has no meaning there"),
        ("{name: db, to: users}", "{name: db, respond: {status: 200}}", "'respond' has no meaning there"),
        ("{name: db, to", "{name: db, request_headers: {remove: [a]}, to", "'request_headers' has no meaning there"),
        ("protocol: tcp", "protocol: TCP", "unknown value 'TCP'"),
    ],
)
def test_what_makes_no_sense_of_a_tcp_listener_is_told(right, wrong, said):
    loads(TCP)
    assert said in the_problem_of(TCP.replace(right, wrong))


SNI = TCP.replace("tcp_route: db", "tls_routes: [db, all]").replace("{name: db, to", "{name: all, to: users}\n- {name: db, match: {sni: a.test}, to")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("{sni: a.test}", "{sni: a.test, host: b.test}", "'host' is of requests"),
        ("{sni: a.test}", "{sni: 'a.*'}", "wildcard"),
        ("{name: web, to", "{name: web, match: {sni: a.test}, to", "in no listener's tls_routes"),
        ("{name: all, to", "{name: all, match: {sni: A.Test}, to", "match the same sni"),
        ("{name: db, match", "{name: db, max_body: 1KiB, match", "is a tls_route: 'max_body' has no meaning there"),
        ("[db, all]", "[db, all], tls: {certificates: [{cert: a, key: b}]}", "route 'all' takes every name"),
    ],
)
def test_what_makes_no_sense_of_routes_by_name_is_told(right, wrong, said):
    loads(SNI)
    assert said in the_problem_of(SNI.replace(right, wrong))


@pytest.mark.parametrize("word", ["http1", "http2", "same"])
def test_a_cluster_of_the_mesh_hop_has_no_other_protocol(word):
    assert "exclude each other" in the_problem_of(in_cluster(f"mesh_hop: on\n  protocol: {word}"))


def test_a_cluster_of_http_routes_cannot_be_told_clients_by_connection():
    cluster = '{name: users, endpoints: ["127.0.0.1:9000"]}'
    told = cluster.replace("name: users", "name: users, proxy_protocol: v2")
    assert "route 'web' serves HTTP" in the_problem_of(TCP.replace(cluster, told))
    own = TCP.replace("{name: db, to: users}", "{name: db, to: own}").replace(cluster, cluster + "\n- " + told.replace("users", "own"))
    loads(own)


def test_routes_of_tcp_listeners_serve_http_only_where_they_are_named():
    def routes(text):
        return [listener["routes"] for listener in compile_plan(loads(text))["listeners"]]

    assert routes(TCP) == [["web"], []]
    assert routes(TCP.replace('":8080"', '":8080", routes: [db, web]')) == [["db", "web"], []]
    assert routes(TCP.replace("protocol: tcp", "protocol: detect")) == [["web"], ["web"]]


def test_many_problems_are_cut_and_counted():
    text = GOOD + "".join(f"k{'x' * i}: 1\n" for i in range(20, 80))
    lines = problems_of(text)
    assert len(lines) == 51 and lines[-1] == "… and 10 more problems"


def test_an_alias_bomb_is_refused_before_it_goes_off():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 30):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert any("aliases expand to more than 100000 nodes" in told for told in problems_of(bomb))


def test_a_file_of_more_than_8_mib_is_refused(tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_bytes(b"#" * (8 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 8 MiB"):
        load(file)


def test_a_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the file: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read the file: Is a directory"):
        load(tmp_path)
    file = tmp_path / "mesh.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"mesh.yaml:2:4: byte 0xff is not UTF-8"):
        load(file)


def test_control_bytes_of_a_file_never_reach_the_terminal():
    told = problems_of(GOOD.replace("to: users", 'to: "\\e[31mred"') + '"\\e[2J": 1\n')
    assert len(told) == 2 and not any("\x1b" in line for line in told)


def test_an_error_knows_its_parts():
    with pytest.raises(ConfigError) as caught:
        loads(in_route("timeout: 15"), "mesh.yaml")
    error = caught.value
    assert (error.path, error.line, error.column, error.got) == ("mesh.yaml", 7, 12, 15)
    assert error.hint == "did you mean '15s' or '15ms'?"
    assert (error.source, error.retryable) == ("config", False)
    (problem,) = error.problems
    assert problem.path == ("routes", 0, "timeout")


def test_a_struct_with_a_wrong_value_fails_where_it_is_written():
    with pytest.raises(ConfigError, match="^'timeout' in route 'a': the duration '15' has no unit; did you mean '15s'"):
        Route(name="a", to="b", timeout="15")
    with pytest.raises(ConfigError, match="^'prefix' in match of route 'a': the path 'x' does not start"):
        Route(name="a", to="b", match={"prefix": "x"})
    with pytest.raises(TypeError, match="timout"):
        Route(name="a", to="b", timout="15s")


def test_a_dict_is_told_its_path_instead_of_a_line():
    with pytest.raises(ConfigError) as caught:
        read({"listeners": [{"address": ":80"}], "routes": [{"name": "a", "to": "b"}]})
    assert str(caught.value) == "routes[0].to: route 'a' names unknown cluster 'b'; there are no clusters"


def test_a_name_that_does_not_resolve_is_told_with_its_endpoint_and_line():
    config = loads(with_endpoint('"127.0.0.1:1", "nowhere.invalid:80"'), "mesh.yaml")

    def resolve(name: str) -> list[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(ConfigError) as caught:
        compile_plan(config, resolve=resolve)
    assert str(caught.value).startswith(
        "mesh.yaml:10:30: endpoint 'nowhere.invalid:80' of cluster 'users': the name 'nowhere.invalid' does not resolve"
    )


@given(st.text(alphabet=st.sampled_from("abc:-[]{},*&!|>\"'# \n\t0123/.%@`~?<"), max_size=60))
def test_any_text_gives_a_config_or_a_config_error(text):
    try:
        loads(text, "mesh.yaml")
    except ConfigError as error:
        assert error.problems and str(error)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ANY_KEY = st.sampled_from(sorted({key for section in SECTIONS for key in specs(section)}))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(sorted(specs(SECTIONS[0]))),
        VALUE | st.dictionaries(ANY_KEY, VALUE) | st.lists(st.dictionaries(ANY_KEY, VALUE), max_size=3),
    )
)
def test_any_dict_gives_a_config_or_a_config_error(value):
    try:
        read(value)
    except ConfigError as error:
        assert error.problems and str(error)


def test_two_listeners_may_each_have_a_route_that_takes_everything():
    config = loads(
        "listeners: [{name: a, address: ':1', routes: [x]}, {name: b, address: ':2', routes: [y]}]\n"
        "routes: [{name: x, to: c}, {name: y, to: c}]\nclusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n"
    )
    assert check(config) == []
