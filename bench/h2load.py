"""Runs of h2load, the load of the HTTP/2 rows, and what they found. Starts no proxy and no backend."""

from __future__ import annotations

import math
import os
import re
import resource
import subprocess
import time
from pathlib import Path

from bench.backends import Backend
from bench.load import LOAD_CORE, Load, LoadFailed, Stream
from bench.peers.base import Peer, find_program
from bench.shapes import Shape

WARMUP_REQUESTS = 20  # for each stream: pools fill, and the rate tells how many requests a window has
NAN = math.nan


def unavailable() -> str | None:
    return None if find_program("h2load") else "h2load is not installed (apt-get install nghttp2-client)"


def cpu_ns(pid: int) -> int:
    """What the kernel has charged to all threads of a process."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except OSError:  # a thread that has ended since
            continue
    return total


def _machine_seconds() -> tuple[float, float]:
    """Busy and stolen time of all cores, as the load instrument counts them."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    second = os.sysconf("SC_CLK_TCK")
    return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / second, ticks[7] / second


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class H2Load:
    """Loads one peer after the other in the way of `shape`, with `backend` behind all of them."""

    def __init__(self, shape: Shape, backend: Backend, seconds: float) -> None:
        self._shape = shape
        self._backend = backend
        self._seconds = seconds

    def run(self, peer: Peer) -> Load:
        """One window. It has a number of requests, not a length, so that nothing is cut off at its end."""
        at_once = self._shape.conns * self._shape.streams
        begin = time.monotonic()
        warm, error = self._drive(peer, max(at_once * WARMUP_REQUESTS, 1000), 60)
        rate = warm / (time.monotonic() - begin)
        if error:
            return self._load(0, 1e-9, warm, error)
        count = max(int(rate * self._seconds), at_once)
        before = cpu_ns(peer.pid), cpu_ns(self._backend.pid), _children_seconds(), _machine_seconds()
        begin = time.monotonic()
        done, error = self._drive(peer, count, self._seconds * 10 + 30)
        seconds = time.monotonic() - begin
        after = cpu_ns(peer.pid), cpu_ns(self._backend.pid), _children_seconds(), _machine_seconds()
        proxy, backend = ((after[i] - before[i]) / 1e9 for i in (0, 1))
        used = proxy + backend + after[2] - before[2]
        return self._load(
            0 if error else done,
            seconds,
            done,
            error,
            proxy_seconds=proxy,
            own_seconds=used - proxy,
            foreign_seconds=after[3][0] - before[3][0] - used,
            steal_seconds=after[3][1] - before[3][1],
        )

    def _drive(self, peer: Peer, count: int, timeout_seconds: float) -> tuple[int, str]:
        """Requests answered rightly, and what was wrong with the others or with how they were carried."""
        shape, backend = self._shape, self._backend
        command = [
            *("taskset", "-c", str(LOAD_CORE), find_program("h2load") or "h2load"),
            *("-n", str(count), "-c", str(shape.conns), "-m", str(shape.streams), *backend.h2load_arguments),
            f"http://127.0.0.1:{peer.ports.listen}{backend.path}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            return 0, f"h2load: {count} requests were not answered in {timeout_seconds:.0f} s"
        text = done.stdout
        succeeded = _number(text, r"(\d+) succeeded")
        if done.returncode or succeeded is None:
            raise LoadFailed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or text[-300:]}")
        protocol = re.search(r"Application protocol: (\S+)", text)
        if protocol is None or protocol[1] != "h2c":
            return 0, f"h2load: spoke {protocol[1] if protocol else 'nothing'}, not h2c"
        if succeeded != count or _number(text, r"status codes: (\d+) 2xx") != count:
            lines = [line for line in text.splitlines() if line.startswith(("requests:", "status codes:"))]
            return succeeded, "h2load: " + "; ".join(lines)
        body_bytes = _number(text, r"\((\d+)\) data")
        if body_bytes != count * backend.answer_bytes:
            return 0, f"h2load: {body_bytes} bytes of bodies in {count} answers of {backend.answer_bytes}"
        return succeeded, ""

    @staticmethod
    def _load(
        requests: int,
        seconds: float,
        total: int,
        error: str,
        *,
        proxy_seconds: float = 0.0,
        own_seconds: float = 0.0,
        foreign_seconds: float = 0.0,
        steal_seconds: float = 0.0,
    ) -> Load:
        cores = os.cpu_count() or 1
        return Load(
            seconds=seconds,
            requests=requests,
            total_requests=total,
            # h2load tells no quantiles but through a file with a line for each request.
            main=Stream(requests, requests / seconds, NAN, NAN, NAN, NAN, NAN, NAN),
            background=None,
            cpu_us_per_request=proxy_seconds * 1e6 / requests if requests else 0.0,
            own_us_per_request=own_seconds * 1e6 / requests if requests else 0.0,
            proxy_utilisation=proxy_seconds / seconds,
            foreign_share=max(0.0, foreign_seconds) / seconds / cores,
            steal_share=steal_seconds / seconds / cores,
            reconnects=0,
            errors=1 if error else 0,
            first_error=error,
        )


def _number(text: str, pattern: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None
