"""`meshproxy` as users meet it: a process with real traffic, watched, reloaded, drained."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from meshcore.cli.client import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from tests.scenario.proxies import free_port
from tests.scenario.servers import RawServer, response

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def own_run_time_directory(tmp_path, monkeypatch):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("MESHPROXY_ADMIN", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


class Program:
    """A running `meshproxy`, its output line by line."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "meshcore", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._new = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._new:
                self.lines.append(line.rstrip("\n"))
                self._new.notify_all()
        with self._new:
            self.lines.append("<end>")
            self._new.notify_all()

    def wait_line(self, pattern):
        """The first line that matches, however long ago it came."""

        def found():
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._new:
            self._new.wait_for(lambda: found() or "<end>" in self.lines, PATIENCE_S)
            assert found(), f"no line matches {pattern!r} in {self.lines}"
            return found()

    def wait_end(self):
        code = self.process.wait(PATIENCE_S)
        with self._new:
            self._new.wait_for(lambda: "<end>" in self.lines, PATIENCE_S)
        return code

    def signal(self, number):
        self.process.send_signal(number)


@pytest.fixture
def start():
    running = []

    def begin(*arguments):
        running.append(Program(*arguments))
        return running[-1]

    yield begin
    for program in running:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait(PATIENCE_S)


@pytest.fixture
def backend():
    server = RawServer(response(body=b"hello"))
    yield server
    server.stop()


@pytest.fixture
def proxy(start, backend):
    """`meshproxy proxy` in front of the backend, on a port of its own choice."""
    program = start("proxy", "--listen", "127.0.0.1:0", "--to", backend.address)
    program.port = int(program.wait_line(r"http://127\.0\.0\.1:(\d+)/")[1])
    program.admin = program.wait_line(r"^admin: (unix:\S+)")[1]
    return program


def get(port, path="/", timeout=PATIENCE_S):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def mesh(port, backend, *, body="first", **more):
    """A configuration file with one direct answer, whose text tells configurations apart, and one cluster."""
    return json.dumps(
        {
            "listeners": [{"name": "web", "address": f"127.0.0.1:{port}"}],
            "routes": [
                {"name": "which", "match": {"path": "/which"}, "respond": {"body": body}},
                {"name": "users", "to": "users"},
            ],
            "clusters": [{"name": "users", "endpoints": [backend.address]}],
            **more,
        }
    )


@pytest.fixture
def run(start, backend, tmp_path):
    """`meshproxy run` on a file; `program.path` may be changed."""
    path = tmp_path / "mesh.yaml"
    port = free_port()
    path.write_text(mesh(port, backend))
    program = start("run", "-c", str(path))
    program.port, program.path = port, path
    program.admin = program.wait_line(r"^admin: (unix:\S+)")[1]
    program.wait_line("^reload: edit the file")
    return program


# --- without a file ---


def test_one_command_proxies_and_tells_where_and_what_next(proxy):
    assert get(proxy.port) == (200, b"hello")
    assert proxy.wait_line(r"^try: +curl -i http://127\.0\.0\.1:\d+/")
    assert proxy.wait_line(r"meshproxy tap --admin unix:")
    assert proxy.wait_line(r"meshproxy stat --watch")


def test_sigterm_ends_with_exit_0_and_leaves_no_socket(proxy):
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_end() == 0
    assert not os.path.exists(proxy.admin.removeprefix("unix:"))


def test_the_metrics_of_real_traffic_parse_and_count(proxy):
    for _ in range(5):
        get(proxy.port)
    families = text_string_to_metric_families(AdminClient(proxy.admin).get_text("/metrics")[1])
    samples = {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}
    assert samples["mesh_requests_total", ("code_class", "2xx"), ("route", "default")] == 5
    assert samples["mesh_request_duration_seconds_count", ("route", "default")] == 5
    assert samples["mesh_worker_requests_total", ("worker", "0")] == 5


def test_stat_finds_the_proxy_and_shows_its_endpoint(proxy, start, backend):
    for _ in range(20):
        get(proxy.port)
    stat = start("stat", "-t", "0")
    assert stat.wait_line(rf"default/{backend.address} +100\.00% +[\d.]+rps +[\d.]+ms")
    assert stat.wait_end() == 0


def test_tap_shows_a_request_and_how_it_ended(proxy, start, backend):
    tap = start("tap", "--max-rps", "100", "--path", "/seen", "-o", "wide")
    deadline = time.monotonic() + PATIENCE_S
    while not any("/seen" in line for line in tap.lines) and time.monotonic() < deadline:
        get(proxy.port, "/hidden")
        get(proxy.port, "/seen?secret=1")
        time.sleep(0.05)
    request = tap.wait_line(
        rf"^req (id=0:\d+ src=127\.0\.0\.1:\d+ dst={backend.address}) :method=GET"
        rf" :authority=127\.0\.0\.1:{proxy.port} :path=/seen cluster=default route=default$"
    )
    flow = re.escape(request[1])
    assert tap.wait_line(rf"^rsp {flow} :status=200 latency=\d+µs cluster=default route=default$")
    assert tap.wait_line(rf"^end {flow} duration=\d+µs response-length=5B cluster=default route=default$")
    assert not any("hidden" in line for line in tap.lines)
    tap.signal(signal.SIGINT)
    assert tap.wait_end() == 0


