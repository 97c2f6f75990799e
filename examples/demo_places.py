"""Where the members of the demo live: each on a machine of its own (network namespaces), else each on ports of its own.

A machine is a process that holds its namespaces: it vanishes with that process, and the process with the demo. Nothing of it
has a name or a file that could be left behind.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MESHPROXY = Path(sys.executable).with_name("meshproxy")
PROXY_UID = 2102  # what it sends is not intercepted: see `meshproxy intercept`
SERVICE_PORT = 8080  # where an application listens on its own machine
SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def die_with_parent() -> None:
    """Runs in the child. Killing the demo, however rudely, must not leave a process behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Port:
    """One member beside others on 127.0.0.1: its application is told of the sidecar as of any HTTP proxy."""

    is_own_machine = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = "127.0.0.1"
        self.app, self.inbound, self.outbound = free_port(), free_port(), free_port()

    @property
    def via(self) -> str:
        return f"127.0.0.1:{self.outbound}"

    def sidecar_words(self) -> list[str]:
        return ["--inbound", f"127.0.0.1:{self.inbound}", "--outbound", self.via, "--app-port", str(self.app)]

    def command(self, *words: str, uid: int | None = None) -> list[str]:
        return list(words)

    async def intercept(self) -> None:
        """Nothing is: the application calls its proxy."""

    def close(self) -> None:
        """Nothing was made."""


class Machine:
    """One member on a machine of its own: its connections are intercepted, its application knows of no proxy."""

    is_own_machine = True

    def __init__(self, name: str, number: int, between: "Between", hosts: Path) -> None:
        self.name = name
        self.address = between.address(number)
        self.app, self.inbound, self.outbound = SERVICE_PORT, 4143, 4140
        # /etc/hosts is this machine's own: where its resolver would ask DNS, ours has the demo's names.
        script = f"mount --bind {hosts} /etc/hosts && exec sleep infinity"
        self._holder = _hold("--net", "--mount", "sh", "-c", script)
        self.run("ip", "link", "set", "lo", "up")
        between.join(self._holder.pid, number)
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", between.address(0))

    @property
    def via(self) -> str:
        return ""

    def sidecar_words(self) -> list[str]:
        return ["--interception", "redirect", "--app-port", str(self.app)]

    def command(self, *words: str, uid: int | None = None) -> list[str]:
        # A tree, or an interpreter, may lie where only root reads.
        able = "--inh-caps=+dac_read_search,+dac_override", "--ambient-caps=+dac_read_search,+dac_override"
        user = [] if uid is None else ["setpriv", "--pdeathsig", "TERM", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *able]
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", *user, *words]

    def run(self, *words: str) -> None:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, env={**os.environ, "PATH": SBIN})
        if done.returncode:
            raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")

    async def intercept(self) -> None:
        await asyncio.to_thread(self.run, str(MESHPROXY), "intercept", "--apply", "--proxy-uid", str(PROXY_UID))

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Between:
    """The network between the machines, and the control plane's place in it."""

    def __init__(self) -> None:
        self._holder = _hold("--net", "sleep", "infinity")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", "bridge", "type", "bridge")
        self.run("ip", "addr", "add", f"{self.address(0)}/24", "dev", "bridge")
        self.run("ip", "link", "set", "bridge", "up")

    @staticmethod
    def address(number: int) -> str:
        return f"10.79.0.{number + 1}"

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--net", *words]

    def run(self, *words: str) -> None:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, env={**os.environ, "PATH": SBIN})
        if done.returncode:
            raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")

    def join(self, pid: int, number: int) -> None:
        self.run("ip", "link", "add", f"m{number}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.run("ip", "link", "set", f"m{number}", "master", "bridge", "up")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


def why_no_machines() -> str:
    """Why each member gets ports instead of a machine; "" when machines can be made."""
    if os.environ.get("DEMO_PLACES") == "ports":
        return "DEMO_PLACES=ports"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for name in ("ip", "unshare", "nsenter", "setpriv", "mount"):
        if shutil.which(name, path=SBIN) is None:
            return f"{name} is not here"
    if shutil.which("nft", path=SBIN) is None and shutil.which("iptables", path=SBIN) is None:
        return "neither nft nor iptables is here"
    try:
        probe = Between()
    except (OSError, subprocess.SubprocessError) as error:
        return f"none can be made here: {error}"
    probe.close()
    return ""


def _hold(*words: str) -> "subprocess.Popen[Any]":
    """A process in namespaces of its own, when they are there."""
    holder = subprocess.Popen(
        ["unshare", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    ours = os.stat("/proc/self/ns/net").st_ino
    for _ in range(200):
        with contextlib.suppress(OSError):
            # `sleep` is the last of what it becomes: all before it is done by then.
            is_there = os.stat(f"/proc/{holder.pid}/ns/net").st_ino != ours
            if is_there and Path(f"/proc/{holder.pid}/comm").read_text().strip() == "sleep":
                return holder
        if holder.poll() is not None:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.wait(0.02)
    holder.kill()
    holder.wait()
    raise OSError("unshare: not permitted")
