"""What a Linkerd 1.x file says, what of it has no meaning here, and what is wrong in it, each at its place."""

from textwrap import dedent

import pytest

from meshcore import config
from meshcore.binder.policies import ClientTls
from meshcore.binder.transform import Transformer
from meshcore.errors import ConfigError
from meshcore.linkerd import read_file, read_text
from meshcore.linkerd.settings import Daemonset, Identifier, ServerTls
from meshcore.naming import Path, read_dtab, read_path

PER_NODE = """\
    # An outgoing router that sends to the proxy of the other node, an incoming one that sends to its own node.
    admin: {port: 9990}
    telemetry:
    - kind: io.l5d.prometheus
    namers:
    - kind: io.l5d.fs
      rootDir: disco
    routers:
    - protocol: http
      label: outgoing
      originator: true
      dtab: |
        /srv => /#/io.l5d.fs ;
        /svc => /srv ;
      interpreter:
        kind: default
        transformers:
        - {kind: io.l5d.port, port: 4141}
      servers:
      - port: 4140
        ip: 127.0.0.1
    - protocol: http
      label: incoming
      dtab: /svc => /#/io.l5d.fs
      interpreter:
        transformers:
        - kind: io.l5d.localhost
      servers:
      - {port: 4141, ip: 0.0.0.0, maxConcurrentRequests: 1000}
    """

POLICIES = """\
    routers:
    - protocol: http
      label: web
      dtab: /svc/* => 0.9*/$/inet/a/80 & 0.1*/$/inet/b/80
      identifier: {kind: io.l5d.path, segments: 2, consume: true}
      bindingTimeoutMs: 3000
      bindingCache: {paths: 10, trees: 10, bounds: 10, clients: 10, idleTtlSecs: 60}
      service:
        kind: io.l5d.static
        configs:
        - prefix: /svc
          totalTimeoutMs: 500
        - prefix: /svc/slow
          totalTimeoutMs: 9000
          responseClassifier: {kind: io.l5d.http.retryableIdempotent5XX}
          retries:
            budget: {minRetriesPerSec: 5, percentCanRetry: 0.5, ttlSecs: 15}
            backoff: {kind: jittered, minMs: 10, maxMs: 10000}
      client:
        kind: io.l5d.static
        configs:
        - prefix: /
          loadBalancer: {kind: ewma, decayTimeMs: 5000, maxEffort: 10}
          failureAccrual:
            kind: io.l5d.consecutiveFailures
            failures: 3
            backoff: {kind: constant, ms: 2000}
        - prefix: "/$/inet/{host}"
          requestAttemptTimeoutMs: 100
          hostConnectionPool: {minSize: 0, maxSize: 50, idleTimeMs: 10000, maxWaiters: 20}
          tls: {commonName: "{host}.example", trustCerts: [/etc/ca.pem]}
      servers:
      - port: 4140
    """

NAMERD = """\
    { "routers": [ {
        "protocol": "h2", "experimental": true,
        "interpreter": { "kind": "io.l5d.mesh", "dst": "/$/inet/namerd.example/4321", "root": "/prod",
                         "retry": { "baseSeconds": 1, "maxSeconds": 60 } },
        "identifier": { "kind": "io.l5d.header.path", "segments": 1 },
        "servers": [ { "port": 4142, "ip": "0.0.0.0",
                       "tls": { "certPath": "c.pem", "keyPath": "k.pem", "requireClientAuth": true, "caCertPath": "ca.pem" } } ]
    } ] }
    """


def read(text):
    return read_text(dedent(text), "l5d.yaml")


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def one_router(**keys):
    lines = ["routers:", "- protocol: http", "  servers: [{port: 4140}]"]
    return "\n".join([*lines, *(f"  {key}: {value}" for key, value in keys.items())]) + "\n"


# --- what is read ---


def test_a_per_node_file_has_two_routers_that_change_addresses_each_in_its_way():
    found = read(PER_NODE)
    outgoing, incoming = found.file.routers
    assert outgoing.dtab == read_dtab("/srv => /#/io.l5d.fs ; /svc => /srv")
    assert outgoing.interpreter.transformers == (Transformer("port", port=4141),)
    assert incoming.interpreter.transformers == (Transformer("localhost"),)
    assert [namer["kind"] for namer in found.file.namers] == ["io.l5d.fs"]
    assert found.file.admin == "127.0.0.1:9990"


