"""The measurements that are not CPU per request: system calls, memory, added latency."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from bench.load import LOAD_CORE, PROXY_CORE, IdleConnections, Load, run_load
from bench.peers import Peer
from bench.shapes import H1

IDLE_CONNECTIONS = 5000
IDLE_TLS_CONNECTIONS = 2000  # each costs ten thousands of bytes: enough to tell, and handshakes take time
# Below it are the calls that open the 32 connections, spread over the requests of the run.
SHOWN_CALLS = 0.05
LATENCY_RATE = 1000
LATENCY_CONNS = 16


class Skipped(RuntimeError):
    """A probe that cannot run here; the text is the reason that the table prints."""


def syscalls_per_request(peer: Peer, seconds: float = 2.0) -> dict[str, float]:
    """Calls by name and in all ("total") per request, 32 busy connections, counted by strace.

    strace slows the proxy many times, which changes how many events one wait returns and nothing
    else, so this is a run of its own.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise Skipped("strace is not installed")
    output = peer.directory / "strace"
    output.unlink(missing_ok=True)
    arguments = ["--conns=32"]
    run_load(peer.ports.listen, peer.ports.backend, arguments, seconds=0.1)  # connections and pools
    tracer = subprocess.Popen(
        ["taskset", "-c", str(LOAD_CORE), strace, "-f", "-c", "-o", str(output), "-p", str(peer.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    if tracer.poll() is not None:
        reason = (tracer.stderr.read() if tracer.stderr else "").strip().splitlines()
        raise Skipped(f"strace: {reason[-1] if reason else 'failed'}")
    load = run_load(peer.ports.listen, peer.ports.backend, arguments, seconds=seconds, warmup_seconds=0.1)
    tracer.send_signal(signal.SIGINT)
    tracer.communicate(timeout=10)
    counts: dict[str, float] = {}
    for line in output.read_text().splitlines():
        # % time, seconds, usecs/call, calls, [errors,] syscall
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d*\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if match and match[2] != "total":
            counts[match[2]] = counts.get(match[2], 0) + int(match[1])
    if not counts or not load.total_requests:
        raise Skipped("strace counted nothing")
    per_request = {name: count / load.total_requests for name, count in counts.items()}
    listed = dict(sorted(per_request.items(), key=lambda item: -item[1]))
    return {"total": sum(per_request.values()), **{k: v for k, v in listed.items() if v >= SHOWN_CALLS}}


def bytes_per_idle_connection(peer: Peer, conns: int = IDLE_CONNECTIONS, wire: str = H1) -> float:
    """Growth of the proportional set size over `conns` connections that made one request each.

    User space only: socket buffers of the kernel are the same for everyone.
    """
    arguments = peer.credentials.load_arguments(wire)
    busy = run_load(peer.ports.listen, peer.ports.backend, ["--conns=64", *arguments], seconds=0.3)
    if busy.errors:
        raise Skipped(f"{busy.errors} errors: {busy.first_error}")
    time.sleep(0.5)
    before = peer.pss_bytes()
    with IdleConnections(peer.ports.listen, peer.ports.backend, conns, arguments) as held:
        if held.ready < conns:
            raise Skipped(f"only {held.ready} of {conns} connections were answered")
        time.sleep(0.5)
        return (peer.pss_bytes() - before) / conns


def latency_arguments(*, rate: int = LATENCY_RATE, awake: bool) -> list[str]:
    """Open loop at a fixed rate. `awake` keeps the proxy's core from halting, see README."""
    keep_awake = [f"--keep-awake={PROXY_CORE}"] if awake else []
    return [f"--conns={LATENCY_CONNS}", f"--rate={rate}", *keep_awake]


def latency_runner(
    peers: dict[str, Peer], *, seconds: float, awake: bool
) -> Callable[[str], Load]:
    """Runs by name for bench.rounds.sample; the name "direct" means no proxy in between."""
    backend_port = next(iter(peers.values())).ports.backend

    def run(name: str) -> Load:
        port = backend_port if name == "direct" else peers[name].ports.listen
        arguments = latency_arguments(awake=awake)
        return run_load(port, backend_port, arguments, seconds=seconds, warmup_seconds=0.3)

    return run
