"""What a name leads to: alternatives and shares, endpoints that differ in what they speak, and TLS with each as itself."""

import contextlib
import hashlib

import pytest

import meshcore
from meshcore import Binding, BoundCluster, BoundEndpoint, First, Share
from tests.proxy.named import NamedProxy, binding, clusters, until
from tests.scenario.certificates import Authority, pem
from tests.scenario.servers import answering, eventually, refusing_port, response
from tests.scenario.tls import CLIENT_ID, over_tls, pki  # noqa: F401 (fixture)

pytestmark = pytest.mark.usefixtures("only_meshcore")

ONE, TWO = "spiffe://td.test/ns/web/sa/one", "spiffe://td.test/ns/web/sa/two"


@pytest.fixture
def named():
    running = []

    def start(known=None, **words):
        running.append(NamedProxy(known, **words))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def refuser() -> str:
    return f"127.0.0.1:{refusing_port()}"


# --- trees ------------------------------------------------------------------------------------------------------------


def test_the_first_alternative_alive_takes_the_request(raw_server, raw_client, named):
    first, second = raw_server(), raw_server()
    bound = Binding(clusters=clusters(first=first, second=second, empty=[]), trees={"main": First(("empty", "first", "second"))})
    client = raw_client(named({"web.test:80": bound}))
    for _ in range(3):
        assert client.get(host="web.test").status == 200
    assert (len(first.requests), len(second.requests)) == (3, 0)


def test_a_retry_goes_over_to_the_next_alternative(raw_server, raw_client, named):
    second = raw_server()
    bound = Binding(clusters=clusters(first=refuser(), second=second), trees={"main": First(("first", "second"))})
    proxy = named({"web.test:80": bound})
    client = raw_client(proxy)
    for number in range(8):
        assert client.post(f"/{number}", b"body", host="web.test").status == 200
    assert [request.body for request in second.requests] == [b"body"] * 8
    assert proxy.stats().reasons == {}


def test_an_ejected_alternative_is_passed_by(raw_server, raw_client, named):
    first, second = raw_server(response(503)), raw_server()
    once = meshcore.config.Route(to="main", retries={"max_attempts": 1})
    bound = Binding(clusters=clusters(first=first, second=second), trees={"main": First(("first", "second"))}, routes=(once,))
    proxy = named({"web.test:80": bound})
    statuses = [raw_client(proxy).get(host="web.test").status for _ in range(12)]
    assert statuses[:5] == [503] * 5 and statuses[5:] == [200] * 7, "five in a row eject it"


def test_an_alternative_out_of_reach_is_passed_by_from_the_first_time_on(raw_server, raw_client, named):
    once = meshcore.config.Route(to="main", retries={"max_attempts": 1})
    bound = Binding(clusters=clusters(first=refuser(), second=raw_server()), trees={"main": First(("first", "second"))}, routes=(once,))
    proxy = named({"web.test:80": bound})
    # A refusal closes the client's connection: each try has its own.
    assert [raw_client(proxy).get(host="web.test").status for _ in range(6)] == [502] + [200] * 5


def test_shares_are_drawn_for_each_request(raw_server, raw_client, named):
    heavy, light, none = raw_server(), raw_server(), raw_server()
    bound = Binding(clusters=clusters(heavy=heavy, light=light, none=none), trees={"main": Share(((9, "heavy"), (1, "light"), (0, "none")))})
    client = raw_client(named({"web.test:80": bound}))
    for _ in range(400):
        assert client.get(host="web.test").status == 200
    assert len(heavy.requests) + len(light.requests) == 400 and not none.requests
    # 40 expected; nine standard deviations either way.
    assert 0 < len(light.requests) < 100


def test_a_share_whose_endpoints_are_gone_gives_its_part_to_the_others(raw_server, raw_client, named):
    alive = raw_server()
    bound = Binding(clusters=clusters(gone=[], alive=alive), trees={"main": Share(((5, "gone"), (5, "alive")))})
    client = raw_client(named({"web.test:80": bound}))
    assert [client.get(host="web.test").status for _ in range(30)] == [200] * 30


def test_trees_nest_by_name(raw_server, raw_client, named):
    one, two = raw_server(), raw_server()
    trees = {"main": First(("none", "pair")), "pair": Share(((1, "one"), (1, First(("none", "two")))))}
    bound = Binding(clusters=clusters(one=one, two=two, none=[]), trees=trees)
    client = raw_client(named({"web.test:80": bound}))
    for _ in range(60):
        assert client.get(host="web.test").status == 200
    assert one.requests and two.requests


