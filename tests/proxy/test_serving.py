"""The life of a process: signals, reloads and changed files, the admin socket, what the supervisor is told."""

import os
import re
import signal
import socket
import threading
import time

import pytest
from meshcore import sdnotify
from meshcore.admin import AdminError
from meshcore.cli import serving
from meshcore.cli.client import AdminClient
from meshcore.cli.serving import FileWatch, Serving
from meshcore.config import loads
from meshcore.errors import ConfigError

from tests.proxy.fake_proxy import FakeRunningProxy

MESH = """\
listeners:
- {name: web, address: "127.0.0.1:0"}
routes:
- {name: users, to: users, timeout: 5s}
clusters:
- {name: users, endpoints: ["127.0.0.1:9000"]}
"""


@pytest.fixture(autouse=True)
def own_run_time_directory(tmp_path, monkeypatch):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    return directory


def eventually(claim, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()


def run_serving(proxy, steps, **options):
    """Serve in this thread while `steps(admin_address)` runs in another; its failure is ours."""
    failures = []

    def drive(address):
        try:
            steps(address)
        except BaseException as failure:
            failures.append(failure)
            proxy.drained.set()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    serving_ = Serving(proxy, loads(MESH), **options)
    serving_.run(lambda address: threading.Thread(target=drive, args=(address,)).start())
    if failures:
        raise failures[0]


def test_sigterm_drains_then_stops(capfd):
    proxy = FakeRunningProxy()
    run_serving(proxy, lambda address: None)
    assert proxy.calls == ["start", "drain", "stop"]
    assert "draining for up to 30s" in capfd.readouterr().out


def test_a_second_signal_stops_at_once():
    proxy = FakeRunningProxy()
    proxy.drained.clear()

    def steps(address):
        os.kill(os.getpid(), signal.SIGINT)
        assert eventually(lambda: "drain" in proxy.calls)

    started = time.monotonic()
    run_serving(proxy, steps)
    assert proxy.calls == ["start", "drain", "stop"]
    assert time.monotonic() - started < 25  # not the drain timeout


def test_the_handlers_of_before_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    run_serving(FakeRunningProxy(), lambda address: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sighup_reloads_and_prints_the_diff(capfd):
    proxy = FakeRunningProxy()

    def steps(address):
        os.kill(os.getpid(), signal.SIGHUP)
        assert eventually(lambda: "reload" in proxy.calls)

    run_serving(proxy, steps, load=lambda: loads(MESH))
    assert "reload: now 1 routes" in capfd.readouterr().out


def test_a_refused_reload_is_told_and_the_proxy_goes_on(capfd):
    proxy = FakeRunningProxy()
    asked = []

    def load():
        asked.append(1)
        raise ConfigError("mesh.yaml:1:1: unknown key 'rout'")

    def steps(address):
        os.kill(os.getpid(), signal.SIGHUP)
        assert eventually(lambda: asked)

    run_serving(proxy, steps, load=load)
    assert "reload" not in proxy.calls
    assert "the running configuration stays:\nmesh.yaml:1:1: unknown key 'rout'" in capfd.readouterr().err


@pytest.mark.parametrize("renamed", [False, True], ids=["in place", "renamed over"])
def test_a_changed_file_is_applied(tmp_path, monkeypatch, renamed):
    monkeypatch.setattr(serving, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(serving, "SETTLE_SECONDS", 0.02)
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    proxy = FakeRunningProxy()

    def steps(address):
        if renamed:
            (tmp_path / "new").write_text(MESH)
            (tmp_path / "new").rename(path)
        else:
            path.write_text(MESH + "# changed\n")
        assert eventually(lambda: "reload" in proxy.calls)
        time.sleep(0.3)

    run_serving(proxy, steps, load=lambda: loads(path.read_text()), watch=path)
    assert proxy.calls.count("reload") == 1


def test_a_file_that_is_gone_has_not_changed_until_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "SETTLE_SECONDS", 0.01)
    path = tmp_path / "mesh.yaml"
    path.write_text("a")
    watch = FileWatch(path)
    assert not watch.has_changed()
    path.unlink()
    assert not watch.has_changed()
    path.write_text("bb")
    assert watch.has_changed()
    assert not watch.has_changed()


def test_a_file_that_never_keeps_still_is_applied_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "SETTLE_SECONDS", 0.001)
    path = tmp_path / "mesh.yaml"
    path.write_text("a")
    watch = FileWatch(path)
    sizes = iter(range(1_000_000))
    monkeypatch.setattr(watch, "_signature", lambda: (0, 0, next(sizes)))
    assert watch.has_changed()


def test_what_only_a_start_can_change_is_told(capfd):
    proxy = FakeRunningProxy()

    def steps(address):
        os.kill(os.getpid(), signal.SIGHUP)
        assert eventually(lambda: "reload" in proxy.calls)

    run_serving(proxy, steps, load=lambda: loads(MESH + "workers: 4\nadmin: {address: 'unix:/run/other'}\n"))
    out = capfd.readouterr().out
    assert "workers takes effect at the next start" in out
    assert "admin.address takes effect at the next start" in out


def test_without_a_place_for_the_default_socket_the_proxy_runs_on(monkeypatch, capfd):
    def refuse(port):
        raise OSError(30, "Read-only file system", "/tmp/meshproxy-0")

    monkeypatch.setattr(serving, "default_admin_address", refuse)
    proxy = FakeRunningProxy()
    seen = []
    run_serving(proxy, seen.append)
    assert seen == [""]
    assert proxy.calls == ["start", "drain", "stop"]
    assert "no admin server" in capfd.readouterr().err


def test_an_admin_address_that_was_asked_for_must_come_up():
    proxy = FakeRunningProxy()
    config = loads(MESH + "admin: {address: 'unix:/nowhere/admin.sock'}\n")
    with pytest.raises(AdminError, match="/nowhere/admin.sock"):
        Serving(proxy, config).run(lambda address: None)
    assert proxy.calls == ["start", "stop"]


def test_the_admin_socket_lies_under_the_port_and_follows_the_life(own_run_time_directory):
    proxy = FakeRunningProxy()
    proxy.drained.clear()
    seen = []

    def steps(address):
        assert address == f"unix:{own_run_time_directory}/meshproxy-8080.sock"
        client = AdminClient(address)
        assert client.get_json("/config")["routes"][0]["timeout"]["value"] == "5s"
        assert 'mesh_config_reloads_total{result="ok"} 0' in client.get_text("/metrics")[1]
        seen.append(client.get_text("/ready"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: "drain" in proxy.calls)
        seen.append(client.get_text("/ready"))

    run_serving(proxy, steps)
    assert seen == [(200, "ready\n"), (503, "draining\n")]
    assert not list(own_run_time_directory.iterdir())


def test_systemd_is_told_of_ready_reloading_and_stopping(tmp_path, monkeypatch):
    proxy = FakeRunningProxy()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{tmp_path}/notify")
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")

        def steps(address):
            os.kill(os.getpid(), signal.SIGHUP)
            assert eventually(lambda: "reload" in proxy.calls)

        run_serving(proxy, steps, load=lambda: loads(MESH))
        heard = [systemd.recv(4096).decode() for _ in range(4)]
    assert heard[0].startswith("READY=1\nSTATUS=admin unix:")
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard[1])
    assert heard[2] == "READY=1"
    assert heard[3] == "STOPPING=1\nSTATUS=draining"


def test_nobody_is_told_without_a_supervisor(monkeypatch):
    assert not sdnotify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    assert not sdnotify.ready()


def test_a_newline_in_a_status_starts_no_field(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{tmp_path}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        assert sdnotify.notify(STATUS="a\nMAINPID=1")
        assert systemd.recv(4096) == b"STATUS=a MAINPID=1"
