"""Real clients and real servers with the proxy between them: curl, nginx, http.client, websockets, asyncio."""

import asyncio
import hashlib
import http.client
import http.server
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.scenario.proxies import free_port
from tests.scenario.servers import eventually


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is needed here: apt-get install -y --no-install-recommends {'nginx-light' if name == 'nginx' else name}"
    return found


def curl(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([program("curl"), "-sS", "--max-time", "20", *arguments], capture_output=True, timeout=30)


def url(running, path: str = "/") -> str:
    return "http://%s:%d%s" % (*running.addresses["web"], path)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """A real nginx that serves files: its address."""
    root, port = tmp_path_factory.mktemp("nginx"), free_port()
    root.chmod(0o755)
    (root / "small.txt").write_bytes(b"small\n")
    (root / "large.bin").write_bytes(bytes(range(256)) * 20_000)
    (root / "conf").write_text(f"""
        daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
          uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; gzip on; gzip_types *; gzip_min_length 10;
          server {{ listen 127.0.0.1:{port}; root {root}; keepalive_requests 5; location /echo {{ return 200 "$request_method $uri\\n"; }} }} }}
        """)
    # As root, nginx serves files as another user, who may not enter pytest's directories.
    user = ["-g", "user root;"] if subprocess.run(["id", "-u"], capture_output=True).stdout.strip() == b"0" else []
    process = subprocess.Popen([program("nginx"), "-c", str(root / "conf"), "-p", str(root), "-e", str(root / "error.log"), *user])

    def listening() -> bool:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
            return True
        except OSError:
            assert process.poll() is None, (root / "error.log").read_text()
            return False

    eventually(listening)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


class Handler(http.server.BaseHTTPRequestHandler):
    """Python's own server: HTTP/1.1, echoes bodies with their digest."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(b"%s %s" % (self.command.encode(), self.path.encode()))

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Digest", hashlib.sha256(body).hexdigest())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_DELETE = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256  # Python's 5 overflow at the first burst, and a lost SYN is only sent again after 1 s
    daemon_threads = True


@pytest.fixture(scope="module")
def python_server():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "127.0.0.1:%d" % server.server_port
    server.shutdown()


def test_curl_fetches_a_file_from_nginx(nginx, proxy):
    fetched = curl(url(proxy(to=nginx), "/small.txt"))
    assert (fetched.stdout, fetched.returncode) == (b"small\n", 0)


def test_curl_fetches_megabytes_from_nginx(nginx, proxy):
    assert curl(url(proxy(to=nginx), "/large.bin")).stdout == bytes(range(256)) * 20_000


def test_curl_reuses_its_connection_beyond_the_servers_own_limit(nginx, proxy):
    running = proxy(to=nginx)
    fetched = curl("-w", "%{num_connects} ", *[url(running, "/small.txt")] * 20)
    assert fetched.stdout.count(b"small") == 20
    assert fetched.stdout.count(b"1 ") == 1


def test_curl_asks_for_compression_ranges_and_heads(nginx, proxy):
    running = proxy(to=nginx)
    assert curl("--compressed", url(running, "/large.bin")).stdout == bytes(range(256)) * 20_000
    assert curl("-r", "10-19", url(running, "/large.bin")).stdout == bytes(range(10, 20))
    assert b"200 OK" in curl("-I", url(running, "/large.bin")).stdout
    assert b"404" in curl("-o", "/dev/null", "-w", "%{http_code}", url(running, "/none")).stdout


def test_curl_speaks_http_1_0(nginx, proxy):
    assert curl("-0", url(proxy(to=nginx), "/large.bin")).stdout == bytes(range(256)) * 20_000


def test_curl_uploads_a_large_file_waiting_for_continue(python_server, proxy, tmp_path):
    (tmp_path / "upload").write_bytes(b"u" * 3_000_000)
    sent = curl("-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path}/upload", "-D", "-", "-o", "/dev/null", url(proxy(to=python_server)))
    assert hashlib.sha256(b"u" * 3_000_000).hexdigest().encode() in sent.stdout


def test_curl_uses_the_proxy_as_a_forward_proxy(python_server, proxy):
    running = proxy(to=python_server)
    fetched = curl("-x", url(running), "http://any.test/path?q=1")
    assert fetched.stdout == b"GET /path?q=1"


def test_http_client_keeps_its_connection_over_all_methods(python_server, proxy):
    connection = http.client.HTTPConnection(*proxy(to=python_server).addresses["web"], timeout=10)
    connection.connect()
    first = connection.sock
    for method, body in [("GET", None), ("POST", b"x" * 100_000), ("HEAD", None), ("PUT", b""), ("DELETE", None), ("POST", b"")] * 3:
        connection.request(method, "/path", body)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    assert connection.sock is first
    connection.close()


def test_http_client_posts_chunks(nginx, raw_server, proxy):
    server = raw_server()
    connection = http.client.HTTPConnection(*proxy(to=server).addresses["web"], timeout=10)
    connection.request("POST", "/", iter([b"a" * 1000, b"b" * 70_000, b"c"]), encode_chunked=True)
    assert connection.getresponse().status == 200
    assert server.requests[0].body_bytes == 71_001
    connection.close()


def test_many_clients_at_once_each_get_their_own_answer(python_server, proxy):
    address = proxy(to=python_server).addresses["web"]

    def client(number: int) -> bool:
        connection = http.client.HTTPConnection(*address, timeout=20)
        try:
            for turn in range(10):
                body = b"%d/%d " % (number, turn) * 500
                connection.request("POST", "/", body)
                if connection.getresponse().read() != body:
                    return False
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(client, range(32)))


def test_websockets_talk_through_the_proxy(proxy):
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def scenario() -> list:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            running = await asyncio.to_thread(lambda: proxy(to=f"127.0.0.1:{port}"))
            received = []
            async with connect("ws://%s:%d/chat" % running.addresses["web"], max_size=None) as client:
                for message in ("hello", b"\0\1\2", "x" * 500_000):
                    await client.send(message)
                    received.append(await client.recv())
                await (await client.ping())
            return received

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == ["hello", b"\0\1\2", "x" * 500_000]


def test_websocket_close_handshake_passes_both_ways(proxy):
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosedError

    async def leaving(connection):
        await connection.close(4001, "enough")

    async def scenario() -> tuple:
        async with serve(leaving, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            running = await asyncio.to_thread(lambda: proxy(to=f"127.0.0.1:{port}"))
            async with connect("ws://%s:%d/" % running.addresses["web"]) as client:
                try:
                    await client.recv()
                except ConnectionClosedError as closed:
                    return closed.rcvd.code, closed.rcvd.reason

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == (4001, "enough")
