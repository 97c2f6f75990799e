"""Endpoints over TLS: nothing is sent to one that does not prove who it is; the others are pooled, resumed, retried as ever."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
import threading

import pytest

from tests.scenario.certificates import HOUR, Authority, Usage, self_signed
from tests.scenario.clients import request_bytes
from tests.scenario.proxies import config, free_port
from tests.scenario.servers import PATIENCE_S, answering, chunked, eventually, response
from tests.scenario.tls import CLIENT_ID, SERVER_NAME, over_tls, pki  # noqa: F401 (fixture)

pytestmark = pytest.mark.usefixtures("only_meshcore")

ONCE = {"retries": {"max_attempts": 1}}
SERVER_ID = "spiffe://td.test/ns/web/sa/server"


@pytest.fixture
def secured(proxy, raw_server, pki, raw_client):  # noqa: F811
    """`secured(leaf=None, script, **tls)`: (proxy, server, client) with TLS between the first two."""

    def start(leaf=None, script=None, *, clients=False, versions=None, **tls):
        context = pki.server_context(leaf, clients=clients)
        if versions:
            context.maximum_version = versions
        server = raw_server(over_tls(context, *([script] if script else [])))
        running = proxy(to=server, cluster=pki.upstream(**tls), route=ONCE)
        return running, server, raw_client(running)

    return start


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_go_over_one_pooled_connection(version, secured):
    running, server, client = secured(versions=version)
    for i in range(5):
        assert client.get(f"/{i}").status == 200
        assert client.post(f"/{i}", b"x" * 10).status == 200
    assert server.accepted == 1
    endpoint = running.stats().clusters[0].endpoints[0]
    assert (endpoint.tls_handshakes, endpoint.tls_failures, endpoint.connects) == (1, 0, 1)
    assert server.connections[0].sock.selected_alpn_protocol() == "http/1.1"


def test_a_ticket_on_an_idle_connection_does_not_end_it(secured):
    def late_ticket(connection) -> None:
        # TLS 1.3 tickets lie unread before the second request: they came after the first answer was taken.
        for _ in range(3):
            connection.answer()

    running, server, client = secured(script=late_ticket)
    assert client.get().status == 200
    eventually(lambda: running.stats().clusters[0].endpoints[0].idle == 1)
    assert client.post("/", b"body").status == 200      # asks whether the endpoint closed it
    assert server.accepted == 1


def test_a_key_update_on_an_idle_connection_does_not_end_it(proxy, raw_client, pki):  # noqa: F811
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.server_files["cert"], "-key", pki.server_files["key"],
         "-crlf", "-naccept", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdin and server.stdout
        said: list[str] = []
        threading.Thread(target=lambda: said.extend(iter(server.stdout.readline, "")), daemon=True).start()
        eventually(lambda: "ACCEPT\n" in said)
        running = proxy(to=f"127.0.0.1:{port}", cluster={**pki.upstream(), "pool": {"idle_timeout": "1m"}}, route=ONCE)
        client = raw_client(running)
        for number in range(2):
            client.request("GET", f"/{number}")
            eventually(lambda n=number: any(f"GET /{n}" in line for line in said))
            server.stdin.write("HTTP/1.1 200 OK\nContent-Length: 4\n\nok\n")
            server.stdin.flush()
            assert client.read_response().body == b"ok\r\n"
            eventually(lambda: running.stats().clusters[0].endpoints[0].idle == 1)
            wakeups = running.stats().workers[0].wakeups
            server.stdin.write("K\n")       # a KeyUpdate that asks for one in return
            server.stdin.flush()
            eventually(lambda before=wakeups: running.stats().workers[0].wakeups > before)
        assert running.stats().clusters[0].endpoints[0].idle == 1
    finally:
        server.kill()
        server.wait()


def test_an_endpoint_that_closes_politely_is_not_used_again(secured):
    def one_answer(connection) -> None:
        connection.answer()
        try:
            connection.sock.unwrap()
        except (ssl.SSLError, OSError):
            pass

    running, server, client = secured(script=one_answer)
    assert client.get().status == 200
    eventually(lambda: running.stats().clusters[0].endpoints[0].open_connections == 0)
    assert client.post("/", b"body").status == 200
    assert server.accepted == 2 and running.stats().reasons == {}


def test_large_bodies_go_whole_both_ways(secured, rng):
    blob = rng.randbytes(700_000)

    def digest(message) -> bytes:
        return response(200, hashlib.sha256(message.body).hexdigest().encode() + blob)

    _, _, client = secured(script=answering(digest))
    for _ in range(3):
        assert client.post("/", blob).body == hashlib.sha256(blob).hexdigest().encode() + blob


def test_a_chunked_answer_in_small_records_is_relayed(secured):
    _, _, client = secured(script=lambda c: [c.read_request(), [c.send(bytes([octet])) for octet in chunked(b"ab", b"cde")]])
    assert client.get().body == b"abcde"


@pytest.mark.parametrize("polite", [False, True])
def test_an_answer_until_close_is_whole_only_with_close_notify(polite, secured):
    def until_close(connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if polite:
            connection.sock = connection.sock.unwrap()

    running, _, client = secured(script=until_close)
    client.request("GET", "/")
    if polite:
        assert client.read_response().body == b"hello"
    else:
        client.read_to_end()
        assert client.truncated
        assert running.stats().reasons == {"upstream_truncated": 1}


def test_sessions_with_an_endpoint_are_resumed(secured):
    running, server, client = secured(script=lambda connection: connection.answer(headers={"Connection": "close"}))
    for _ in range(4):
        assert client.get().status == 200
    endpoint = running.stats().clusters[0].endpoints[0]
    assert server.accepted == endpoint.tls_handshakes == 4
    assert endpoint.tls_resumed >= 2


# --- who an endpoint is -----------------------------------------------------------------------------------------------------

FAULTS = [
    ("tls_upstream_expired", lambda root: root.leaf(SERVER_NAME, begins=-3 * HOUR, lasts=-HOUR)),
    ("tls_upstream_not_yet_valid", lambda root: root.leaf(SERVER_NAME, begins=HOUR)),
    ("tls_upstream_self_signed", lambda root: self_signed(SERVER_NAME)),
    ("tls_upstream_unknown_ca", lambda root: Authority("stranger").leaf(SERVER_NAME)),
    ("tls_upstream_unknown_ca", lambda root: Authority("between", above=root).leaf(SERVER_NAME, chain=False)),
    ("tls_upstream_wrong_purpose", lambda root: root.leaf(SERVER_NAME, usage=[Usage.CLIENT_AUTH])),
    ("tls_upstream_wrong_identity", lambda root: root.leaf("b.test", "*.a.test")),
    ("tls_upstream_bad_identity", lambda root: root.leaf(SERVER_NAME, SERVER_ID, SERVER_ID + "2")),
    ("tls_upstream_chain_too_deep", lambda root: _deep(root).leaf(SERVER_NAME)),
]


def silent(connection) -> None:
    # What comes is TLS: not to be read as requests.
    connection.sock.recv(65536)


def _deep(root: Authority) -> Authority:
    for i in range(12):
        root = Authority(f"intermediate {i}", above=root)
    return root


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("reason, make", FAULTS, ids=[reason for reason, _ in FAULTS])
def test_nothing_is_sent_to_an_endpoint_with_a_faulty_certificate(reason, make, version, secured, pki):  # noqa: F811
    running, server, client = secured(make(pki.root), versions=version)
    answer = client.get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, reason)
    assert not server.requests
    stats = running.stats()
    assert stats.reasons == {reason: 1}
    assert (stats.clusters[0].failures, stats.clusters[0].endpoints[0].tls_failures) == (1, 1)


@pytest.mark.parametrize(
    "rules, served",
    [([SERVER_ID], True), (["spiffe://td.test/*"], True), ([f"dns:{SERVER_NAME}"], True), (["spiffe://x/y", SERVER_ID], True),
     (["spiffe://td.test/ns/web/sa/other"], False), (["spiffe://other/*"], False), (["dns:b.test"], False)],
)  # fmt: skip
def test_an_endpoint_is_one_of_those_expected(rules, served, secured):
    _, _, client = secured(expected_identity=rules, sni=None)
    answer = client.get()
    assert answer.status == (200 if served else 502)
    assert answer.get("x-mesh-reason") == (None if served else "tls_upstream_wrong_identity")


def test_the_alert_for_a_wrong_identity_is_certificate_unknown(proxy, raw_server, raw_client, pki):  # noqa: F811
    said = []

    def handshake(connection) -> None:
        try:
            pki.server_context().wrap_socket(connection.sock, server_side=True)
        except ssl.SSLError as error:
            said.append(str(error))

    running = proxy(to=raw_server(handshake), cluster=pki.upstream(expected_identity=["spiffe://td.test/other"]))
    assert raw_client(running).get().status == 502
    eventually(lambda: said)
    assert "certificate unknown" in said[0]


def test_an_endpoint_that_speaks_no_tls_is_told_so(proxy, raw_server, raw_client, pki):  # noqa: F811
    def plain(connection) -> None:
        connection.receive()
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.receive()

    answer = raw_client(proxy(to=raw_server(plain), cluster=pki.upstream())).get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_plaintext")


def test_an_endpoint_that_says_nothing_is_given_up(proxy, raw_server, raw_client, pki):  # noqa: F811
    waiting = threading.Event()
    server = raw_server(lambda connection: waiting.wait(PATIENCE_S))
    answer = raw_client(proxy(to=server, cluster=pki.upstream(), timeouts={"tls_handshake": "100ms"}, route=ONCE)).get()
    waiting.set()
    assert (answer.status, answer.get("x-mesh-reason")) == (504, "tls_upstream_handshake_timeout")


def test_an_endpoint_that_closes_during_the_handshake_is_told_so(proxy, raw_server, raw_client, pki):  # noqa: F811
    answer = raw_client(proxy(to=raw_server(lambda connection: connection.receive()), cluster=pki.upstream())).get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_closed")


def test_no_version_in_common_is_told_so(secured):
    _, _, client = secured(versions=ssl.TLSVersion.TLSv1_2, min_version="1.3")
    assert client.get().get("x-mesh-reason") == "tls_upstream_no_common_parameters"


def test_a_request_goes_to_another_endpoint_when_one_fails_its_handshake(proxy, raw_server, raw_client, pki):  # noqa: F811
    bad = raw_server(over_tls(pki.server_context(self_signed(SERVER_NAME))))
    good = raw_server(over_tls(pki.server_context()))
    running = proxy(to=[bad, good], cluster={**pki.upstream(), "balancer": "round_robin"}, route={"retries": {"max_attempts": 2}})
    client = raw_client(running)
    assert [client.post("/", b"x").status for _ in range(6)] == [200] * 6     # nothing was sent: any method may go elsewhere
    assert not bad.requests and len(good.requests) == 6


# --- who we are -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_our_certificate_is_shown_to_endpoints_that_ask(version, secured, pki):  # noqa: F811
    _, server, client = secured(clients=True, versions=version, **pki.client_files)
    assert client.get().status == 200
    assert ("URI", CLIENT_ID) in server.connections[0].sock.getpeercert()["subjectAltName"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_endpoint_that_refuses_us_is_told_from_one_that_fails(version, secured):
    _, _, client = secured(clients=True, versions=version)
    answer = client.get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_refused" if version == ssl.TLSVersion.TLSv1_3
                                                            else "tls_upstream_no_common_parameters")


# --- changes ----------------------------------------------------------------------------------------------------------------


def test_pooled_connections_of_another_trust_carry_nothing_more(proxy, raw_server, raw_client, pki):  # noqa: F811
    server = raw_server(over_tls(pki.server_context()))

    def towards(**tls):
        return config(to=server, cluster=pki.upstream(**tls))

    running = proxy(config=towards())
    client = raw_client(running)
    assert client.get().status == 200
    running.reload(towards(expected_identity=["spiffe://td.test/other"]))
    answer = client.get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_wrong_identity")
    assert len(server.requests) == 1


def test_a_plain_pooled_connection_is_not_used_once_tls_is_asked_for(proxy, raw_server, raw_client, pki):  # noqa: F811
    server = raw_server()
    running = proxy(to=server)
    client = raw_client(running)
    assert client.get().status == 200
    running.reload(config(to=server, cluster=pki.upstream()))
    server.script = silent
    assert client.get("/secret").get("x-mesh-reason") == "tls_upstream_closed"
    assert not [message for message in server.requests if message.target == b"/secret"]


# --- real servers -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("nginx") or shutil.which("/usr/sbin/nginx")), reason="no nginx here")
def test_nginx_over_mutual_tls_answers(proxy, raw_client, pki):  # noqa: F811
    port = free_port()
    files = pki.server_files
    folder = pki.folder
    (folder / "blob").write_bytes(b"n" * 3_000_000)
    pki.file("nginx.conf", f"""
