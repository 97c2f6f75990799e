"""Network namespaces for scenarios: two machines joined by a third, with processes that end with them.

Nobody in a namespace is told of a proxy. What is started here is stopped here, and the namespaces are deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
PROXY_UID = 2102
# Daemons live in sbin; Debian keeps PostgreSQL's server off everybody's PATH.
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
)


# A tree, or an interpreter, may lie where only its owner reads: under /root, in a virtual environment there.
READS_ALL = ("dac_read_search",)


def as_user(uid: int, *capabilities: str) -> list[str]:
    kept = ",".join(f"+{name}" for name in capabilities)
    more = [f"--inh-caps={kept}", f"--ambient-caps={kept}"] if capabilities else []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *more]


def program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


def why_not() -> str:
    """Why namespaces cannot be made here; "" when they can."""
    for name in ("ip", "setpriv"):
        if program(name) is None:
            return f"{name} is not here: apt-get install iproute2 util-linux"
    if os.geteuid() != 0:
        return "network namespaces with interception need root"
    name = f"mc{os.getpid()}probe"
    made = subprocess.run([str(program("ip")), "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run([str(program("ip")), "netns", "del", name], check=False)
    python = [*as_user(PROXY_UID, *READS_ALL), sys.executable, "-c", "import meshcore"]
    read = subprocess.run(python, cwd=ROOT, capture_output=True, check=False)
    return "" if read.returncode == 0 else f"user {PROXY_UID} cannot read {ROOT}: the sidecars run as that user"


class Namespace:
    """One machine, as far as the network knows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> None:
        _ip("-n", self.name, *words)

    def wrapped(self, command: Sequence[str | Path], uid: int | None = None, *capabilities: str) -> list[str]:
        inside = [str(program("ip")), "netns", "exec", self.name]
        if uid is not None:
            inside += as_user(uid, *capabilities)
        return [*inside, *map(str, command)]

    def run(self, *command: str | Path, uid: int | None = None, check: bool = True, timeout_s: float = PATIENCE_S,
            **options: object) -> str:  # fmt: skip
        """The output of a command that ended well."""
        done = subprocess.run(self.wrapped(command, uid), capture_output=True, text=True, timeout=timeout_s, check=False,
                              env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C"}, **options)  # type: ignore[call-overload] # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *command: str | Path, log: Path, uid: int | None = None, capabilities: tuple[str, ...] = (),
              cwd: Path = ROOT) -> subprocess.Popen[bytes]:  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(self.wrapped(command, uid, *capabilities), stdout=output, stderr=output,
                                       stdin=subprocess.DEVNULL, cwd=cwd, start_new_session=True,
                                       env={**os.environ, "PATH": SEARCH_PATH, "PYTHONUNBUFFERED": "1"})  # fmt: skip
        self._processes.append(process)
        return process

    def until_listening(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while f":{port} " not in self.run("ss", "-Hltn") + " ":
            assert process.poll() is None, f"it ended: {log.read_text(errors='replace')}"
            assert time.monotonic() < deadline, f"nobody listens on {port}: {log.read_text(errors='replace')}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in reversed(self._processes):
            _end(process)
        subprocess.run([str(program("ip")), "netns", "del", self.name], check=False)


class Machines:
    """`client` and `server`, joined by a bridge in `between`, where a capture sees all they say to each other."""

    CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
    CLIENT6, SERVER6 = "fd77::1", "fd77::2"

    def __init__(self) -> None:
        self._made: list[Namespace] = []
        self._tag = f"mc{os.getpid()}"
        try:
            self.between = self._make("between")
            self.between.ip("link", "add", "bridge", "type", "bridge")
            self.between.ip("link", "set", "bridge", "up")
            self.client = self._join("client", self.CLIENT, self.CLIENT6)
            self.server = self._join("server", self.SERVER, self.SERVER6)
        except BaseException:
            self.close()
            raise

    def _make(self, role: str) -> Namespace:
        self._made.append(Namespace(f"{self._tag}{role}"))
        return self._made[-1]

    def _join(self, role: str, address: str, address6: str) -> Namespace:
        one = self._make(role)
        _ip("link", "add", role, "netns", self.between.name, "type", "veth", "peer", "name", "eth0", "netns", one.name)
        self.between.ip("link", "set", role, "master", "bridge", "up")
        one.ip("link", "set", "eth0", "up")
        one.ip("addr", "add", f"{address}/24", "dev", "eth0")
        one.ip("addr", "add", f"{address6}/64", "dev", "eth0", "nodad")  # usable at once
        return one

    def close(self) -> None:
        for one in reversed(self._made):
            one.close()


def _ip(*words: str) -> None:
    done = subprocess.run([str(program("ip")), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _end(process: subprocess.Popen[bytes]) -> None:
    # Its session is its own: servers with children end with them.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
