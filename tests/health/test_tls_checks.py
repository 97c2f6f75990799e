"""Checks over TLS and mutual TLS: who proves to be an endpoint of the cluster is asked, and nobody else passes."""

import asyncio
from concurrent import futures

import grpc
import pytest

from meshcore.certificates import Certificates
from meshcore.config import Config, compile_plan
from meshcore.health import targets_of
from meshcore.health.probes import CheckFailed, ask
from tests.scenario import proxies
from tests.scenario.certificates import Authority
from tests.scenario.servers import eventually, response
from tests.scenario.tls import SERVER_NAME, over_tls, pki  # noqa: F401

SERVER_ID = "spiffe://td.test/ns/web/sa/server"


def outcome(address: str, tls: dict, proxy_protocol: str = "off", **check):
    """("passed", "") or what failed, in words."""
    cluster = {"health_check": {"timeout": "10s", **check}, "tls": tls, "proxy_protocol": proxy_protocol}
    config = Config.from_dict(proxies.config(to=address, cluster=cluster, **({} if proxy_protocol == "off" else {
        "listeners": [{"name": "web", "address": "127.0.0.1:0", "protocol": "tcp", "tcp_route": "all"}]})))
    certificates = Certificates()
    certificates.commit(certificates.prepare(config))
    [target] = targets_of(config, compile_plan(config), certificates.checks)
    try:
        asyncio.run(ask(target))
    except CheckFailed as failed:
        return failed.result, failed.words
    return "passed", ""


def answering(connection):
    connection.read_request()
    connection.send(response(200))


@pytest.mark.parametrize("expected", [None, SERVER_ID, "spiffe://td.test/*", f"dns:{SERVER_NAME}"])
def test_an_endpoint_that_is_who_it_must_be_passes(expected, raw_server, pki):  # noqa: F811
    server = raw_server(over_tls(pki.server_context(), answering))
    tls = pki.upstream()["tls"] if expected is None else {"ca": pki.ca, "expected_identity": [expected]}
    assert outcome(server.address, tls) == ("passed", "")
    assert server.requests[0].path == "/"


def test_a_status_that_is_not_expected_fails_as_in_the_clear(raw_server, pki):  # noqa: F811
    def failing(connection):
        connection.read_request()
        connection.send(response(503))

    result, words = outcome(raw_server(over_tls(pki.server_context(), failing)).address, pki.upstream()["tls"])
    assert (result, words) == ("bad_answer", "it answered 503, expected 200-399")


@pytest.mark.parametrize("expected", ["spiffe://td.test/ns/web/sa/other", "spiffe://other.test/*", "dns:b.test"])
def test_somebody_else_with_a_good_certificate_fails(expected, raw_server, pki):  # noqa: F811
    server = raw_server(over_tls(pki.server_context(), answering))
    result, words = outcome(server.address, {"ca": pki.ca, "expected_identity": [expected]})
    assert result == "bad_answer" and words.startswith("its certificate is of DNS:a.test") and words.endswith(f"expected {expected}")
    assert not server.requests


def test_a_certificate_of_another_root_fails(raw_server, pki, tmp_path):  # noqa: F811
    (tmp_path / "other").mkdir()
    other = Authority().write(tmp_path / "other")
    server = raw_server(over_tls(pki.server_context(), answering))
    result, words = outcome(server.address, {"ca": other, "sni": SERVER_NAME})
    assert result == "bad_answer" and words.startswith("its certificate is not trusted: ")
    assert not server.requests


@pytest.mark.parametrize("known", [True, False])
def test_an_endpoint_may_ask_for_a_certificate(known, raw_server, pki):  # noqa: F811
    server = raw_server(over_tls(pki.server_context(clients=True), answering))
    result, words = outcome(server.address, pki.upstream()["tls"] | (pki.client_files if known else {}))
    assert result == ("passed" if known else "bad_answer"), words
    assert known or words.startswith(("TLS: ", "it closed"))