def test_settings_by_prefix_are_merged_key_by_key_and_later_ones_win():
    router = read(POLICIES).file.routers[0]
    assert router.services.of(read_path("/svc/web"))["total_timeout"] == "500ms"
    slow = router.services.of(read_path("/svc/slow"))
    assert slow["total_timeout"] == "9000ms"
    assert slow["retry_budget"] == {"min_per_second": 5, "ratio_percent": 50, "ttl": "15s"}
    assert slow["retry_backoff"] == {"backoff": "10ms", "max_backoff": "10s", "jitter": "decorrelated"}
    assert slow["retries"]["on"] == ["connect_failure", "reset", "502", "503", "504"]
    client = router.clients.of(read_path("/$/inet/a/80"))
    assert client["balancer"] == "peak_ewma" and client["ewma_decay"] == "5000ms"
    assert client["breaker"] == {"consecutive_failures": 3, "backoff": "2000ms", "max_backoff": "2000ms", "jitter_percent": 0}
    assert client["timeout"] == "100ms" and client["max_connections"] == 50 and client["max_queue"] == 20
    assert client["tls"] == ClientTls("{host}.example", ("/etc/ca.pem",))
    assert router.clients.variables(read_path("/$/inet/a/80")) == {"host": "a"}
    assert "timeout" not in router.clients.of(read_path("/#/io.l5d.fs/a"))


@pytest.mark.parametrize(
    ("accrual", "found"),
    [
        (
            "{kind: io.l5d.successRate, successRate: 0.925, requests: 40}",
            {"consecutive_failures": 0, "success_rate": {"least_percent": 92.5, "requests": 40}},
        ),
        (
            "{kind: io.l5d.successRateWindowed, successRate: 0.999, window: 30, backoff: {kind: constant, ms: 10}}",
            {
                "consecutive_failures": 0, "success_rate": {"least_percent": 99.9, "requests": 5, "window": "30s"},
                "backoff": "10ms", "max_backoff": "10ms", "jitter_percent": 0,
            },
        ),
        (
            "{kind: io.l5d.consecutiveFailures, failures: 7, backoff: {kind: jittered, minMs: 100, maxMs: 9000}}",
            {"consecutive_failures": 7, "backoff": "100ms", "max_backoff": "9000ms", "jitter": "decorrelated"},
        ),
        ("{kind: none}", {"consecutive_failures": 0}),
    ],
)  # fmt: skip
def test_failure_accrual_of_every_kind_is_a_breaker(accrual, found):
    client = read(one_router(client=f"{{failureAccrual: {accrual}}}")).file.routers[0].clients.of(read_path("/$/inet/a/80"))
    assert client["breaker"] == {"backoff": "5s", "max_backoff": "5m", **found}
    config.Cluster(name="web", breaker=client["breaker"])


def test_a_file_in_json_is_read_as_well():
    router = read(NAMERD).file.routers[0]
    assert (router.protocol, router.label) == ("h2", "h2")
    assert (router.interpreter.kind, router.interpreter.host, router.interpreter.port) == ("mesh", "namerd.example", 4321)
    assert router.interpreter.namespace == "prod"
    assert router.identifier == Identifier(by="path", segments=1)
    assert router.servers[0].tls == ServerTls("c.pem", "k.pem", "ca.pem", True)


@pytest.mark.parametrize(
    ("identifier", "found"),
    [
        ("{kind: io.l5d.header.token}", Identifier()),
        ("{kind: io.l5d.header.token, header: X-Service}", Identifier(header="x-service")),
        ("{kind: io.l5d.methodAndHost}", Identifier(by="method_and_host")),
        ("{kind: io.l5d.header}", Identifier(by="header", header="l5d-name")),
        ("[{kind: io.l5d.path, segments: 3}]", Identifier(by="path", segments=3)),
        ("{kind: io.l5d.static, path: web/v2}", Identifier(by="constant", name="/web/v2")),
    ],
)
def test_identifiers_are_ways_of_a_lookup(identifier, found):
    assert read(one_router(identifier=identifier)).file.routers[0].identifier == found


def test_what_linkerd_assumes_is_assumed():
    router = read(one_router()).file.routers[0]
    assert (router.label, router.prefix, router.binding_timeout) == ("http", Path.of("svc"), "10s")
    assert router.identifier == Identifier() and router.interpreter.kind == "default"
    assert router.servers[0].host == "127.0.0.1"


def test_a_daemonset_and_the_own_node_are_known_from_kubernetes(monkeypatch):
    text = one_router(
        interpreter="{transformers: [{kind: io.l5d.k8s.daemonset, namespace: mesh, service: l5d, port: incoming},"
        " {kind: io.l5d.k8s.localnode, hostNetwork: true}]}"
    )
    monkeypatch.setenv("NODE_NAME", "node-7")
    found = read(text).file.routers[0].interpreter
    assert found.daemonset == Daemonset("mesh", "l5d", "incoming")
    assert found.transformers == (Transformer("localnode", host="node-7"),)
    monkeypatch.delenv("NODE_NAME")
    assert any("NODE_NAME is not in the environment" in problem for problem in problems(text))


