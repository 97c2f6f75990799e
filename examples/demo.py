"""`make demo`: three servers, one meshproxy, a bounded load; live tap lines, then a table of each endpoint.

At half time the configuration is saved with another balancer, and the proxy takes it over while requests go on.
DEMO_SECONDS says how long (default 20); Ctrl-C ends it earlier. Exit 0 when the proxy worked and all is cleared away.
Everything stays on 127.0.0.1. The configuration is left in .demo/mesh.yaml, to go on with.
"""

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import backends
from load import Load, Outcome

ROOT = Path(__file__).resolve().parent.parent
MESHPROXY = Path(sys.executable).with_name("meshproxy")
CONFIG = ".demo/mesh.yaml"
REQUESTS_PER_SECOND = 200
TAPPED_PER_SECOND = 2
BALANCERS = ("least_request", "peak_ewma")  # before and after half time

MESH_YAML = """\
# Written by `make demo`. Every key with its value:  .venv/bin/meshproxy config --show-effective -c .demo/mesh.yaml
listeners:
- {{name: web, address: "127.0.0.1:{port}"}}
routes:
- name: shop
  match: {{prefix: /shop}}
  to: shop
  timeout: 2s
  retries: {{max_attempts: 3, on: [connect_failure, reset, "503"]}}
clusters:
- name: shop
  balancer: {balancer}
  endpoints:
{endpoints}
  breaker: {{consecutive_failures: 5, backoff: 500ms}}
"""

PLAIN = not sys.stdout.isatty() or "NO_COLOR" in os.environ
WIDTH = 110 if PLAIN else min(shutil.get_terminal_size().columns, 140)


def paint(text: str, code: str) -> str:
    return text if PLAIN else f"\x1b[{code}m{text}\x1b[0m"


BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"


def title(text: str) -> None:
    print(f"\n{paint(text, BOLD)}", flush=True)


# --- what the proxy says ----------------------------------------------------------------------------------------------


def admin_get(admin: Path, path: str) -> tuple[int, bytes]:
    """One request on the admin socket. Blocks for a moment only: the socket is local."""
    connection = http.client.HTTPConnection("mesh", timeout=5)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(5)
        sock.connect(str(admin))
        connection.sock = sock
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def tap_line(line: str) -> str:
    """Colours a line of `meshproxy tap`; cuts it to the terminal's width."""
    line = line.rstrip()
    shown = line if PLAIN or len(line) <= WIDTH - 2 else line[: WIDTH - 3] + "…"
    if line.startswith("rsp"):
        status = line.partition(":status=")[2][:1]
        return paint(shown, {"2": GREEN, "5": RED}.get(status, YELLOW))
    return paint(shown, DIM if line.startswith("end") and "reset" not in line else CYAN)


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def table(stats: dict[str, Any], names: dict[str, str]) -> Iterator[str]:
    """One line for each endpoint, in the order of the configuration."""
    yield paint(f"{'ENDPOINT':26}{'REQUESTS':>10}{'SUCCESS':>10}{'RPS':>8}{'P50':>11}{'P99':>11}{'P99.9':>11}"
                f"{'EJECTED':>9}", BOLD)
    for row in (endpoint for cluster in stats["clusters"] for endpoint in cluster["endpoints"]):
        success, latency = row["success_percent"], row["latency"]
        colour = GREEN if success is None or success > 99.9 else YELLOW if success > 95 else RED
        yield (
            f"{names.get(row['address'], '?'):8}{row['address']:18}{row['requests']:>10}"
            + paint(f"{cell(success, '{:.2f}%'):>10}", colour)
            + f"{cell(row['rps'], '{:.1f}'):>8}"
            + "".join(f"{cell(latency[q], '{:.1f} ms'):>11}" for q in ("p50_ms", "p99_ms", "p999_ms"))
            + f"{row['ejections']:>8}x"
        )


# --- processes --------------------------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    """Runs in the child. Killing the demo, however rudely, must not leave a proxy behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


