"""The program: what it prints, what it exits with, how it lives from the first socket to the last exchange."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from meshcore.admin import AdminServer, AdminSources
from meshcore.cli import COMMANDS, EXIT_CONFIG, addresses, main
from meshcore.cli.output import milliseconds, percent, rate, table
from meshcore.cli.serving import url_of
from meshcore.config import Config, loads
from meshcore.taps import TapEvent

from tests.proxy.fake_proxy import FakeProxy

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
    monkeypatch.delenv("MESHPROXY_ADMIN", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    return directory


@pytest.fixture
def command(capfd):
    """Runs a command line in this process; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def fake(own_run_time_directory):
    """A fake proxy with a real admin server under a default name."""
    proxy = FakeProxy()
    with AdminServer(
        f"unix:{own_run_time_directory}/meshproxy-8080.sock", sources=AdminSources(proxy.stats, proxy.tap, dict)
    ) as server:
        server.state = ""
        proxy.server = server
        yield proxy


def eventually(claim, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()


# --- help, version, completion ---


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: meshproxy {name}")
    assert "Example" in out or name in ("completion", "version")


def test_the_program_lists_its_commands_and_where_to_start(command):
    code, out, _ = command("--help")
    assert code == 0
    assert "meshproxy proxy --listen :8080 --to 127.0.0.1:9000" in out


def test_an_unknown_command_exits_2(command):
    code, _, err = command("fly")
    assert code == 2
    assert "No such command 'fly'" in err


def test_version_prints_a_number(command):
    code, out, _ = command("version", "--short")
    assert code == 0
    assert re.match(r"\d+(\.\d+)*", out)
    assert "python" in json.loads(command("version", "--json")[1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(command, shell):
    code, out, _ = command("completion", shell)
    assert code == 0
    assert "_MESHPROXY_COMPLETE" in out
    assert "meshproxy" in out


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "meshcore", "version", "--short"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.strip()


# --- configuration errors ---


def test_a_configuration_error_is_one_message_and_exit_78(command, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.replace("timeout", "timout"))
    for arguments in (("config", "-c"), ("check", "-c"), ("config", "--show-effective", "-c")):
        code, out, err = command(*arguments, str(path))
        assert code == EXIT_CONFIG == 78
        assert out == ""
        assert f"{path}:4:" in err
        assert "did you mean 'timeout'?" in err
        assert "Traceback" not in err


def test_a_missing_file_is_a_configuration_error(command, tmp_path):
    code, _, err = command("config", "-c", str(tmp_path / "none.yaml"))
    assert code == EXIT_CONFIG
    assert "none.yaml" in err


# --- config ---


def test_show_effective_tells_the_origin_of_each_value(command, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    code, out, _ = command("config", "--show-effective", "-c", str(path))
    assert code == 0
    assert re.search(rf"timeout: 5s +# {re.escape(str(path))}:4", out)
    assert re.search(r"balancer: peak_ewma +# default", out)
    assert loads(out).routes == loads(MESH).routes


def test_show_effective_as_json_has_value_and_origin(command, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    code, out, _ = command("config", "--show-effective", "--json", "-c", str(path))
    assert code == 0
    assert json.loads(out)["routes"][0]["timeout"] == {"value": "5s", "origin": f"{path}:4"}


# --- check ---


def test_check_prints_one_line_per_check_and_exits_0(command, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    code, out, _ = command("check", "-c", str(path))
    *lines, blank, result = out.splitlines()
    assert code == 0, out
    assert blank == ""
    assert result == "Status check results are [ok]"
    assert all(line.endswith("[ok]") for line in lines)
    assert all(len(line.encode()) + 1 == 80 for line in lines if len(line) < 80)


def test_check_names_the_port_that_is_taken_and_how_to_find_the_owner(command, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "mesh.yaml"
        path.write_text(MESH.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        code, out, _ = command("check", "-c", str(path))
    assert code == 1
    line = next(line for line in out.splitlines() if "[FAIL]  -- " in line)
    assert line.startswith(f"listener web: 127.0.0.1:{port} can be bound")
    assert "address already in use" in line
    assert f"ss -ltnp 'sport = :{port}'" in line
    assert out.endswith("Status check results are [FAIL]\n")


def test_check_names_a_host_that_does_not_resolve(command, tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.replace("127.0.0.1:9000", "no-such-host.invalid:80"))
    code, out, _ = command("check", "--json", "-c", str(path))
    assert code == 1
    outcomes = [json.loads(line) for line in out.splitlines()]
    failed = [outcome for outcome in outcomes if not outcome["ok"]]
    assert [outcome["check"] for outcome in failed] == ["dns: no-such-host.invalid resolves"]
    assert failed[0]["hint"]


def test_check_live_asks_the_running_proxy(command, fake):
    assert command("check", "--live")[0] == 0
    fake.server.state = "draining"
    code, out, _ = command("check", "--live")
    assert code == 1
    assert "it is draining" in out


# --- finding the proxy ---


def test_without_a_running_proxy_the_way_out_is_told(command):
    code, _, err = command("stat")
    assert code == 1
    assert "--admin" in err


def test_two_running_proxies_are_listed(command, fake, own_run_time_directory):
    with AdminServer(
        f"unix:{own_run_time_directory}/meshproxy-9090.sock", sources=AdminSources(fake.stats, fake.tap, dict)
    ):
        code, _, err = command("stat")
    assert code == 1
    assert err.count("--admin unix:") == 2


def test_a_dead_proxys_socket_is_not_listed(fake, own_run_time_directory):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{own_run_time_directory}/meshproxy-1.sock")
    assert addresses.running_proxies() == [f"unix:{own_run_time_directory}/meshproxy-8080.sock"]


def test_a_second_proxy_on_one_port_gets_a_name_of_its_own(fake, own_run_time_directory):
    assert addresses.default_admin_address(8080) == f"unix:{own_run_time_directory}/meshproxy-8080-{os.getpid()}.sock"
    assert addresses.default_admin_address(8081) == f"unix:{own_run_time_directory}/meshproxy-8081.sock"


def test_without_a_run_time_directory_a_private_one_is_made(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert addresses.socket_directory() == Path(f"/tmp/meshproxy-{os.getuid()}")
    monkeypatch.setattr(addresses, "socket_directory", lambda: tmp_path / "meshproxy-0")
    assert addresses.prepare_socket_directory().stat().st_mode & 0o777 == 0o700


def test_a_directory_that_is_a_link_is_refused(monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(addresses, "socket_directory", lambda: tmp_path / "link")
    with pytest.raises(OSError, match="belongs to somebody else"):
        addresses.prepare_socket_directory()


def test_an_admin_address_that_is_none_is_a_usage_error(command):
    code, _, err = command("stat", "--admin", "nonsense")
    assert code == 2
    assert "unix:/path" in err


def test_an_admin_address_without_a_proxy_is_explained(command, tmp_path):
    code, _, err = command("stat", "--admin", f"unix:{tmp_path}/none")
    assert code == 1
    assert "does the proxy run" in err


# --- stat ---


@pytest.mark.parametrize(
    ("ms", "cell"),
    [
        (None, "-"),
        (0.0, "0.00ms"),
        (0.3141, "0.31ms"),
        (9.99, "9.99ms"),
        (9.999, "10ms"),
        (12.6, "13ms"),
        (2500.0, "2500ms"),
    ],
)
def test_latency_cells_are_whole_milliseconds_unless_small(ms, cell):
    assert milliseconds(ms) == cell


def test_other_cells_have_conduits_form():
    assert (percent(99.5), percent(None), rate(12.34), rate(None)) == ("99.50%", "-", "12.3rps", "-")


def test_columns_are_right_aligned_except_the_name_and_controls_are_shown():
    assert table(("NAME", "X"), [["a", "1"], ["long\x1b", "100"]]) == [
        "NAME         X",
        "a            1",
        "long\\x1b   100",
    ]


def test_stat_shows_a_row_per_endpoint(command, fake):
    code, out, err = command("stat", "-t", "0")
    header, busy, quiet = (re.split(r"\s{3,}", line) for line in out.splitlines())
    assert code == 0
    assert err == ""
    assert header == ["NAME", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]
    assert busy[:2] == ["users/10.0.0.1:80", "90.00%"]
    assert busy[2].endswith("rps")
    assert busy[3:] == ["4.98ms", "9.96ms", "9.96ms"] or all(cell.endswith("ms") for cell in busy[3:])
    assert quiet == ["users/10.0.0.2:80", "-", "-", "-", "-", "-"]


def test_stat_measures_a_window(command, fake):
    threading.Timer(0.1, lambda: setattr(fake, "times", 3)).start()
    code, out, _ = command("stat", "-t", "500ms", "clusters")
    assert code == 0
    rps = float(re.search(r"users\s+90.00%\s+([\d.]+)rps", out)[1])
    assert 10 < rps <= 40.0


def test_a_quiet_window_says_so_on_stderr(command, fake):
    code, out, err = command("stat", "-t", "50ms")
    assert code == 0
    assert err == "No traffic found.\n"
    assert "users/10.0.0.1:80" in out


def test_stat_as_json_is_exact(command, fake):
    stats = json.loads(command("stat", "-t", "0", "--json")[1])
    assert stats["clusters"][0]["endpoints"][0]["latency"]["count"] == 10


def test_wide_adds_totals_and_connections(command, fake):
    header, busy, _ = (re.split(r"\s{3,}", line) for line in command("stat", "-t", "0", "-o", "wide")[1].splitlines())
    assert header[6:] == ["LATENCY_P999", "LATENCY_MAX", "REQUESTS", "ACTIVE", "CONNS", "RETRIES", "EJECTED", "HEALTHY"]
    assert busy[8:] == ["10", "1", "3", "1", "yes", "-"]


def test_reasons_are_counted_by_name(command, fake):
    assert command("stat", "-t", "0", "reasons")[1] == "REASON            COUNT\nroute_not_found       2\n"


@pytest.mark.parametrize("window", ["5", "x", "-1s", "10h", "90s"])
def test_a_window_that_is_none_is_a_usage_error(command, window):
    assert command("stat", "-t", window)[0] == 2


# --- tap ---


def start_tap(fake, *flags):
    program = subprocess.Popen(
        [sys.executable, "-u", "-m", "meshcore", "tap", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(lambda: fake.open_taps == 1, 30), program.stderr.read() if program.poll() is not None else ""
    return program


def test_tap_prints_lines_until_interrupted(fake):
    program = start_tap(fake, "--path", "/a", "--max-rps", "3")
    fake.waiting = [
        TapEvent(kind="req", stream=1, src="1.2.3.4:5", dst="6.7.8.9:10", method="GET", authority="a", path="/a\x1b")
    ]
    assert (
        program.stdout.readline() == "req id=0:1 src=1.2.3.4:5 dst=6.7.8.9:10 :method=GET :authority=a :path=/a\\x1b\n"
    )
    assert fake.asked == [{"path": "/a", "max_rps": 3.0}]
    program.send_signal(signal.SIGINT)
    assert program.wait(10) == 0
    assert "Traceback" not in program.stderr.read()
    assert eventually(lambda: fake.open_taps == 0)


def test_tap_tells_what_it_lost_on_stderr(fake):
    program = start_tap(fake, "-o", "json")
    fake.waiting = [TapEvent(kind="rsp", status=200, dropped=7)]
    assert json.loads(program.stdout.readline()) == {"kind": "rsp", "status": 200, "dropped": 7}
    fake.server.close()
    assert program.wait(10) == 0
    assert "7 events were lost" in program.stderr.read()


def test_a_tap_whose_reader_left_ends_quietly(fake):
    program = start_tap(fake)
    program.stdout.close()
    assert eventually(lambda: fake.waiting.append(TapEvent(kind="rsp")) or program.poll() is not None)
    assert program.returncode == 0
    assert program.stderr.read() == ""


def test_a_wrong_filter_is_a_usage_error(command, fake):
    code, _, err = command("tap", "--path", "x")
    assert code == 2
    assert "a path prefix starts with '/'" in err


# --- the flags of proxy ---


def test_flags_mirror_configuration_keys():
    from meshcore.cli.proxy import configuration

    config = configuration(
        listen="127.0.0.1:0", targets=("127.0.0.1:1,127.0.0.1:2", "127.0.0.1:3"), workers="2", balancer="random", timeout="5s",
        max_body="1MiB", max_attempts=3, host="x.test", no_upgrade=True, admin="unix:/tmp/x", drain="1s", max_connections=7,
        connect_timeout=None,
    )  # fmt: skip
    assert config == Config.from_dict(
        {
            "workers": 2,
            "listeners": [{"name": "default", "address": "127.0.0.1:0"}],
            "routes": [
                {"name": "default", "to": "default", "timeout": "5s", "max_body": "1MiB", "upgrade": False,
                 "retries": {"max_attempts": 3}, "rewrite": {"host": "x.test"}},
            ],
            "clusters": [{"name": "default", "balancer": "random", "max_connections": 7, "endpoints": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]}],
            "timeouts": {"drain": "1s"},
            "admin": {"address": "unix:/tmp/x"},
        }
    )  # fmt: skip


def test_a_wrong_flag_exits_78_and_names_it(command):
    code, _, err = command("proxy", "--to", "127.0.0.1:99999")
    assert code == EXIT_CONFIG
    assert "--to 127.0.0.1:99999" in err


@pytest.mark.parametrize(
    ("bound", "url"),
    [
        (("0.0.0.0", 80), "http://127.0.0.1:80/"),
        (("::", 80), "http://[::1]:80/"),
        (("::1", 8), "http://[::1]:8/"),
        (("10.0.0.1", 1), "http://10.0.0.1:1/"),
    ],
)
def test_a_wildcard_address_is_shown_as_one_that_can_be_visited(bound, url):
    assert url_of(bound) == url
