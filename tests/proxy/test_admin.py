"""The admin server answers its owner, refuses everybody else, and bounds what anyone can hold."""

import contextlib
import http.client
import json
import os
import socket
import stat
import threading
import time

import pytest
from meshcore import admin
from meshcore.admin import ENDPOINTS, AdminError, AdminServer, AdminSources
from meshcore.errors import ConfigError
from meshcore.taps import TapEvent
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy.fake_proxy import FakeProxy


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@pytest.fixture
def proxy():
    return FakeProxy()


def serve(proxy, address, **options):
    sources = AdminSources(proxy.stats, proxy.tap, lambda: {"workers": 1}, **options)
    server = AdminServer(address, sources=sources, version="0.1.0")
    server.state = ""
    return server


@pytest.fixture
def server(proxy, tmp_path):
    with serve(proxy, f"unix:{tmp_path}/admin.sock", reload=lambda: "changed: nothing") as running:
        yield running


def ask(server, method, target, headers=None):
    path = server.address.removeprefix("unix:")
    connection = (
        UnixConnection(path) if server.address.startswith("unix:") else http.client.HTTPConnection(path, timeout=10)
    )
    try:
        connection.request(method, target, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def raw(server, data):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(server.address.removeprefix("unix:"))
        with contextlib.suppress(BrokenPipeError):  # refused before it asked
            client.sendall(data)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer.decode()


def eventually(claim, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()


def test_the_socket_is_for_its_owner_only(server):
    mode = os.stat(server.address.removeprefix("unix:")).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_index_lists_every_endpoint(server):
    status, text = ask(server, "GET", "/")
    assert status == 200
    assert all(path in text for path in ENDPOINTS)


def test_metrics_parse(server):
    status, text = ask(server, "GET", "/metrics")
    assert status == 200
    assert "mesh_requests" in {family.name for family in text_string_to_metric_families(text)}


def test_ready_follows_the_state_and_live_does_not(server):
    assert ask(server, "GET", "/ready") == (200, "ready\n")
    server.state = "draining"
    assert ask(server, "GET", "/ready") == (503, "draining\n")
    assert ask(server, "GET", "/live") == (200, "live\n")


def test_stats_clusters_and_config_are_json(server):
    assert json.loads(ask(server, "GET", "/stats")[1])["requests"] == 10
    assert json.loads(ask(server, "GET", "/clusters")[1])["clusters"][0]["endpoints"][0]["address"] == "10.0.0.1:80"
    assert json.loads(ask(server, "GET", "/config")[1]) == {"workers": 1}


def test_a_window_measures_what_happens_while_it_is_open(server, proxy):
    threading.Timer(0.05, lambda: setattr(proxy, "times", 4)).start()
    stats = json.loads(ask(server, "GET", "/stats?window=0.3")[1])
    assert stats["requests"] == 30
    assert 0.3 <= stats["seconds"] < 3


@pytest.mark.parametrize("window", ["-1", "x", "nan", "1e9"])
def test_a_window_that_can_not_be_meant_is_refused(server, window):
    assert ask(server, "GET", f"/stats?window={window}")[0] == 400


def test_reload_takes_post_only_and_tells_the_diff(server):
    assert ask(server, "GET", "/reload")[0] == 405
    assert ask(server, "POST", "/reload") == (200, "changed: nothing\n")


def test_a_failed_reload_tells_why_and_the_server_lives_on(proxy, tmp_path):
    def fail():
        raise ConfigError("mesh.yaml:1:1: unknown key 'rout'; did you mean 'routes'?")

    with serve(proxy, f"unix:{tmp_path}/s", reload=fail) as server:
        status, text = ask(server, "POST", "/reload")
        assert status == 422
        assert "did you mean 'routes'" in text
        assert ask(server, "GET", "/live")[0] == 200


def test_a_proxy_without_a_file_has_nothing_to_reload(proxy, tmp_path):
    with serve(proxy, f"unix:{tmp_path}/s") as server:
        assert ask(server, "POST", "/reload")[0] == 409


def test_a_fault_in_an_endpoint_ends_its_reply_only(proxy, tmp_path):
    proxy.stats = lambda: 1 // 0
    with serve(proxy, f"unix:{tmp_path}/s") as server:
        assert ask(server, "GET", "/metrics")[0] == 500
        assert ask(server, "GET", "/live")[0] == 200


def test_head_has_the_length_but_no_body(server):
    answer = raw(server, b"HEAD /live HTTP/1.1\r\nhost: x\r\n\r\n")
    assert "content-length: 5\r\n" in answer
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /live\r\n\r\n", 400),
        (b"GET live HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nx: " + b"y" * 20000 + b"\r\n\r\n", 431),
        (b"POST /reload HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 413),
        (b"POST /reload HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /stats HTTP/1.1\r\n\r\n", 405),
    ],
)
def test_what_is_not_asked_properly_is_refused(server, data, status):
    assert raw(server, data).startswith(f"HTTP/1.1 {status} ")


def test_a_head_that_does_not_come_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(admin, "HEAD_SECONDS", 0.1)
    assert raw(server, b"GET /live HTTP/1.1\r\n").startswith("HTTP/1.1 408 ")


def test_more_connections_than_allowed_are_told_so(server):
    path = server.address.removeprefix("unix:")
    held = []
    for _ in range(admin.MAX_SESSIONS):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        held.append(client)
    assert eventually(lambda: raw(server, b"").startswith("HTTP/1.1 503 "))
    for client in held:
        client.close()
    assert eventually(lambda: ask(server, "GET", "/live")[0] == 200)


# --- loopback TCP ---


@pytest.fixture
def tcp(proxy):
    with serve(proxy, "127.0.0.1:0") as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "[::1]:9", "LOCALHOST:80"])
