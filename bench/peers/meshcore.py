"""meshcore itself, started as a user starts it. Variants: routes-N (a table of N routes), admin, and the wires."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import ClassVar

from bench.credentials import BACKEND_NAME, Credentials
from bench.peers.base import Peer, PeerFailed
from bench.shapes import GRPC, H2, H2_H1, MTLS, TCP, TLS, WIRES

ROOT = Path(__file__).parents[2]
CONFIG = """
workers: 1
listeners:
- {{name: web, address: "127.0.0.1:{listen}"{listener}}}
limits: {{max_requests_per_connection: {per_connection}}}
admin: {{address: "unix:{admin}"}}
routes:
{routes}
clusters:
- {{name: backend, endpoints: ["127.0.0.1:{backend}"]{cluster}}}
"""


def _revision() -> str:
    """The commit measured, for a report that outlives it; "" outside a clone."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
    except OSError:
        return ""
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def _listener(wire: str, held: Credentials) -> str:
    """What a wire adds to the listener, in YAML's flow style."""
    if wire == TCP:
        return ", protocol: tcp, tcp_route: all"
    if wire not in (TLS, MTLS):
        return ""
    asks = f", client_ca: {held.ca}" if wire == MTLS else ""
    return f", tls: {{certificates: [{{cert: {held.cert('server')}, key: {held.key('server')}}}]{asks}}}"


def _cluster(wire: str, held: Credentials) -> str:
    if wire in (H2, GRPC):
        return ", protocol: http2"
    if wire != MTLS:
        return ""
    ours = f"cert: {held.cert('client')}, key: {held.key('client')}"
    return f", tls: {{ca: {held.ca}, sni: {BACKEND_NAME}, {ours}}}"


def route_host(number: int) -> str:
    """The host of one route of the large table; every route has a host and a prefix of its own."""
    return f"service-{number}.example"


def route_prefix(number: int) -> str:
    return f"/api/v{number % 7}/collection-{number}"


class Meshcore(Peer):
    name = "meshcore"
    wires = WIRES
    base_command: ClassVar[list[str]] = [sys.executable, "-m", "meshcore"]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        # A unix socket path holds 107 bytes at most, so not in self.directory.
        self.admin = f"/tmp/meshcore-bench-{os.getpid()}-{self.ports.listen}.sock"

    @classmethod
    def use_command(cls, text: str) -> None:
        cls.base_command = shlex.split(text)

    @classmethod
    def environment(cls) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}

    @classmethod
    def unavailable(cls) -> str | None:
        done = subprocess.run(
            [*cls.base_command, "proxy", "--help"], capture_output=True, text=True, env=cls.environment()
        )
        if done.returncode == 0:
            return None
        words = (done.stderr or done.stdout).strip().splitlines()
        return f"{shlex.join(cls.base_command)} proxy --help: {words[-1] if words else 'failed'}"

    @classmethod
    def version(cls) -> str:
        text = (ROOT / "pyproject.toml").read_text()
        return tomllib.loads(text)["project"]["version"] + _revision()

    def command(self) -> list[str]:
        os.environ["PYTHONPATH"] = self.environment()["PYTHONPATH"]
        if not self.variant:
            return [
                *(*self.base_command, "proxy"),
                *("--listen", f"127.0.0.1:{self.ports.listen}"),
                *("--to", f"127.0.0.1:{self.ports.backend}"),
                *("--workers", "1"),
            ]
        path = self.directory / "mesh.yaml"
        path.write_text(
            CONFIG.format(
                listen=self.ports.listen,
                backend=self.ports.backend,
                admin=self.admin,
                listener=_listener(self.variant, self.credentials),
                cluster=_cluster(self.variant, self.credentials),
                # The others are told to keep HTTP/2 connections for the whole run, which is 10000 requests each in no time.
                per_connection=0 if self.variant in (H2, H2_H1, GRPC) else 10_000,
                routes="\n".join(self._routes()),
            )
        )
        return [*self.base_command, "run", "-c", str(path)]

    def _routes(self) -> list[str]:
        if not self.variant.startswith("routes-"):
            return ["- {name: all, to: backend}"]
        return [
            f"- {{name: r{n}, match: {{host: {route_host(n)}, prefix: {route_prefix(n)}}}, to: backend}}"
            for n in range(int(self.variant.removeprefix("routes-")))
        ]

    def start_tap(self, max_rps: float) -> subprocess.Popen[bytes]:
        """A tap at `max_rps` from another process on the load's core; the caller ends it."""
        log = (self.directory / "tap.log").open("wb")
        with log:
            tap = subprocess.Popen(
                [
                    *("taskset", "-c", "0", *self.base_command, "tap"),
                    *("--admin", f"unix:{self.admin}", "--max-rps", str(max_rps)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            code = tap.wait(1.5)
        except subprocess.TimeoutExpired:
            return tap
        words = (self.directory / "tap.log").read_text(errors="replace").strip()
        raise PeerFailed(f"meshcore tap: exit {code}: {words}")