user root; daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} ssl; root {folder}; ssl_certificate {files["cert"]}; ssl_certificate_key {files["key"]};
    ssl_client_certificate {pki.ca}; ssl_verify_client on; ssl_session_cache shared:s:1m;
    location = /who {{ return 200 $ssl_client_verify; }} }}
}}""".encode())
    nginx = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")])
    try:
        running = proxy(to=f"127.0.0.1:{port}", cluster=pki.upstream(**pki.client_files))
        client = raw_client(running)
        eventually(lambda: raw_client(running).get("/who").text == "SUCCESS")
        for _ in range(3):
            client.reader.expect("GET")
            client.send(request_bytes("GET", "/blob"))
            assert client.read_response().body_bytes == 3_000_000
    finally:
        nginx.terminate()
        nginx.wait()


# --- HTTP/2 -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def behind(proxy, raw_server, raw_client, pki):  # noqa: F811
    """`behind(listener_tls, cluster_tls)`: a proxy whose endpoint is another one, over HTTP/2 and TLS."""

    def start(listener=None, **tls):
        server = raw_server()
        endpoint = proxy(to=server, listeners=pki.mutual(**(listener or {})))
        front = proxy(to="127.0.0.1:%d" % endpoint.addresses["web"][1], route=ONCE,
                      cluster={**pki.upstream(**{**pki.client_files, **tls}), "protocol": "http2"})  # fmt: skip
        return front, endpoint, server, raw_client(front)

    return start


def test_http_2_goes_to_endpoints_over_mutual_tls(behind, rng):
    front, endpoint, server, client = behind()
    blob = rng.randbytes(300_000)
    for _ in range(5):
        assert client.post("/x", blob).status == 200
    assert {message.body for message in server.requests} == {blob}
    assert {message.get("l5d-client-id") for message in server.requests} == {CLIENT_ID}
    assert endpoint.stats().listeners[0].tls_handshakes == front.stats().clusters[0].endpoints[0].tls_handshakes == 1


@pytest.mark.parametrize(
    "listener, tls, reason",
    [({}, {"expected_identity": ["spiffe://td.test/other"]}, "tls_upstream_wrong_identity"),
     ({"alpn": ["http/1.1"]}, {}, "tls_upstream_no_alpn")],
)  # fmt: skip
def test_an_http_2_endpoint_that_is_not_who_it_must_be_gets_nothing(listener, tls, reason, behind):
    front, _, server, client = behind(listener, **tls)
    answer = client.get()
    assert (answer.status, answer.get("x-mesh-reason")) == (502, reason)
    assert not server.requests and front.stats().clusters[0].endpoints[0].tls_failures == 1