def test_tap_can_ask_for_a_network_and_for_an_address_without_its_port(proxy, start):
    taps = [start("tap", *flags) for flags in (("--from", "127.0.0.0/8"), ("--to", "127.0.0.1"))]
    other = start("tap", "--from", "10.0.0.0/8")
    deadline = time.monotonic() + PATIENCE_S
    while not all(tap.lines for tap in taps) and time.monotonic() < deadline:
        get(proxy.port)
        time.sleep(0.05)
    assert all(tap.wait_line("^req ") for tap in taps)
    assert not other.lines


def test_tap_for_a_cluster_that_is_not_there_lists_those_that_are(proxy, start):
    tap = start("tap", "--to", "nobody")
    assert tap.wait_line("nobody.*default")
    assert tap.wait_end() == 1


def test_a_taken_port_is_one_message_and_exit_1(start, backend):
    port = backend.port
    program = start("proxy", "--listen", f"127.0.0.1:{port}", "--to", backend.address)
    assert program.wait_end() == 1
    assert str(port) in program.lines[0]
    assert not any("Traceback" in line for line in program.lines)


# --- with a file ---


@pytest.mark.parametrize("way", ["in place", "renamed over", "SIGHUP", "POST /reload"])
def test_each_way_of_reload_applies_the_new_file(run, backend, way, tmp_path):
    assert get(run.port, "/which") == (200, b"first")
    changed = mesh(run.port, backend, body="second")
    if way == "renamed over":
        (tmp_path / "new").write_text(changed)
        (tmp_path / "new").rename(run.path)
    else:
        run.path.write_text(changed)
    if way == "SIGHUP":
        run.signal(signal.SIGHUP)
    if way == "POST /reload":
        AdminClient(run.admin)._ask("POST", "/reload", {}, PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while get(run.port, "/which")[1] != b"second" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert get(run.port, "/which") == (200, b"second")
    if way != "POST /reload":
        assert run.wait_line("which")


def test_a_wrong_file_is_told_with_its_place_and_the_running_one_stays(run, backend):
    run.path.write_text(mesh(run.port, backend, tiemouts={}))
    assert run.wait_line(r"mesh\.yaml:1:\d+: unknown key 'tiemouts'.*did you mean 'timeouts'")
    assert get(run.port, "/which") == (200, b"first")
    status, text = AdminClient(run.admin)._ask("POST", "/reload", {}, PATIENCE_S, any_status=True)
    assert status == 422
    assert "tiemouts" in text
    run.path.write_text(mesh(run.port, backend, body="mended"))
    deadline = time.monotonic() + PATIENCE_S
    while get(run.port, "/which")[1] != b"mended" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert get(run.port, "/which") == (200, b"mended")


def test_a_running_request_outlives_sigterm(start, tmp_path):
    release = threading.Event()

    def slow(connection):
        connection.read_request()
        release.wait(PATIENCE_S)
        connection.send(response(body=b"late"))

    server = RawServer(slow)
    path = tmp_path / "mesh.yaml"
    port = free_port()
    path.write_text(mesh(port, server))
    program = start("run", "-c", str(path))
    program.wait_line("^reload:")
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
    client.start()
    server.wait_requests(1)
    program.signal(signal.SIGTERM)
    program.wait_line("draining")
    release.set()
    client.join(PATIENCE_S)
    assert answers == [(200, b"late")]
    assert program.wait_end() == 0
    server.stop()


def test_a_second_signal_does_not_wait_for_anything(start, tmp_path):
    def hang(connection):
        connection.read_request()
        connection.wait_closed()

    server = RawServer(hang)
    path = tmp_path / "mesh.yaml"
    port = free_port()
    path.write_text(mesh(port, server))
    program = start("run", "-c", str(path))
    program.wait_line("^reload:")

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            get(port)

    threading.Thread(target=ask, daemon=True).start()
    server.wait_requests(1)
    program.signal(signal.SIGTERM)
    program.wait_line("draining for up to 30s")
    program.signal(signal.SIGTERM)
    assert program.wait_end() == 0
    server.stop()


def test_a_wrong_file_at_the_start_exits_78(start, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text("listners: []\n")
    program = start("run", "-c", str(path))
    assert program.wait_end() == 78
    assert re.search(r"mesh\.yaml:1:1: unknown key 'listners'", "\n".join(program.lines))


def test_check_is_content_while_the_same_proxy_runs(run, start):
    check = start("check", "-c", str(run.path))
    assert check.wait_end() == 0, check.lines


def test_check_live_is_what_a_container_asks(run, start):
    live = start("check", "--live", "--admin", run.admin)
    assert live.wait_end() == 0
