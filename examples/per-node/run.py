"""Three nodes as network namespaces, one proxy on each, a namerd between them; one edit of a table moves a tenth of the traffic.

    sudo .venv/bin/python examples/per-node/run.py

An application of node 1 asks the proxy of its own node for `web`, and knows of nothing else. Shown are a table of who
answered, taps of the proxy of node 1 before and after the edit, and what it took from the edit to the first request that
went to the new version. Needs root. Everything is stopped and taken down at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SWITCH = "mesh-example-switch"
NODES = {1: "v1", 2: "v1", 3: "v2"}
"""Node -> version of `web` that runs there."""
BEFORE = "/svc => /#/io.l5d.fs ;"
AFTER = f"{BEFORE} /svc/web => 9 * /#/io.l5d.fs/web & 1 * /#/io.l5d.fs/web-v2 ;"
TAP_LINES = 6
START_SECONDS = 30.0


def node_name(number: int) -> str:
    return f"mesh-example-node-{number}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A switch, and nodes 10.79.0.1 to .3 plugged into it; the switch itself is .100."""
    names = [SWITCH, *map(node_name, NODES)]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", SWITCH, "link", "add", "switch", "type", "bridge")
        ip("-n", SWITCH, "addr", "add", "10.79.0.100/24", "dev", "switch")
        ip("-n", SWITCH, "link", "set", "switch", "up")
        for number in NODES:
            node = node_name(number)
            ip("link", "add", "wire", "netns", node, "type", "veth", "peer", "name", f"port{number}", "netns", SWITCH)
            ip("-n", SWITCH, "link", "set", f"port{number}", "master", "switch", "up")
            ip("-n", node, "addr", "add", f"10.79.0.{number}/24", "dev", "wire")
            ip("-n", node, "link", "set", "wire", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Machines:
    """Programs in namespaces; all are stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def start(self, where: str, name: str, *command: str, cwd: Path | None = None) -> Path:
        """Its log, which is where a reason is looked for when it does not start."""
        log = self.folder / f"{where}-{name}.log"
        with log.open("w") as file:
            inside = ["ip", "netns", "exec", where, *command]
            self._running.append(subprocess.Popen(inside, stdout=file, stderr=file, text=True, cwd=cwd))
        return log

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while text not in log.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"{log.name} did not say {text!r}:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


# --- what runs inside a namespace: this file again ---


def application(version: str, node: str) -> None:
    """An instance of `web`: says which version it is, and where."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Web(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"{version} on node {node}\n".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    print("serving", flush=True)
    ThreadingHTTPServer((f"10.79.0.{node}", 8080), Web).serve_forever()


def client(seconds: float, rate: float) -> None:
    """Asks the proxy of its node for `web`; one line of JSON a request: when, who answered or what went wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", 4140, timeout=10)
    begun = time.monotonic()
    number = 0
    while (now := time.monotonic() - begun) < seconds:
        if now < number / rate:
            time.sleep(number / rate - now)
        number += 1
        connection.request("GET", "/", headers={"Host": "web"})
        answer = connection.getresponse()
        body = answer.read().decode().strip()
        print(json.dumps({"at": time.monotonic(), "by": body if answer.status == 200 else f"{answer.status}"}), flush=True)


def edit(dtab: str) -> None:
    """What `meshctl dtab update` or curl does: PUT the table at namerd."""
    request = urllib.request.Request(
        "http://127.0.0.1:4180/api/1/dtabs/default", dtab.encode(), {"content-type": "application/dtab"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(json.dumps({"at": time.monotonic(), "status": answer.status}))


# --- the show ---


def show(seconds: float, rate: float) -> int:
    meshproxy = [sys.executable, "-m", "meshcore"]
    meshctl = [sys.executable, "-c", "from controlplane.cli import main; main()"]
    inside = [sys.executable, str(Path(__file__).resolve())]
    with tempfile.TemporaryDirectory() as work, network():
        folder = Path(work)
        for name in ("namerd.yaml", "node.yaml", "disco"):
            (shutil.copytree if (HERE / name).is_dir() else shutil.copy)(HERE / name, folder / name)  # type: ignore[operator]
        machines = Machines(folder)
        try:
            namerd = machines.start(SWITCH, "namerd", *meshctl, "namerd", "run", "-c", "namerd.yaml", cwd=folder)
            logs = [(namerd, "4321")]
            for number, version in NODES.items():
                node = node_name(number)
                logs.append((machines.start(node, "web", *inside, "--application", version, str(number)), "serving"))
                logs.append((machines.start(node, "proxy", *meshproxy, "run", "--linkerd", "node.yaml", cwd=folder), "reload:"))
            for log, text in logs:
                wait_for(log, text)
            return _shift(machines, inside, meshproxy, seconds, rate)
        finally:
            machines.stop()


def _shift(machines: Machines, inside: list[str], meshproxy: list[str], seconds: float, rate: float) -> int:
    node = node_name(1)
    asking = machines.start(node, "client", *inside, "--client", str(seconds), str(rate))
    watching = (*meshproxy, "tap", "--admin", "127.0.0.1:9990", "--to", "10.79.0.3", "--max-rps", "10", "-o", "wide")
    tap = machines.start(node, "tap", *watching)
    time.sleep(seconds / 2)
    edited = json.loads(
        subprocess.run(["ip", "netns", "exec", SWITCH, *inside, "--edit", AFTER], check=True, capture_output=True, text=True).stdout
    )
    time.sleep(seconds / 2 + 1)
    answers = [json.loads(line) for line in asking.read_text().splitlines()]
    before = Counter(one["by"] for one in answers if one["at"] < edited["at"])
    after = Counter(one["by"] for one in answers if one["at"] >= edited["at"])
    print(f"dtab before: {BEFORE}\ndtab after:  {AFTER}\n")
    print(f"{'':22}{'before':>8}{'after':>8}")
    for name in sorted(before | after):
        print(f"{name:22}{before[name]:8}{after[name]:8}")
    moved = next((one["at"] for one in answers if one["at"] >= edited["at"] and one["by"].startswith("v2")), None)
    share = sum(count for name, count in after.items() if name.startswith("v2")) / max(1, after.total())
    print(f"\nshare of v2 after the edit: {100 * share:.1f} %", end="")
    print("" if moved is None else f"; the first request that chance gave it came {1000 * (moved - edited['at']):.0f} ms after the edit")
    print("\n`meshproxy tap --to 10.79.0.3` at the proxy of node 1, where v2 runs:")
    lines = tap.read_text().splitlines()
    print("\n".join(lines[:TAP_LINES]) or "(nothing)")
    failed = sum(count for name, count in (before + after).items() if not name.startswith("v"))
    is_good = not failed and not any(name.startswith("v2") for name in before) and 0.02 < share < 0.3 and bool(lines)
    print(f"\n{len(answers)} requests, {failed} failed" + ("" if is_good else "\nthis is not what should have happened"))
    return 0 if is_good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the application asks (10)")
    parser.add_argument("--rate", type=float, default=100.0, help="its requests per second (100)")
    parser.add_argument("--application", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--edit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.application:
        application(*given.application)
    elif given.client:
        client(*given.client)
    elif given.edit:
        edit(given.edit)
    elif os.geteuid() != 0:
        print("this needs root: network namespaces", file=sys.stderr)
        return 2
    else:
        return show(given.seconds, given.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
