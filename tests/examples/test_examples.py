"""The examples run as they stand, and leave nothing behind."""

import asyncio
import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import meshcore
import meshcore.config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))

import backends  # noqa: E402
from load import Load  # noqa: E402

# The mark that each process started for a test carries in its environment, to be found by it afterwards.
MARK = f"MESHCORE_EXAMPLE_TEST={os.getpid()}"


@contextmanager
def running_backend(behaviour: backends.Behaviour) -> Iterator[int]:
    """A backend on its own event loop and thread; its port."""
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopped = asyncio.Event()

    async def serve() -> None:
        server, port = await backends.start(behaviour)
        ports.put(port)
        await stopped.wait()
        server.close()

    loop = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            yield ports.get(timeout=10)
        finally:
            loop.call_soon_threadsafe(stopped.set)
            thread.join()


def start(*command: str, **environment: str) -> "subprocess.Popen[str]":
    name, _, value = MARK.partition("=")
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, name: value, **environment}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )


def processes_left() -> list[str]:
    """Command lines of the processes that carry our mark."""
    left = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MARK.encode() in (entry / "environ").read_bytes().split(b"\0"):
                left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended, or is not ours to look at
    return left


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def ports_of(output: str) -> set[int]:
    return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", output)}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# Ports or machines of their own for the members: one of the tests takes each.
PORTS = {"DEMO_PLACES": "ports"}


def test_the_demo_prints_taps_and_a_line_for_each_endpoint_and_leaves_nothing():
    demo = start(sys.executable, "examples/demo.py", DEMO_SECONDS="4")
    output, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, output
    assert re.search(r"^  req id=\d+:\d+ src=\S+ dst=\S+ :method=\w+ :authority=b.demo(:80)? :path=/", output, re.M), output
    assert re.search(r"^  rsp id=\S+ .*:status=\d+ latency=\d+µs", output, re.M), output
    assert re.search(r"^  end id=\S+ .*duration=\d+µs response-length=\d+B", output, re.M), output
    for member in ("b-1", "b-2", "c-1", "c-2"):
        assert re.search(rf"^  {member} +1/1 +[\d.]+% +[\d.]+rps +\d+ms", output, re.M), output
    assert "deploy/b is spiffe://demo.mesh/ns/demo/sa/b" in output
    assert "\x1b" not in output, "colours, though this is no terminal"
    assert not processes_left()
    assert all(is_free(port) for port in ports_of(output.partition("look further")[0].partition("live:")[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_cleanly_when_told_to(number):
    demo = start(sys.executable, "examples/demo.py", DEMO_SECONDS="60", **PORTS)
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if line.startswith("  end id="):
            break
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, seen + rest
    assert "what each endpoint did" in rest
    assert not processes_left()


@pytest.mark.parametrize("places", ["ports", "machines"])
def test_a_demo_that_is_killed_takes_its_mesh_with_it(places):
    # A directory of its own: who is killed cannot clear up. Directly under /tmp: a socket's path must be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o711)
        demo = start(sys.executable, "examples/demo.py", DEMO_SECONDS="60", DEMO_PLACES=places, TMPDIR=directory)
        assert demo.stdout is not None
        while not (line := demo.stdout.readline()).startswith("  req id="):
            assert line, "the demo ended by itself"
        demo.kill()
        demo.communicate(timeout=60)
        for _ in range(300):
            if not processes_left():
                return
            time.sleep(0.1)
        raise AssertionError(processes_left())


def test_the_embedded_gateway_asks_for_a_token_and_names_the_user(tmp_path):
    source = (EXAMPLES / "embedded_gateway.py").read_text()
    assert source.count("\n") < 30, "the promise is: under 30 lines"
    # The example listens on 8080; a test may not.
    script = tmp_path / "gateway.py"
    script.write_text(source.replace("127.0.0.1:8080", "127.0.0.1:0"))
    with running_backend(backends.BEHAVIOURS[0]) as backend:
        gateway = start(sys.executable, str(script), f"127.0.0.1:{backend}", PYTHONPATH=str(ROOT))
        try:
            assert gateway.stdout is not None
            line = gateway.stdout.readline()
            port = next(iter(ports_of(line)), None)
            assert port, line + gateway.stdout.read()
            assert get(port, "/x")[0] == 401
            assert get(port, "/x", authorization="Bearer wrong")[0] == 401
            assert get(port, "/x", authorization="Bearer s3cret") == (200, "steady answered GET /x\n")
            assert get(port, "/healthz") == (200, "fine\n")
        finally:
            gateway.send_signal(signal.SIGTERM)
            output, _ = gateway.communicate(timeout=30)
    assert gateway.returncode == 0, output


def test_the_example_configuration_loads_without_a_warning():
    assert not meshcore.config.check(meshcore.config.load(EXAMPLES / "mesh.yaml"))


@pytest.mark.parametrize("page", ["README.md", "docs/embedding.md", "docs/operating.md"])
def test_each_yaml_block_of_a_page_is_a_configuration(page):
    for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        assert not meshcore.config.check(meshcore.config.loads(block, page))


def test_the_mistake_that_the_readme_shows_is_told_as_it_says():
    page = (ROOT / "README.md").read_text()
    block = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)[0].replace("timeout: 2s", "timout: 2s")
    with pytest.raises(meshcore.ConfigError) as caught:
        meshcore.config.loads(block, "mesh.yaml")
    assert f"    {caught.value}\n" in page


@pytest.mark.parametrize("page", ["README.md", "docs/embedding.md"])
def test_each_python_block_of_a_page_compiles(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        compile(block, page, "exec")


@pytest.mark.parametrize("behaviour", backends.BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_the_load_accounts_for_each_request_it_sent(behaviour):
    with running_backend(behaviour) as port:
        seen = asyncio.run(Load(port, rps=200, seconds=0.5).run())
    assert seen.requests + seen.not_sent == 100
    assert len(seen.latencies_ms) == seen.statuses.total() == seen.requests - seen.not_answered
    assert (seen.good == seen.requests) == (behaviour.name != "flaky")