async def start_meshproxy(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C reaches the demo alone, which then ends things in the right order.
    return await asyncio.create_subprocess_exec(
        str(MESHPROXY), *arguments, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
        preexec_fn=_die_with_parent, **options,
    )


async def end(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
    return await process.wait()


@contextlib.contextmanager
def terminal_of_our_own() -> Iterator[None]:
    """Puts the demo into the terminal's foreground by itself.

    Ctrl-C goes to every process in the foreground, `make` among them, which would report a failed target. As a
    shell does with a job, we take the terminal for our own process group and hand it back at the end.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
        before = os.tcgetpgrp(terminal)
        if before != os.getpgrp():
            raise OSError("in the background: the terminal is not ours to take")
    except OSError:
        yield  # no terminal, no Ctrl-C
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # tcsetpgrp from the background asks for it
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody would be left to wake us up
    try:
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        os.tcsetpgrp(terminal, before)
        os.close(terminal)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the demo ---------------------------------------------------------------------------------------------------------


async def until_ready(proxy: asyncio.subprocess.Process, admin: Path) -> None:
    deadline = monotonic() + 15
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if admin_get(admin, "/ready")[0] == 200:
                return
        if proxy.returncode is not None or monotonic() > deadline:
            raise RuntimeError("the proxy did not become ready; what it said is above")
        await asyncio.sleep(0.05)


async def print_lines(process: asyncio.subprocess.Process, shown: Callable[[str], str | None]) -> None:
    """Print each line of a process's output as `shown` has it, until the output ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        if (text := shown(line.decode().rstrip())) is not None:
            print(" ", text, flush=True)


def reload_line(line: str) -> str | None:
    return paint(f"meshproxy says: {line}", BOLD) if line.startswith("reload: ~") else None


def requests_of(stats: dict[str, Any]) -> dict[str, int]:
    return {row["address"]: row["requests"] for row in stats["clusters"][0]["endpoints"]}


class Demo:
    """The servers, the proxy, its tap and the load; `close` ends what was started, in the reverse order."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.port = free_port()
        self.load = Load(self.port, REQUESTS_PER_SECOND, seconds)
        self.names: dict[str, str] = {}  # "127.0.0.1:PORT" -> the server's name
        self.before: dict[str, int] = {}  # requests of each endpoint at half time
        # Not in .demo: a unix socket's path has room for 107 bytes only, and a clone may lie deep.
        self.private = Path(tempfile.mkdtemp(prefix="meshcore-demo-"))
        self.admin = self.private / "admin.sock"
        self._servers: list[asyncio.Server] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._printing: list[asyncio.Task[None]] = []

    async def start_servers(self) -> None:
        for behaviour in backends.BEHAVIOURS:
            server, port = await backends.start(behaviour)
            self._servers.append(server)
            self.names[f"127.0.0.1:{port}"] = behaviour.name
            print(f"  {behaviour.name:8}127.0.0.1:{port}   {behaviour.says}")

    async def start_proxy(self) -> None:
        self.write_config(BALANCERS[0])
        proxy = await self._start("run", "-c", CONFIG, "--admin", f"unix:{self.admin}", shown=reload_line)
        await until_ready(proxy, self.admin)
        print(f"  {'proxy':8}127.0.0.1:{self.port}   meshproxy run -c {CONFIG}")

    async def start_tap(self) -> None:
        title(f"live: meshproxy tap --max-rps {TAPPED_PER_SECOND}")
        await self._start("tap", "--admin", f"unix:{self.admin}", "--max-rps", str(TAPPED_PER_SECOND), shown=tap_line)

    def write_config(self, balancer: str) -> None:
        Path(CONFIG).parent.mkdir(exist_ok=True)
        endpoints = "\n".join(f'  - "{address}"' for address in self.names)
        Path(CONFIG).write_text(MESH_YAML.format(port=self.port, endpoints=endpoints, balancer=balancer))

    async def change_balancer_at_half_time(self) -> None:
        await asyncio.sleep(self.seconds / 2)
        self.before = requests_of(self.stats())
        print(f"  {paint(f'half time: {CONFIG} is saved with balancer: {BALANCERS[1]}', BOLD)}", flush=True)
        self.write_config(BALANCERS[1])

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(admin_get(self.admin, "/stats")[1])
        return stats

    async def close(self) -> None:
        while self._processes:
            await end(self._processes.pop())
        await asyncio.gather(*self._printing)
        for server in self._servers:
            server.close()
        shutil.rmtree(self.private, ignore_errors=True)

    async def _start(self, *arguments: str, shown: Callable[[str], str | None]) -> asyncio.subprocess.Process:
        process = await start_meshproxy(*arguments, stdout=asyncio.subprocess.PIPE)
        self._processes.append(process)
        self._printing.append(asyncio.create_task(print_lines(process, shown)))
        return process


def report(demo: Demo, seen: Outcome, stats: dict[str, Any]) -> None:
    title("what each endpoint did")
    for line in table(stats, demo.names):
        print(" ", line)
    good = 100 * seen.good / max(1, seen.requests)
    print(f"\n  Clients: {seen.good} of {seen.requests} requests answered well ({good:.2f} %; a 404 is an answer), "
          f"p50 {seen.quantile_ms(.5):.1f} ms, p99 {seen.quantile_ms(.99):.1f} ms.")
    print(f"  Retries: {stats['clusters'][0]['retries']} went to another endpoint. An order (POST) that was sent is never "
          "sent again.")
    if demo.before:
        slow = next(address for address, name in demo.names.items() if name == "slow")
        after = {address: count - demo.before[address] for address, count in requests_of(stats).items()}
        shares = [100 * counts[slow] / max(1, sum(counts.values())) for counts in (demo.before, after)]
        print(f"  Balance: the slow one got {shares[0]:.1f} % of the requests under {BALANCERS[0]}, and {shares[1]:.1f} % "
              f"after half time under {BALANCERS[1]}.")
    if made := ", ".join(f"{reason} {count}" for reason, count in sorted(stats["reasons"].items())):
        print(f"  Reasons: what the proxy answered itself, as in x-mesh-reason: {made}.")
    title("look further")
    ports = " ".join(address.rpartition(":")[2] for address in demo.names)
    directory = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/meshproxy-{os.getuid()}"
    for what, how in (
        ("the servers again", f".venv/bin/python examples/backends.py {ports}"),
        ("the proxy again", f".venv/bin/meshproxy run -c {CONFIG}     save the file while it runs: it reloads"),
        ("a load", f".venv/bin/python examples/load.py {demo.port}"),
        ("live requests", ".venv/bin/meshproxy tap --max-rps 10"),
        ("a live table", ".venv/bin/meshproxy stat --watch"),
        ("metrics, admin", f"curl --unix-socket {directory}/meshproxy-{demo.port}.sock http://mesh/metrics"),
        ("without a file", ".venv/bin/meshproxy proxy --listen :8080 --to 127.0.0.1:9001"),
        ("from Python", "examples/embedded_gateway.py"),
        ("to read", "README.md, docs/, ARCHITECTURE.md"),
    ):
        print(f"  {what:20}{paint(how, CYAN)}")


async def run(seconds: float) -> int:
    demo = Demo(seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, demo.load.stop)
    print(f"{paint('meshcore demo', BOLD)}   three servers, one proxy, {REQUESTS_PER_SECOND} requests a second for "
          f"{seconds:g} s; Ctrl-C ends it")
    try:
        await demo.start_servers()
        await demo.start_proxy()
        await demo.start_tap()
        half_time = asyncio.create_task(demo.change_balancer_at_half_time())
        seen = await demo.load.run()
        half_time.cancel()
        stats = demo.stats()
    finally:
        await demo.close()
    report(demo, seen, stats)
    return 0 if seen.good else 1


def main() -> int:
    os.chdir(ROOT)
    with terminal_of_our_own():
        return asyncio.run(run(float(os.environ.get("DEMO_SECONDS", "20"))))


if __name__ == "__main__":
    sys.exit(main())