def test_loopback_names_are_served(tcp, host):
    assert ask(tcp, "GET", "/live", {"host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "", "user@localhost", "localhost.", "10.0.0.1"])
def test_a_rebound_name_is_refused(tcp, host):
    assert ask(tcp, "GET", "/stats", {"host": host})[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_foreign_page_is_refused(tcp, headers):
    assert ask(tcp, "POST", "/reload", headers)[0] == 403


def test_our_own_page_is_served(tcp):
    assert ask(tcp, "GET", "/live", {"origin": f"http://{tcp.address}"})[0] == 200


@pytest.mark.parametrize("address", ["0.0.0.0:0", "10.0.0.1:9901", "[::]:0"])
def test_only_loopback_is_bound(proxy, address):
    with pytest.raises(AdminError, match="only loopback"):
        serve(proxy, address)


def test_an_address_that_is_none_is_refused(proxy):
    with pytest.raises(AdminError, match="expected unix:/path or 127.0.0.1:PORT"):
        serve(proxy, "admin")


# --- the socket's file ---


def test_closing_removes_the_socket(proxy, tmp_path):
    with serve(proxy, f"unix:{tmp_path}/s"):
        assert (tmp_path / "s").exists()
    assert not (tmp_path / "s").exists()


def test_a_dead_proxys_socket_is_taken_over(proxy, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/s")
    with serve(proxy, f"unix:{tmp_path}/s") as server:
        assert ask(server, "GET", "/live")[0] == 200


def test_a_living_proxys_socket_is_not_taken(proxy, tmp_path):
    with serve(proxy, f"unix:{tmp_path}/s") as first:
        with pytest.raises(AdminError, match="another proxy"):
            serve(proxy, f"unix:{tmp_path}/s")
        assert ask(first, "GET", "/live")[0] == 200


def test_a_file_in_the_way_is_left_alone(proxy, tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AdminError, match="in the way"):
        serve(proxy, f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_directory_that_is_not_there_is_named(proxy, tmp_path):
    with pytest.raises(AdminError, match="No such file"):
        serve(proxy, f"unix:{tmp_path}/no/s")


# --- tap ---


def open_tap(server, query=""):
    connection = UnixConnection(server.address.removeprefix("unix:"))
    connection.request("GET", f"/tap{query}")
    return connection, connection.getresponse()


def test_a_tap_streams_matching_events_as_they_come(server, proxy):
    connection, response = open_tap(server, "?method=GET&max_rps=5")
    assert response.getheader("content-type") == "application/x-ndjson"
    proxy.waiting = [TapEvent(kind="req", method="GET", path="/a"), TapEvent(kind="req", method="POST", path="/b")]
    assert json.loads(response.readline()) == {"kind": "req", "method": "GET", "path": "/a"}
    proxy.waiting = [TapEvent(kind="req", method="GET", path="/c")]
    assert json.loads(response.readline())["path"] == "/c"
    assert proxy.asked == [{"method": "GET", "max_rps": 5.0}]
    connection.close()


def test_a_tap_ends_when_its_reader_leaves(server, proxy):
    connection, response = open_tap(server)
    assert proxy.open_taps == 1
    response.close()
    connection.close()
    assert eventually(lambda: proxy.open_taps == 0)


def test_a_tap_ends_properly_when_the_server_closes(server, proxy):
    connection, response = open_tap(server)
    server.close()
    assert response.read() == b""
    assert eventually(lambda: proxy.open_taps == 0)
    connection.close()


def test_a_wrong_tap_filter_is_explained(server):
    status, text = ask(server, "GET", "/tap?path=x")
    assert status == 400
    assert "starts with '/'" in text
    assert ask(server, "GET", "/tap?colour=red")[0] == 400


def test_taps_leave_room_for_metrics(server, proxy):
    held = [open_tap(server) for _ in range(admin.MAX_TAPS)]
    assert ask(server, "GET", "/tap")[0] == 503
    assert ask(server, "GET", "/metrics")[0] == 200
    for connection, response in held:
        response.close()
        connection.close()
    assert eventually(lambda: proxy.open_taps == 0)
