"""One contender's process, pinned to one core. Its configuration belongs to the module of its name."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.credentials import Credentials
from bench.load import PROXY_CORE
from bench.shapes import H1, Shape

READY_SECONDS = 15.0


class PeerFailed(RuntimeError):
    """The contender did not come up; the text ends with the last lines it printed."""


@dataclass(frozen=True)
class Ports:
    """Where a contender listens, and where the one backend of a run listens."""

    listen: int
    backend: int


def free_ports(count: int) -> list[int]:
    """Unused ports below the ephemeral range: a client of a churn run must not take one of them.

    Each process begins elsewhere, because a backend's port looks unused between two runs.
    """
    found: list[int] = []
    begin = 12000 + os.getpid() * 97 % 18000
    for port in range(begin, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise PeerFailed(f"no {count} free ports between {begin} and 32000")


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


class Peer:
    """Base of the contenders. `variant` names a configuration of its own, "" the usual one."""

    name: ClassVar[str]
    is_yardstick: ClassVar[bool] = False
    wires: ClassVar[tuple[str, ...]] = (H1,)  # what it can be asked to speak: bench.shapes

    def __init__(self, ports: Ports, directory: Path, variant: str = "") -> None:
        self.ports = ports
        self.variant = variant
        self.credentials = Credentials(directory / "credentials")
        self.directory = directory / f"{self.name}{'-' + variant if variant else ''}-{ports.listen}"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.variant or 'usual'} on {self.ports.listen}>"

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot run on this machine, or None."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        raise NotImplementedError

    @classmethod
    def variant_for(cls, shape: Shape) -> str:
        """The fair configuration for a shape: its wire's, and a peer that needs other buffers there gets them."""
        return "" if shape.wire == H1 else shape.wire

    def command(self) -> list[str]:
        """Writes what it needs into `self.directory` and returns the command line."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, core: int = PROXY_CORE) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        log = (self.directory / "log").open("wb")
        with log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *self.command()],  # execs: the pid is the peer's own
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise PeerFailed(f"{self.name}: exit {self._process.returncode}: {self._last_words()}")
            if accepts(self.ports.listen):
                return
            time.sleep(0.05)
        self.stop()
        raise PeerFailed(f"{self.name}: not listening after {READY_SECONDS} s: {self._last_words()}")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pss_bytes(self) -> int:
        """Its share of resident memory, with pages shared with others counted in part."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) * 1024  # type: ignore[index]

    def _last_words(self) -> str:
        lines = (self.directory / "log").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:]) or "(nothing printed)"


def find_program(name: str) -> str | None:
    """Like `which`, with the places a plain user's PATH leaves out."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def first_match(command: list[str], pattern: str) -> str:
    """The first group of `pattern` in what `command` prints, "?" if it is not there."""
    done = subprocess.run(command, capture_output=True, text=True)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "?"
