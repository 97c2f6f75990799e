"""A real ZooKeeper of one member, started for a test from Debian's jar."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.controlplane.places import free_ports

JARS = Path("/usr/share/java")
NAMES = ("zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-nop", "netty-all", "metrics-core", "snappy-java")
IS_HERE = shutil.which("java") is not None and (JARS / "zookeeper.jar").exists()


class ZooKeeperServer:
    """Keeps its data through stops and kills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.hosts = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None
        (folder / "zoo.cfg").write_text(
            f"tickTime=200\nminSessionTimeout=400\ndataDir={folder}/data\nclientPort={self.port}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=ruok\n"
        )

    def start(self) -> None:
        path = ":".join(str(JARS / f"{name}.jar") for name in NAMES)
        with open(self.folder / "zookeeper.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    "java",
                    "-Xmx128m",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UseSerialGC",
                    "-cp",
                    path,
                    "org.apache.zookeeper.server.ZooKeeperServerMain",
                    str(self.folder / "zoo.cfg"),
                ],
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + 60
        while not self._is_fine():
            assert self._process.poll() is None, (self.folder / "zookeeper.log").read_text()[-2000:]
            assert time.monotonic() < give_up, "ZooKeeper does not become fine"
            time.sleep(0.1)

    def _is_fine(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"ruok")
                return sock.recv(16) == b"imok"
        except OSError:
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None
