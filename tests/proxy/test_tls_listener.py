"""Clients come over TLS: certificates by name, protocols, versions, whole bodies both ways, and no plaintext instead."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.proxies import config, raw_stats
from tests.scenario.servers import PATIENCE_S, eventually, response
from tests.scenario.tls import CLIENT_ID, SERVER_NAME, pki, plain_socket, tls_client  # noqa: F401 (fixtures)

pytestmark = pytest.mark.usefixtures("only_meshcore")


def reasons(running) -> dict[str, int]:
    return running.stats().reasons


def test_a_request_over_tls_is_answered_and_its_scheme_told(proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.listener())
    client = tls_client(running)
    assert client.get("/a").status == 200
    assert client.get("/b").status == 200
    assert client.sock.version() == "TLSv1.3"
    assert server.requests[0].get("x-forwarded-proto") == "https"
    assert running.stats().listeners[0].tls_handshakes == 1


def test_curl_over_tls_gets_its_answer(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    port = running.addresses["web"][1]
    for extra in (["--tls-max", "1.2"], []):
        done = subprocess.run(
            ["curl", "-sS", "--cacert", pki.ca, "--resolve", f"{SERVER_NAME}:{port}:127.0.0.1", *extra, f"https://{SERVER_NAME}:{port}/"],
            capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"ok"), done.stderr


def test_s_client_is_answered_after_its_close_notify(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    port = running.addresses["web"][1]
    done = subprocess.run(
        ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", pki.ca, "-connect", f"127.0.0.1:{port}"],
        input=request_bytes("GET", "/", {"Connection": "close"}), capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.endswith(b"\r\n\r\nok"), done.stderr


# --- certificates and protocols -----------------------------------------------------------------------------------------


def shown(running, pki, name) -> bytes:  # noqa: F811
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(plain_socket(running), server_hostname=name) as sock:
        return sock.getpeercert(binary_form=True)


def test_the_certificate_is_the_one_with_the_name_asked_for(proxy, raw_server, pki):  # noqa: F811
    leaves = [pki.root.leaf("first.test"), pki.root.leaf("b.test", "*.c.test"), pki.root.leaf("x.c.test")]
    files = [leaf.write(pki.folder, f"sni{i}") for i, leaf in enumerate(leaves)]
    running = proxy(to=raw_server(), listeners=pki.listener(certificates=files))
    der = [ssl.PEM_cert_to_DER_cert(leaf.cert_pem.decode()) for leaf in leaves]
    asked = {"first.test": 0, "b.test": 1, "B.TEST": 1, "y.c.test": 1, "x.c.test": 2, "z.y.c.test": 0, "c.test": 0, "other": 0, None: 0}
    for name, index in asked.items():
        assert shown(running, pki, name) == der[index], name


@pytest.mark.parametrize("offered, agreed", [(["http/1.1"], "http/1.1"), (["http/1.1", "h2"], "h2"), ([], None)])
def test_ours_comes_first_where_several_protocols_are_offered(offered, agreed, proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    context = pki.client_context()
    if offered:
        context.set_alpn_protocols(offered)
    client = tls_client(running, context=context)
    assert client.sock.selected_alpn_protocol() == agreed
    if agreed != "h2":
        assert client.get().status == 200


def test_no_protocol_in_common_is_an_alert_and_a_reason(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    context = pki.client_context()
    context.set_alpn_protocols(["h3"])
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        tls_client(running, context=context)
    eventually(lambda: reasons(running) == {"tls_no_alpn": 1})


def test_http_2_agreed_on_is_never_answered_with_http_1(proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.listener())
    context = pki.client_context()
    context.set_alpn_protocols(["h2"])
    client = tls_client(running, context=context)
    client.send(request_bytes("GET", "/"))
    try:
        assert not client.sock.recv(100).startswith(b"HTTP/1")
    except (ssl.SSLError, ConnectionResetError):
        pass
    assert not server.requests


@pytest.mark.parametrize("least, most, works", [("1.2", "TLSv1_2", True), ("1.3", "TLSv1_2", False), ("1.3", "TLSv1_3", True)])
def test_versions_below_the_oldest_are_refused(least, most, works, proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(min_version=least))
    context = pki.client_context(maximum_version=getattr(ssl.TLSVersion, most))
    if works:
        assert tls_client(running, context=context).get().status == 200
    else:
        with pytest.raises(ssl.SSLError):
            tls_client(running, context=context)
        eventually(lambda: reasons(running) == {"tls_no_common_parameters": 1})


@pytest.mark.parametrize("ciphers", ["AES256-SHA", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "NULL-SHA256"])
def test_weak_ciphers_alone_are_refused(ciphers, proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0", "-connect", "127.0.0.1:%d" % running.addresses["web"][1]],
        input=b"", capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert b"handshake failure" in done.stderr
    eventually(lambda: reasons(running) == {"tls_no_common_parameters": 1})


def test_early_data_is_not_taken(proxy, raw_server, pki):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.listener())
    address = "127.0.0.1:%d" % running.addresses["web"][1]
    session = str(pki.folder / "session")
    base = ["openssl", "s_client", "-tls1_3", "-CAfile", pki.ca, "-connect", address, "-ign_eof"]
    close = request_bytes("GET", "/", {"Connection": "close"})
    first = subprocess.run([*base, "-sess_out", session], input=close, capture_output=True, timeout=PATIENCE_S)
    assert b"Max Early Data: 0" in first.stdout
    early = pki.file("early", request_bytes("POST", "/early", body=b"x"))
    again = subprocess.run([*base, "-sess_in", session, "-early_data", early], input=close, capture_output=True, timeout=PATIENCE_S)
    assert b"Early data was accepted" not in again.stdout
    assert [message.target for message in server.requests if message.target == b"/early"] == []


# --- plaintext ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [request_bytes("GET", "/"), b"\0\1\2", b"SSH-2.0-x\r\n", b"G"])
def test_plaintext_on_a_strict_port_is_closed_with_its_reason(words, proxy, raw_server, pki):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.listener())
    with plain_socket(running) as sock:
        sock.sendall(words)
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
    assert reasons(running) == {"tls_required": 1}
    assert not server.requests


def test_a_permissive_port_takes_both_and_counts_who_came_without(proxy, raw_server, raw_client, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual(mode="permissive"))
    plain = raw_client(running)
    assert plain.get("/", {"l5d-client-id": "spiffe://td.test/admin", "x-forwarded-client-cert": "URI=x"}).status == 200
    assert tls_client(running, pki.client).get().status == 200
    first, second = server.requests
    assert first.get("l5d-client-id") is None and first.get("x-forwarded-client-cert") is None
    assert first.get("x-forwarded-proto") == "http" and second.get("x-forwarded-proto") == "https"
    listener = running.stats().listeners[0]
    assert (listener.tls_plaintext, listener.tls_handshakes) == (1, 1)


def test_a_port_check_without_a_word_is_no_failure(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    plain_socket(running).close()
    eventually(lambda: running.stats().listeners[0].active == 0 and running.stats().listeners[0].accepted == 1)
    assert reasons(running) == {}


# --- bodies, pieces, ends ------------------------------------------------------------------------------------------------


def upload_of(n: int, blob: bytes):
    """A script: read requests with n octets of body each, answer the digest of it and `blob`."""

    def run(connection) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = connection.receive()
                if not data:
                    return
                pending += data
            body = bytearray(pending.partition(b"\r\n\r\n")[2])
            while len(body) < n:
                body += connection.receive(1 << 20)
            pending = bytes(body[n:])
            connection.send(response(200, hashlib.sha256(body[:n]).hexdigest().encode() + blob))

    return run


def test_large_bodies_arrive_whole_both_ways(proxy, raw_server, pki, tls_client, rng):  # noqa: F811
    blob = rng.randbytes(9_000_000)

    running = proxy(to=raw_server(upload_of(len(blob), blob)), listeners=pki.listener())
    client = tls_client(running).sock
    want = response(200, hashlib.sha256(blob).hexdigest().encode() + blob)
    for _ in range(2):
        sender = threading.Thread(target=client.sendall, args=(request_bytes("POST", "/", body=blob),))
        sender.start()
        got = bytearray()
        while not got.endswith(blob):
            got += client.recv(1 << 20)
        sender.join()
        assert got[-len(blob) - 64 :] == want[-len(blob) - 64 :]


def test_a_slow_reader_gets_everything_and_holds_little_memory(proxy, raw_server, pki, rng):  # noqa: F811
    blob = rng.randbytes(8_000_000)
    running = proxy(to=raw_server(response(200, blob)), listeners=pki.listener())
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect(running.addresses["web"])
    tls = pki.client_context().wrap_socket(sock, server_hostname=SERVER_NAME)
    tls.sendall(request_bytes("GET", "/"))
    got = bytearray(tls.recv(1000))
    assert raw_stats(running)["workers"][0]["buffers_bytes"] < 2_000_000
    while len(got) < len(blob):
        got += tls.recv(65536)
    assert bytes(got).endswith(blob)
    tls.close()


def test_a_handshake_and_a_request_may_come_octet_by_octet(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = pki.client_context().wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    with plain_socket(running) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def drip() -> None:
            for octet in outgoing.read():
                sock.sendall(bytes([octet]))

        def step(action):
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    drip()
                    incoming.write(sock.recv(65536))

        step(tls.do_handshake)
        tls.write(request_bytes("GET", "/"))
        drip()
        assert step(lambda: tls.read(100)).startswith(b"HTTP/1.1 200")


def test_many_requests_in_one_record_and_one_in_many(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    client = tls_client(running)
    for _ in range(60):
        client.reader.expect("GET")
    client.send(b"".join(request_bytes("GET", f"/{i}") for i in range(50)))
    for octet in b"".join(request_bytes("GET", f"/{i}") for i in range(10)):
        client.send(bytes([octet]))
    assert [client.read_response().status for _ in range(60)] == [200] * 60


def test_a_body_cut_off_without_close_notify_is_not_taken_for_whole(proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server(lambda connection: connection.wait_closed())
    running = proxy(to=server, listeners=pki.listener())
    client = tls_client(running)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    eventually(lambda: server.connections and server.connections[0].reader.partial is not None)
    socket.socket(fileno=client.sock.detach()).close()
    eventually(lambda: server.incomplete)
    assert not server.requests


def test_the_end_of_a_response_is_told_by_close_notify(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), listeners=pki.listener())
    client = tls_client(running)
    client.request("GET", "/", {"Connection": "close"})
    assert client.read_response().body == b"ok"
    client.sock.suppress_ragged_eofs = False
    assert client.sock.recv(1) == b""       # raises where the end is no close_notify


# --- other protocols ------------------------------------------------------------------------------------------------------


def tcp_config(pki, endpoint: str, **listener) -> dict:  # noqa: F811
    return config(
        listeners=[{"name": "web", "address": "127.0.0.1:0", "tcp_route": "all",
                    "tls": {"certificates": [pki.server_files]}, **listener}],
        routes=[{"name": "all", "to": "backend"}, {"name": "http", "to": "backend"}], to=endpoint,
    )  # fmt: skip


def echo(connection) -> None:
    while data := connection.receive():
        connection.send(data)


def test_tls_is_taken_off_a_tcp_connection_and_each_direction_ends_by_itself(proxy, raw_server, pki):  # noqa: F811
    def until_end(connection) -> None:
        got = b""
        while data := connection.receive():
            got += data
        connection.send(b"got " + got)

    running = proxy(config=tcp_config(pki, raw_server(until_end).address, protocol="tcp"))
    done = subprocess.run(  # at the end of its input s_client sends close_notify, and goes on reading
        ["openssl", "s_client", "-quiet", "-no_ign_eof", "-CAfile", pki.ca, "-connect", "127.0.0.1:%d" % running.addresses["web"][1]],
        input=b"hello", capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    eventually(lambda: running.stats().listeners[0].active == 0)
    assert running.stats().clusters[0].endpoints[0].bytes_out == 5, done.stderr


@pytest.mark.parametrize("data", [b"PING\r\n", b"\0\1\2"])
def test_inside_tls_the_protocol_is_detected_too(data, proxy, raw_server, pki, tls_client):  # noqa: F811
    servers = {"http": raw_server(), "other": raw_server(echo)}
    running = proxy(
        config=config(
            listeners=[{"name": "web", "address": "127.0.0.1:0", "protocol": "detect", "tcp_route": "other",
                        "tls": {"certificates": [pki.server_files]}}],
            routes=[{"name": "http", "to": "http"}, {"name": "other", "to": "other"}],
            clusters=[{"name": name, "endpoints": [server.address]} for name, server in servers.items()],
        )
    )  # fmt: skip
    client = tls_client(running)
    client.reader.expect("GET")
    for octet in request_bytes("GET", "/x"):
        client.send(bytes([octet]))
    assert client.read_response().status == 200
    other = tls_client(running)
    for octet in data:
        other.sock.sendall(bytes([octet]))
    got = b""
    while len(got) < len(data):
        got += other.sock.recv(100)
    assert got == data
    with plain_socket(running) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            sock.recv(10)
    eventually(lambda: reasons(running).get("tls_required") == 1)


def test_a_proxy_header_comes_before_the_handshake(proxy, raw_server, pki):  # noqa: F811
    server = raw_server()
    listeners = pki.listener()
    listeners[0]["proxy_protocol"] = "v1"
    running = proxy(to=server, listeners=listeners)
    sock = plain_socket(running)
    sock.sendall(b"PROXY TCP4 192.0.2.9 127.0.0.1 5 6\r\n")
    tls = pki.client_context().wrap_socket(sock, server_hostname=SERVER_NAME)
    tls.sendall(request_bytes("GET", "/"))
    assert tls.recv(20).startswith(b"HTTP/1.1 200")
    assert server.requests[0].get("x-forwarded-for") == "192.0.2.9"
    tls.close()


def test_http_2_is_spoken_where_it_is_agreed_on(proxy, raw_server, pki):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual(client_auth="optional"))
    port = running.addresses["web"][1]
    urls = [f"https://{SERVER_NAME}:{port}/{number}" for number in range(5)]
    done = subprocess.run(
        ["curl", "-sS", "--http2", "--cacert", pki.ca, "--cert", pki.client_files["cert"], "--key", pki.client_files["key"],
         "--resolve", f"{SERVER_NAME}:{port}:127.0.0.1", "-w", "%{http_version} ", *urls],
        capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"ok2 " * 5), done.stderr
    assert {(message.get("x-forwarded-proto"), message.get("l5d-client-id")) for message in server.requests} == {("https", CLIENT_ID)}
    assert running.stats().listeners[0].tls_handshakes == 1


def test_who_is_not_allowed_is_told_403_in_http_2_too(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual(allowed_clients=["spiffe://td.test/other"]))
    port = running.addresses["web"][1]
    done = subprocess.run(
        ["curl", "-sS", "--http2", "--cacert", pki.ca, "--cert", pki.client_files["cert"], "--key", pki.client_files["key"],
         "--resolve", f"{SERVER_NAME}:{port}:127.0.0.1", "-w", "%{http_version} %{http_code}", f"https://{SERVER_NAME}:{port}/"],
        capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.endswith(b"2 403"), done.stderr
