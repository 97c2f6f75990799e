"""What the mesh hop costs and saves: CPU of two proxies in a row per request, with mesh_hop on and off, in the clear and under mutual TLS.

    python -m bench.mesh_hop [--conns 64] [--seconds 3] [--rounds 3]

Rounds are interleaved; each figure is the median of its rounds, of both proxies together. Both are pinned to one core, load
and server to the other.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.credentials import SERVER_NAME, Credentials
from bench.load import PROXY_CORE, run_load
from bench.peers.base import READY_SECONDS, accepts, free_ports

NEAR = """
workers: 1
listeners: [{{name: web, address: "127.0.0.1:{near}"}}]
routes: [{{name: all, to: far}}]
clusters: [{{name: far, endpoints: ["127.0.0.1:{far}"], mesh_hop: {hop}{near_tls}}}]
"""
FAR = """
workers: 1
listeners: [{{name: web, address: "127.0.0.1:{far}", mesh_hop: {hop}{far_tls}}}]
routes: [{{name: all, to: backend}}]
clusters: [{{name: backend, endpoints: ["127.0.0.1:{backend}"]}}]
"""


@contextmanager
def pair(folder: Path, ports: list[int], hop: str, secure: bool, held: Credentials) -> Iterator[tuple[int, int, list[int]]]:
    """A proxy before another: the near one's port, the backend's, and both processes."""
    near, far, backend = ports
    ours = f"cert: {held.cert('client')}, key: {held.key('client')}"
    words = {
        "near": near, "far": far, "backend": backend, "hop": hop,
        "near_tls": f", tls: {{ca: {held.ca}, sni: {SERVER_NAME}, {ours}}}" if secure else "",
        "far_tls": f", tls: {{certificates: [{{cert: {held.cert('server')}, key: {held.key('server')}}}], client_ca: {held.ca}}}" if secure else "",
    }  # fmt: skip
    with ExitStack() as stack:
        pids = []
        for name, text, port in (("far", FAR, far), ("near", NEAR, near)):
            file = folder / f"{name}-{hop}-{secure}.yaml"
            file.write_text(text.format(**words))
            command = ["taskset", "-c", str(PROXY_CORE), sys.executable, "-m", "meshcore", "run", "-c", str(file)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            pids.append(process.pid)
            _await(port)
        yield near, backend, pids


def _await(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not accepts(port):
        if time.monotonic() > deadline:
            raise SystemExit(f"nobody listens on port {port}")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conns", type=int, default=64, help="connections of the load, each with one request at a time")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measured run")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        held = Credentials(folder)
        held.make()
        kinds = list(itertools.product((False, True), ("off", "on")))
        ports = free_ports(3 * len(kinds))
        running = {
            kind: stack.enter_context(pair(folder, ports[3 * number : 3 * number + 3], kind[1], kind[0], held))
            for number, kind in enumerate(kinds)
        }
        found: dict[tuple[bool, str], list[float]] = {kind: [] for kind in kinds}
        rates: dict[tuple[bool, str], list[float]] = {kind: [] for kind in kinds}
        for _ in range(asked.rounds):
            for kind in kinds:
                near, backend, pids = running[kind]
                load = run_load(near, backend, [f"--conns={asked.conns}"], seconds=asked.seconds, watched_pids=pids)
                if load.errors:
                    raise SystemExit(f"errors of the load: {load.first_error}")
                found[kind].append(load.cpu_us_per_request)
                rates[kind].append(load.main.rps)
        for secure in (False, True):
            off, on = (statistics.median(found[secure, hop]) for hop in ("off", "on"))
            wire = "mutual TLS" if secure else "in the clear"
            print(f"{wire}: CPU-us per request of both proxies: HTTP/1.1 {off:.1f}, mesh hop {on:.1f} ({on / off:.2f} x)")
            print(f"  requests/s: {statistics.median(rates[secure, 'off']):.0f}, {statistics.median(rates[secure, 'on']):.0f}; rounds: {found[secure, 'off']}, {found[secure, 'on']}")


if __name__ == "__main__":
    main()
