"""Real clients and real servers of HTTP/2 with the proxy between them: curl, nghttp, h2load, python-h2, nginx, nghttpd."""

import hashlib
import http.client
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import h2.config
import h2.connection
import h2.events
import pytest

from tests.proxy.test_bodies import pattern
from tests.proxy.test_real_peers import curl, program, url
from tests.scenario.h2_proxies import chosen_speaks_http2_upstream
from tests.scenario.proxies import free_port
from tests.scenario.servers import eventually, response

SMALL, LARGE = b"small\n", bytes(range(256)) * 20_000


def listening(process: subprocess.Popen, port: int) -> bool:
    try:
        http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        return True
    except OSError:
        assert process.poll() is None
        return False


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    root.chmod(0o755)
    (root / "small.txt").write_bytes(SMALL)
    (root / "large.bin").write_bytes(LARGE)
    return root


@pytest.fixture(scope="module")
def nginx(files):
    """nginx that serves files by HTTP/2 in cleartext."""
    port = free_port()
    (files / "conf").write_text(f"""
        daemon off; worker_processes 1; pid {files}/pid; error_log {files}/error.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; client_body_temp_path {files}/b; proxy_temp_path {files}/p; fastcgi_temp_path {files}/f;
          uwsgi_temp_path {files}/u; scgi_temp_path {files}/s; client_max_body_size 0;
          server {{ listen 127.0.0.1:{port} http2; root {files}; keepalive_requests 50; http2_max_concurrent_streams 10;
            location /echo {{ return 200 "$request_method $uri $http_host\\n"; }} }} }}
        """)
    user = ["-g", "user root;"] if subprocess.run(["id", "-u"], capture_output=True).stdout.strip() == b"0" else []
    process = subprocess.Popen([program("nginx"), "-c", str(files / "conf"), "-p", str(files), "-e", str(files / "error.log"), *user])
    eventually(lambda: listening(process, port))
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def nghttpd(files):
    port = free_port()
    process = subprocess.Popen([program("nghttpd"), "--no-tls", "-a", "127.0.0.1", "-d", str(files), "--echo-upload", str(port)])
    eventually(lambda: listening(process, port))
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture(params=["nginx", "nghttpd"])
def server(request):
    if not chosen_speaks_http2_upstream():
        pytest.skip("no HTTP/2 to upstreams")
    return request.getfixturevalue(request.param)


def curl2(*arguments: str) -> subprocess.CompletedProcess:
    return curl("--http2-prior-knowledge", *arguments)


def test_curl_fetches_files(server, h2_proxy):
    running = h2_proxy(to=server, upstream="http2")
    fetched = curl2("-w", "%{http_version} %{http_code}", url(running, "/small.txt"))
    assert fetched.stdout == SMALL + b"2 200"
    assert curl2(url(running, "/large.bin")).stdout == LARGE


def test_curl_of_http1_fetches_files_from_http2(server, h2_proxy, only_meshcore):
    running = h2_proxy(to=server, upstream="http2")
    fetched = curl("-w", "%{http_version}", *[url(running, "/small.txt")] * 3)
    assert fetched.stdout == (SMALL + b"1.1") * 3
    assert curl(url(running, "/large.bin")).stdout == LARGE


def test_curl_asks_for_heads_ranges_and_what_is_not_there(server, h2_proxy):
    running = h2_proxy(to=server, upstream="http2")
    head = curl2("-I", url(running, "/large.bin")).stdout
    assert b"HTTP/2 200" in head and re.search(rb"(?i)content-length: 5120000", head)
    assert b"404" in curl2("-o", "/dev/null", "-w", "%{http_code}", url(running, "/none")).stdout


def test_curl_uploads_a_large_file(nghttpd, h2_proxy, tmp_path):
    if not chosen_speaks_http2_upstream():
        pytest.skip("no HTTP/2 to upstreams")
    (tmp_path / "upload").write_bytes(pattern(3_000_000))
    sent = curl2("--data-binary", f"@{tmp_path}/upload", url(h2_proxy(to=nghttpd, upstream="http2"), "/echo"))
    assert hashlib.sha256(sent.stdout).hexdigest() == hashlib.sha256(pattern(3_000_000)).hexdigest()