# --- whom a server trusts ---


@pytest.mark.parametrize(
    ("server", "is_trusted"),
    [
        ("{port: 4140}", True),
        ("{port: 4140, clearContext: true}", False),
        ("{port: 4140, ip: 0.0.0.0}", False),
        ("{port: 4140, ip: 0.0.0.0, clearContext: false}", True),
        ("{port: 4140, ip: 0.0.0.0, tls: {certPath: c, keyPath: k}}", False),
        ("{port: 4140, ip: 0.0.0.0, tls: {certPath: c, keyPath: k, caCertPath: a, requireClientAuth: true}}", True),
    ],
)
def test_callers_are_heard_where_they_are_known_or_where_the_file_says_so(server, is_trusted):
    found = read(f"routers:\n- protocol: http\n  servers: [{server}]\n")
    assert found.file.routers[0].servers[0].trusts_callers is is_trusted
    told = any("not heard at 0.0.0.0:4140" in str(warning) for warning in found.warnings)
    assert told is (not is_trusted and "clearContext" not in server)


# --- what has no meaning here ---


def test_a_key_without_meaning_is_told_with_its_place_and_why():
    warnings = [str(warning) for warning in read(POLICIES).warnings]
    assert any(text.startswith("l5d.yaml:7:18: 'paths' of 'bindingCache' of router 'web' has no meaning here") for text in warnings)
    assert any("'maxEffort'" in text for text in warnings)


def test_settings_that_only_come_near_are_told():
    text = one_router(
        client="{loadBalancer: {kind: aperture}}",
        service="{retries: {backoff: {kind: constant, ms: 1}}}",
    )
    warnings = [str(warning) for warning in read(text).warnings]
    assert any("aperture counts as p2c" in text for text in warnings)
    assert any("a retry waits from 2ms" in text and "1ms counts as 2ms" in text for text in warnings)


def test_an_admin_server_for_everyone_listens_on_this_machine_only():
    found = read("admin: {ip: 0.0.0.0, port: 9000}\n" + one_router())
    assert found.file.admin == "127.0.0.1:9000"
    assert "does not authenticate" in str(found.warnings[0])


def test_a_table_that_goes_round_is_told():
    found = read(one_router(dtab='"/svc => /host ; /host => /svc"'))
    assert any("loop" in str(warning) for warning in found.warnings)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (one_router(dtabs="/a=>/b"), "l5d.yaml:4:3: unknown key 'dtabs' in router 'http'; did you mean 'dtab'?"),
        (one_router(dtab='"/svc = /b"'), "l5d.yaml:4:9: 'dtab' of router 'http': '>' expected but ' ' found"),
        (one_router(bindingTimeoutMs="soon"), "expected a whole number from 1"),
        (one_router(interpreter="{kind: io.l5d.namerd, dst: /$/inet/a/4100}"), "Thrift is not spoken here"),
        (one_router(interpreter="{kind: io.l5d.mesh}"), "where is namerd? dst is nothing"),
        (one_router(interpreter="{kind: io.l5d.mesh, dst: /$/inet/a/1, root: /a/b}"), "a root has exactly one segment"),
        (one_router(identifier="[{kind: io.l5d.path}, {kind: io.l5d.header}]"), "several identifiers"),
        (one_router(identifier="{kind: io.l5d.pth}"), "did you mean 'io.l5d.path'?"),
        (one_router(client="{tls: {disableValidation: true}}"), "does not prove who it is"),
        (one_router(client="{requestAuthorizers: []}"), "not authorized by Istio's mixer"),
        ("routers:\n- protocol: thrift\n  servers: [{port: 4114}]\n", "thrift is not spoken here"),
        ("routers:\n- protocol: http\n", "nobody can connect"),
        ("routers: []\n", "the file has no routers"),
        (one_router() + one_router().removeprefix("routers:\n"), "two routers are called 'http'"),
        (one_router() + "admins: {}\n", "unknown key 'admins' in the file; did you mean 'admin'?"),
    ],
)
def test_a_mistake_is_told_at_its_place_with_the_way_out(text, expected):
    assert any(expected in problem for problem in problems(text)), problems(text)


def test_all_mistakes_are_told_at_once():
    assert len(problems(one_router(dtab='"x"', labell="a", dstPrefix="svc"))) == 3


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_file(tmp_path / "none.yaml")