def test_an_endpoint_in_the_clear_fails(raw_server, pki):  # noqa: F811
    def plain(connection):
        connection.sock.recv(1000)
        connection.sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")
        connection.sock.recv(1000)

    result, words = outcome(raw_server(plain).address, pki.upstream()["tls"])
    assert result == "bad_answer" and words.startswith("TLS: ")


def test_a_proxy_header_comes_before_the_handshake(raw_server, pki):  # noqa: F811
    def behind_header(connection):
        header = b""
        while not header.endswith(b"\r\n"):
            header += connection.sock.recv(1)
        assert header == b"PROXY UNKNOWN\r\n"
        over_tls(pki.server_context(), answering)(connection)

    assert outcome(raw_server(behind_header).address, pki.upstream()["tls"], proxy_protocol="v1") == ("passed", "")


@pytest.mark.parametrize("expected", [None, "spiffe://td.test/ns/web/sa/other"])
def test_a_check_of_tcp_is_content_with_the_handshake(expected, raw_server, pki):  # noqa: F811
    server = raw_server(over_tls(pki.server_context(), lambda connection: connection.wait_closed()))
    tls = pki.upstream()["tls"] if expected is None else {"ca": pki.ca, "expected_identity": [expected]}
    assert outcome(server.address, tls, type="tcp")[0] == ("passed" if expected is None else "bad_answer")


def test_a_check_of_tcp_fails_where_no_tls_is_spoken(raw_server, pki):  # noqa: F811
    result, words = outcome(raw_server(lambda connection: connection.sock.close()).address, pki.upstream()["tls"], type="tcp")
    assert result == "bad_answer", words


def test_a_check_at_another_port_goes_without(raw_server, pki):  # noqa: F811
    port = int(raw_server(response(200)).address.rpartition(":")[2])
    assert outcome("127.0.0.1:9", pki.upstream()["tls"], port=port) == ("passed", "")


@pytest.fixture
def health_server(pki):  # noqa: F811
    """`health_server(status)`: grpc.health.v1 over mutual TLS, by grpcio."""
    servers = []

    def start(status: int) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        check = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08" + bytes([status]))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),))
        read = {name: open(path, "rb").read() for name, path in pki.server_files.items()}
        credentials = grpc.ssl_server_credentials([(read["key"], read["cert"])], open(pki.ca, "rb").read(), require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait(5)


def test_a_grpc_check_asks_over_mutual_tls(health_server, pki):  # noqa: F811
    tls = {"ca": pki.ca, "expected_identity": [SERVER_ID], **pki.client_files}
    assert outcome(health_server(1), tls, type="grpc") == ("passed", "")
    assert outcome(health_server(2), tls, type="grpc") == ("bad_answer", "it says NOT_SERVING")
    result, words = outcome(health_server(1), tls | {"expected_identity": ["spiffe://td.test/other"]}, type="grpc")
    assert result == "bad_answer" and "expected spiffe://td.test/other" in words


def test_a_running_proxy_takes_out_who_is_not_to_be_trusted_any_more(proxy, raw_server, pki, raw_client, only_meshcore):  # noqa: F811
    def serving(connection):
        while True:
            connection.answer()

    server = raw_server(over_tls(pki.server_context(), serving))
    checks = {"health_check": {"interval": "20ms", "timeout": "5s", "fall": 1, "rise": 1}, "breaker": {"panic_percent": 0}}
    running = proxy(to=server, cluster={**checks, **pki.upstream()})
    eventually(lambda: running.stats().clusters[0].endpoints[0].checks_passed > 0)
    assert raw_client(running).get().status == 200
    (pki.folder / "other").mkdir()
    with open(Authority().write(pki.folder / "other"), "rb") as other:
        running.set_trust_bundle("backend", other.read(), cluster=True)
    eventually(lambda: not running.stats().clusters[0].endpoints[0].healthy)
    assert raw_client(running).get().reason == "all_ejected"
