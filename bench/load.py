"""Runs of the load instrument and what they found. Starts no proxy: see bench.peers."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

from bench.instruments import instrument

LOAD_CORE = 0
PROXY_CORE = 1


class LoadFailed(RuntimeError):
    """The load instrument ended without a result."""


@dataclass(frozen=True)
class Stream:
    """Latency and count of one kind of request inside the measured window."""

    requests: int
    rps: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


@dataclass(frozen=True)
class Load:
    """One run: `foreign_share` is the part of all cores that neither side of the run used."""

    seconds: float
    requests: int
    total_requests: int
    main: Stream
    background: Stream | None
    cpu_us_per_request: float
    own_us_per_request: float
    proxy_utilisation: float
    foreign_share: float
    steal_share: float
    reconnects: int
    errors: int
    first_error: str

    @property
    def is_disturbed(self) -> bool:
        """Whether something else took so much of the machine that the figure says little.

        10 % of one core: a compiler beside the run takes 50 % and more, an idle machine 1-2 %.
        """
        return self.foreign_share * (os.cpu_count() or 1) > 0.10 or self.steal_share > 0.02


def load_command(arguments: list[str], *, core: int = LOAD_CORE) -> list[str]:
    """The command line of the instrument, pinned to `core`."""
    return ["taskset", "-c", str(core), str(instrument("lgb")), *arguments]


def run_load(
    proxy_port: int,
    backend_port: int,
    arguments: list[str],
    *,
    seconds: float,
    warmup_seconds: float = 0.2,
    watched_pids: list[int] | None = None,
) -> Load:
    """One run against `proxy_port`, the backend on `backend_port` (0: somebody else's backend)."""
    command = load_command(
        [
            f"--proxy-port={proxy_port}",
            f"--backend-port={backend_port}",
            f"--seconds={seconds}",
            f"--warmup={warmup_seconds}",
            *(f"--watch={pid}" for pid in watched_pids or []),
            *arguments,
        ]
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + warmup_seconds + 60)
    if done.returncode or not done.stdout.strip():
        raise LoadFailed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return _load_of(json.loads(done.stdout))


def _load_of(found: dict[str, Any]) -> Load:
    seconds = found["seconds"] or 1e-9
    used_seconds = (found["cpu_ns"] + found["own_cpu_ns"]) / 1e9
    cores = os.cpu_count() or 1
    return Load(
        seconds=seconds,
        requests=found["requests"],
        total_requests=found["total_requests"],
        main=Stream(**found["main"]),
        background=Stream(**found["background"]) if "background" in found else None,
        cpu_us_per_request=found["cpu_us_per_request"],
        own_us_per_request=found["own_us_per_request"],
        proxy_utilisation=found["cpu_ns"] / 1e9 / seconds,
        foreign_share=max(0.0, found["busy_seconds"] - used_seconds) / seconds / cores,
        steal_share=found["steal_seconds"] / seconds / cores,
        reconnects=found["reconnects"],
        errors=found["errors"],
        first_error=found["first_error"],
    )


class IdleConnections:
    """Context manager: `conns` keep-alive connections, one request made on each, held open."""

    def __init__(self, proxy_port: int, backend_port: int, conns: int, arguments: list[str] | None = None) -> None:
        self._command = load_command(
            [
                f"--proxy-port={proxy_port}",
                f"--backend-port={backend_port}",
                f"--conns={conns}",
                "--idle",
                "--touch",
                *(arguments or []),
            ]
        )
        self.ready = 0

    def __enter__(self) -> IdleConnections:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed("the load instrument could not hold idle connections")
        self.ready = json.loads(line)["ready"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)
