"""`make demo`: three servers, one meshproxy, a bounded load; live tap lines, then a table of each endpoint.

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
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import backends
from load import Load, Outcome

ROOT = Path(__file__).resolve().parent.parent
MESHPROXY = Path(sys.executable).with_name("meshproxy")
CONFIG = ".demo/mesh.yaml"  # paths are relative to ROOT: a unix socket's path has room for 107 bytes only
ADMIN = ".demo/admin.sock"
REQUESTS_PER_SECOND = 200
TAPPED_PER_SECOND = 3

MESH_YAML = """\
# Written by `make demo`. Try:  .venv/bin/meshproxy config --show-effective -c .demo/mesh.yaml
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
  balancer: peak_ewma          # the faster an endpoint answers, the more it is given
  endpoints:
{endpoints}
  breaker: {{consecutive_failures: 5, backoff: 500ms}}
admin: {{address: "unix:{admin}"}}
"""

PLAIN = not sys.stdout.isatty() or "NO_COLOR" in os.environ
WIDTH = 110 if PLAIN else min(shutil.get_terminal_size().columns, 140)


def paint(text: str, code: str) -> str:
    return text if PLAIN else f"\x1b[{code}m{text}\x1b[0m"


BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"


def title(text: str) -> None:
    print(f"\n{paint(text, BOLD)}", flush=True)


# --- what the proxy says ----------------------------------------------------------------------------------------------


def admin_get(path: str) -> tuple[int, bytes]:
    """One request on the admin socket. Blocks for a moment only: the socket is local."""
    connection = http.client.HTTPConnection("meshproxy", timeout=5)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(5)
        sock.connect(ADMIN)
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
            f"{names.get(row['address'], '?') + '  ' + row['address']:26}{row['requests']:>10}"
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


async def until_ready(proxy: asyncio.subprocess.Process) -> None:
    deadline = monotonic() + 15
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if admin_get("/ready")[0] == 200:
                return
        if proxy.returncode is not None or monotonic() > deadline:
            raise RuntimeError("the proxy did not become ready; what it said is above")
        await asyncio.sleep(0.05)


async def print_tap(tap: asyncio.subprocess.Process) -> None:
    assert tap.stdout is not None
    async for line in tap.stdout:
        print(" ", tap_line(line.decode()), flush=True)


def report(seen: Outcome, stats: dict[str, Any], names: dict[str, str], port: int) -> None:
    title("what each endpoint did")
    for line in table(stats, names):
        print(" ", line)
    cluster = stats["clusters"][0]
    shown = 100 * seen.good / max(1, seen.requests)
    print(f"\n  The clients saw {seen.good} of {seen.requests} requests answered well ({shown:.2f} %; a 404 is an answer), "
          f"p50 {seen.quantile_ms(.5):.1f} ms, p99 {seen.quantile_ms(.99):.1f} ms.\n"
          f"  The proxy sent {cluster['retries']} of them a second time, to another endpoint; orders (POST) are "
          f"never repeated once they were sent.")
    if made := ", ".join(f"{reason} {count}" for reason, count in sorted(stats["reasons"].items())):
        print(f"  Answers of the proxy's own, with the reason in x-mesh-reason: {made}.")
    title("look further")
    run = f".venv/bin/meshproxy run -c {CONFIG}"
    for what, how in (
        ("the same proxy", run),
        ("its configuration", f"{CONFIG}   (edit it while it runs: it reloads)"),
        ("live requests", f".venv/bin/meshproxy tap --admin unix:{ADMIN}"),
        ("a table", f".venv/bin/meshproxy stat --admin unix:{ADMIN}"),
        ("metrics", f"curl --unix-socket {ADMIN} http://meshproxy/metrics"),
        ("no file at all", ".venv/bin/meshproxy proxy --listen :8080 --to 127.0.0.1:9001"),
        ("from Python", "examples/embedded_gateway.py"),
        ("to read", "README.md, docs/, ARCHITECTURE.md"),
    ):
        print(f"  {what:18}{paint(how, CYAN)}")


async def demo(seconds: float) -> int:
    servers, names, lines = [], {}, []
    proxy = tap = printing = None
    port = free_port()
    load = Load(port, REQUESTS_PER_SECOND, seconds)
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, load.stop)
    try:
        print(f"{paint('meshcore demo', BOLD)}   three servers, one proxy, {REQUESTS_PER_SECOND} requests a second "
              f"for {seconds:g} s; Ctrl-C ends it")
        for behaviour in backends.BEHAVIOURS:
            server, at = await backends.start(behaviour)
            servers.append(server)
            names[f"127.0.0.1:{at}"] = behaviour.name
            lines.append(f'  - "127.0.0.1:{at}"')
            print(f"  {behaviour.name:8}127.0.0.1:{at}   {behaviour.says}")
        Path(".demo").mkdir(exist_ok=True)
        Path(CONFIG).write_text(MESH_YAML.format(port=port, endpoints="\n".join(lines), admin=ADMIN))
        proxy = await start_meshproxy("run", "-c", CONFIG, stdout=asyncio.subprocess.DEVNULL)
        await until_ready(proxy)
        print(f"  {'proxy':8}127.0.0.1:{port}   meshproxy run -c {CONFIG}")

        title(f"live: meshproxy tap --max-rps {TAPPED_PER_SECOND}")
        tap = await start_meshproxy("tap", "--admin", f"unix:{ADMIN}", "--max-rps", str(TAPPED_PER_SECOND),
                                    stdout=asyncio.subprocess.PIPE)
        printing = asyncio.create_task(print_tap(tap))
        seen = await load.run()
        stats = json.loads(admin_get("/stats")[1])
        await end(tap)
        await printing
        report(seen, stats, names, port)
        return 0 if seen.good else 1
    finally:
        for process in (tap, proxy):
            if process is not None:
                await end(process)
        if printing is not None:
            printing.cancel()
        for server in servers:
            server.close()
        Path(ADMIN).unlink(missing_ok=True)


def main() -> int:
    os.chdir(ROOT)
    with terminal_of_our_own():
        return asyncio.run(demo(float(os.environ.get("DEMO_SECONDS", "20"))))


if __name__ == "__main__":
    sys.exit(main())