def test_a_tree_in_which_nobody_is_alive_answers_503(raw_client, named):
    bound = Binding(clusters=clusters(one=[], two=[]), trees={"main": First(("one", "two"))})
    answer = raw_client(named({"web.test:80": bound})).get(host="web.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (503, "no_endpoint")


@pytest.mark.parametrize(("trees", "says"), [
    ({"a": First(("b",)), "b": First(("a",))}, "in a circle"),
    ({"a": First(("nowhere",))}, "names 'nowhere'"),
    ({"a": First(())}, "of nothing"),
    ({"a": Share(((-1, "one"),))}, "is not within"),
    ({"one": First(("one",))}, "both a cluster and a tree"),
])
def test_a_tree_that_cannot_be_is_told(named, raw_server, trees, says):
    proxy = named()
    with pytest.raises(meshcore.ConfigError, match=says):
        proxy.bind("web.test:80", Binding(clusters=clusters(one=raw_server()), trees=trees))


# --- protocols --------------------------------------------------------------------------------------------------------


def test_endpoints_of_one_cluster_may_speak_differently(raw_server, h2_server, raw_client, named):
    """A body without a length is chunked for one and bare for the other, whoever gets it."""
    plain, h2 = raw_server(), h2_server()
    cluster = BoundCluster(name="mixed", endpoints=(
        BoundEndpoint(address=plain.address), BoundEndpoint(address=h2.address, protocol="http2"),
    ), settings=meshcore.config.Cluster(name="any", balancer="round_robin"))
    client = raw_client(named({"web.test:80": Binding(clusters=(cluster,))}))
    for number in range(6):
        client.reader.expect("POST")
        client.send(b"POST /%d HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" % number)
        assert client.read_response().status == 200
    assert len(plain.requests) == 3 and len(h2.requests) == 3
    assert {request.body for request in plain.requests} == {b"abcde"}
    assert {bytes(request.body) for request in h2.requests} == {b"abcde"}


@pytest.mark.parametrize("protocols", [("http1", "http2"), ("http2", "http1")])
def test_a_chunked_body_is_framed_anew_for_an_endpoint_that_speaks_otherwise(raw_server, h2_server, raw_client, named, protocols):
    servers = {"http1": raw_server, "http2": h2_server}
    good = servers[protocols[1]]()
    trees = {"main": First(("first", "second"))}
    bound = Binding(trees=trees, clusters=(
        BoundCluster(name="first", endpoints=(BoundEndpoint(address=refuser(), protocol=protocols[0]),)),
        BoundCluster(name="second", endpoints=(BoundEndpoint(address=good.address, protocol=protocols[1]),)),
    ))
    client = raw_client(named({"web.test:80": bound}))
    client.reader.expect("POST")
    client.send(b"POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n")
    assert client.read_response().status == 200
    assert bytes(good.requests[0].body) == b"hello"


def test_an_http2_client_waits_for_its_name_as_well(raw_server, h2_client, named):
    server = raw_server(answering(lambda message: response(200, hashlib.sha256(message.body).hexdigest().encode())))
    proxy = named()
    client = h2_client(proxy)
    stream = client.request("POST", "/", body=b"x" * 30_000, authority="web.test")
    assert [one.name for one in proxy.wait_asked()] == ["web.test:80"]
    proxy.bind("web.test:80", binding(server))
    answer = client.response(stream)
    assert bytes(answer.body) == hashlib.sha256(b"x" * 30_000).hexdigest().encode()


# --- TCP --------------------------------------------------------------------------------------------------------------


def test_a_connection_that_is_not_http_waits_for_its_name(raw_server, raw_client, named):
    def echo(connection):
        connection.sock.sendall(connection.sock.recv(100).upper())
        connection.wait_closed()

    server = raw_server(echo)
    proxy = named(routes=[{"name": "out", "lookup": {"by": "constant", "name": "/db"}}],
                  listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "out"}])
    client = raw_client(proxy)
    client.send(b"hello")
    assert [(one.name, one.method) for one in proxy.wait_asked()] == [("/svc/db", "")]
    proxy.bind("/svc/db", binding(server))
    assert client.sock.recv(100) == b"HELLO"
    proxy.bind("/svc/db", meshcore.Negative())
    with contextlib.suppress(ConnectionError):        # it may be reset while it connects
        raw_client(proxy).receive()
    eventually(lambda: proxy.stats().reasons.get("name_unknown") == 1)


# --- TLS --------------------------------------------------------------------------------------------------------------


