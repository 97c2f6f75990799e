"""Where stores live during a test: a SQLite file, or a real etcd started for it. Starts and stops; checks nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from controlplane.store import SqliteStore, Store
from controlplane.store.etcd import EtcdStore

ETCD = shutil.which("etcd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, and that no connection is given as its own while their server is away."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(first - 10_000) if first > 12_000 else 0
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as one:
            if one.getsockname()[1] not in found:
                found.append(one.getsockname()[1])
    return found


class EtcdServer:
    """One etcd of one member, with its data below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        client, peer = free_ports(2)
        self.url, self._peer = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self.folder / "etcd.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    ETCD,
                    "--data-dir",
                    str(self.folder / "data"),
                    "--log-level",
                    "error",
                    "--listen-client-urls",
                    self.url,
                    "--advertise-client-urls",
                    self.url,
                    "--listen-peer-urls",
                    self._peer,
                    "--initial-advertise-peer-urls",
                    self._peer,
                    "--initial-cluster",
                    f"default={self._peer}",
                    # Short elections: leases of one second are granted as they are asked for.
                    "--heartbeat-interval",
                    "10",
                    "--election-timeout",
                    "100",
                ],
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + 30
        while not self._is_healthy():
            assert self._process.poll() is None, (self.folder / "etcd.log").read_text()[-2000:]
            assert time.monotonic() < give_up, "etcd does not become healthy"
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None


class SqlitePlace:
    """A folder with one store in it."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self) -> Store:
        return SqliteStore(self.folder / "mesh.db")

    def writer_words(self) -> list[str]:
        return ["sqlite", str(self.folder / "mesh.db")]

    def crash(self, writer: subprocess.Popen) -> None:
        writer.kill()
        writer.wait()

    def back_up(self) -> None:
        shutil.copytree(self.folder, self.folder.with_name("backup"))

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name("backup"), self.folder)

    def stop(self) -> None:
        pass


class EtcdPlace:
    """A prefix in an etcd, which may be shared with other tests unless it is to be stopped."""

    kind = "etcd"

    def __init__(self, server: EtcdServer) -> None:
        self.server = server
        self.prefix = "test-" + secrets.token_hex(4)

    def store(self, **options) -> Store:
        return EtcdStore([self.server.url], prefix=self.prefix, **options)

    def writer_words(self) -> list[str]:
        return ["etcd", self.server.url, self.prefix]

    def crash(self, writer: subprocess.Popen) -> None:
        self.server.stop(signal.SIGKILL)
        writer.wait()
        self.server.start()

    def back_up(self) -> None:
        self.server.stop()
        shutil.copytree(self.server.folder, self.server.folder.with_name("backup"))
        self.server.start()

    def restore(self) -> None:
        self.server.stop(signal.SIGKILL)
        shutil.rmtree(self.server.folder / "data")
        shutil.copytree(self.server.folder.with_name("backup") / "data", self.server.folder / "data")
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