def test_curl_uploads_by_http2_to_an_http1_server(raw_server, h2_proxy, tmp_path):
    server = raw_server()
    (tmp_path / "upload").write_bytes(pattern(900_000))
    sent = curl2("--data-binary", f"@{tmp_path}/upload", "-w", "%{http_code}", url(h2_proxy(to=server)))
    assert sent.stdout == b"ok200"
    assert bytes(server.requests[0].body) == pattern(900_000)


def test_many_curls_at_once_fetch_large_files(server, h2_proxy):
    running = h2_proxy(to=server, upstream="http2")
    # One file each: curl 7.88 fails with its second on a connection by prior knowledge, with these servers alone as well.
    with ThreadPoolExecutor(6) as pool:
        fetched = pool.map(lambda _: curl2(url(running, "/large.bin")).stdout, range(24))
    assert all(body == LARGE for body in fetched)


def test_nghttp_fetches_many_files_on_one_connection(server, h2_proxy):
    running = h2_proxy(to=server, upstream="http2")
    fetched = subprocess.run([program("nghttp"), *[url(running, f"/small.txt?{n}") for n in range(20)]], capture_output=True, timeout=30)
    assert (fetched.returncode, fetched.stdout) == (0, SMALL * 20)


def h2load(*arguments: str) -> dict[str, int]:
    done = subprocess.run([program("h2load"), *arguments], capture_output=True, timeout=60, text=True)
    figures = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
    assert figures, done.stdout + done.stderr
    return dict(zip(("total", "succeeded", "failed", "errored", "timeout"), map(int, figures.groups())))


@pytest.mark.parametrize("clients, streams", [(1, 1), (4, 10), (2, 100)])
def test_h2load_succeeds_with_every_request_to_http1(raw_server, h2_proxy, clients, streams):
    running = h2_proxy(to=raw_server(response(body=b"x" * 500)))
    done = h2load("-n2000", f"-c{clients}", f"-m{streams}", url(running))
    assert (done["succeeded"], done["failed"]) == (2000, 0)


@pytest.mark.parametrize("clients, streams", [(1, 1), (4, 10), (2, 100)])
def test_h2load_succeeds_with_every_request_to_http2(server, h2_proxy, only_meshcore, clients, streams):
    """nginx here ends each connection after fifty requests: every request met by its GOAWAY is sent again."""
    done = h2load("-n2000", f"-c{clients}", f"-m{streams}", url(h2_proxy(to=server, upstream="http2"), "/small.txt"))
    assert (done["succeeded"], done["failed"]) == (2000, 0)


def test_h2load_uploads(nghttpd, h2_proxy, tmp_path):
    if not chosen_speaks_http2_upstream():
        pytest.skip("no HTTP/2 to upstreams")
    (tmp_path / "upload").write_bytes(pattern(100_000))
    done = h2load("-n200", "-c2", "-m10", "-d", str(tmp_path / "upload"), url(h2_proxy(to=nghttpd, upstream="http2"), "/echo"))
    assert (done["succeeded"], done["failed"]) == (200, 0)


def test_python_h2_uploads_and_downloads(raw_server, h2_proxy):
    server = raw_server(response(body=pattern(300_000)))
    sock = socket.create_connection(h2_proxy(to=server).addresses["web"], 10)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")])
    rest, body, trailing = pattern(200_000), bytearray(), False
    while not trailing:
        size = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size, len(rest))
        if size:
            connection.send_data(1, rest[:size], end_stream=size == len(rest))
            rest = rest[size:]
        sock.sendall(connection.data_to_send())
        if size:
            continue
        for event in connection.receive_data(sock.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            trailing |= isinstance(event, h2.events.StreamEnded)
    sock.close()
    assert bytes(body) == pattern(300_000)
    assert bytes(server.requests[0].body) == pattern(200_000)