def secured(raw_server, pki, identity, script=None, clients=True):  # noqa: F811
    context = pki.server_context(pki.root.leaf(identity), clients=clients)
    return raw_server(over_tls(context, *([script] if script else [])))


def trusting(pki):  # noqa: F811
    """What a proxy shows and trusts: `on_start` of a NamedProxy."""
    return lambda proxy: proxy.set_tls_context("mesh", ca=pem(pki.root.certificate), cert=pki.client.cert_pem, key=pki.client.key_pem)


def meshed(server, identity, **more) -> BoundEndpoint:
    return BoundEndpoint(address=server.address, tls="mesh", identity=identity, **more)


def test_meshed_and_plain_endpoints_stand_side_by_side(raw_server, raw_client, pki, named):  # noqa: F811
    plain, one, two = raw_server(), secured(raw_server, pki, ONE), secured(raw_server, pki, TWO)
    endpoints = (BoundEndpoint(address=plain.address), meshed(one, ONE), meshed(two, TWO))
    bound = Binding(clusters=(BoundCluster(name="web", endpoints=endpoints, settings=meshcore.config.Cluster(name="x", balancer="round_robin")),))
    proxy = named({"web.test:80": bound}, on_start=trusting(pki))
    client = raw_client(proxy)
    for _ in range(6):
        assert client.get(host="web.test").status == 200
    assert [len(server.requests) for server in (plain, one, two)] == [2, 2, 2]
    assert one.connections[0].sock.getpeercert()["subjectAltName"] == (("URI", CLIENT_ID),)


def test_an_endpoint_that_is_another_gets_nothing(raw_server, raw_client, pki, named):  # noqa: F811
    server = secured(raw_server, pki, TWO)
    bound = Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, ONE),)),))
    answer = raw_client(named({"web.test:80": bound}, on_start=trusting(pki))).get(host="web.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_wrong_identity")
    assert not server.requests


def test_a_plain_endpoint_is_not_taken_for_a_meshed_one(raw_server, raw_client, pki, named):  # noqa: F811
    server = raw_server()
    bound = Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, ONE),)),))
    answer = raw_client(named({"web.test:80": bound}, on_start=trusting(pki))).get(host="web.test")
    assert answer.status == 502 and answer.get("x-mesh-reason").startswith("tls_upstream_")
    assert not server.requests
    server.trouble.clear()              # what it was sent is no HTTP


def test_a_pooled_connection_of_another_identity_is_another_endpoint_s(raw_server, raw_client, pki, named):  # noqa: F811
    server = secured(raw_server, pki, ONE)
    proxy = named({"web.test:80": Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, ONE),)),))}, on_start=trusting(pki))
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 200
    proxy.bind("web.test:80", Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, TWO),)),)))
    assert raw_client(proxy).get(host="web.test").get("x-mesh-reason") == "tls_upstream_wrong_identity"
    assert len(server.requests) == 1


def test_another_trust_in_a_shared_context_closes_what_was_opened_under_the_old(raw_server, raw_client, pki, named):  # noqa: F811
    server = secured(raw_server, pki, ONE, clients=False)
    proxy = named({"web.test:80": Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, ONE),)),))}, on_start=trusting(pki))
    assert raw_client(proxy).get(host="web.test").status == 200
    proxy.proxy.set_tls_context("mesh", ca=pem(Authority("another").certificate))
    answer = raw_client(proxy).get(host="web.test")
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_unknown_ca")
    assert len(server.requests) == 1
    until(lambda: server.connections[0].closed, "the old connection ends")


def test_another_certificate_in_a_shared_context_is_shown_from_the_next_handshake_on(raw_server, raw_client, pki, named):  # noqa: F811
    names = []

    def look(connection):
        names.append(connection.sock.getpeercert()["subjectAltName"][0][1])
        connection.answer(headers={"Connection": "close"})

    server = secured(raw_server, pki, ONE, script=look)
    proxy = named({"web.test:80": Binding(clusters=(BoundCluster(name="web", endpoints=(meshed(server, ONE),)),))}, on_start=trusting(pki))
    client = raw_client(proxy)
    assert client.get(host="web.test").status == 200
    leaf = pki.root.leaf("spiffe://td.test/ns/web/sa/renewed")
    proxy.proxy.set_tls_context("mesh", ca=pem(pki.root.certificate), cert=leaf.cert_pem, key=leaf.key_pem)
    assert client.get(host="web.test").status == 200
    assert names == [CLIENT_ID, "spiffe://td.test/ns/web/sa/renewed"]
