"""A real DNS server (NSD) with one zone, for a test: its records can be changed, it can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.controlplane.places import free_ports

NSD = shutil.which("nsd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class DnsServer:
    """The zone `mesh.test`, on a port of 127.0.0.1. `records` are lines of a zone file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"
        self.serial = 0
        self._process: subprocess.Popen | None = None
        (folder / "nsd.conf").write_text(
            f"""
server:
  ip-address: 127.0.0.1
  port: {self.port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: mesh.test
  zonefile: mesh.test.zone
"""
        )

    def write(self, *records: str) -> None:
        """Replaces the records; a running server reads them on SIGHUP."""
        self.serial += 1
        lines = ["$ORIGIN mesh.test.", "$TTL 1", f"@ SOA ns admin {self.serial} 3600 600 86400 1", "@ NS ns", "ns A 127.0.0.1"]
        new = self.folder / "zone.new"
        new.write_text("\n".join([*lines, *records]) + "\n")
        os.rename(new, self.folder / "mesh.test.zone")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        with open(self.folder / "nsd.log", "ab") as log:
            self._process = subprocess.Popen([NSD, "-d", "-c", self.folder / "nsd.conf"], stdout=log, stderr=log)
        give_up = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "nsd.log").read_text()[-2000:]
            assert time.monotonic() < give_up, "NSD does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Asks for the SOA of the zone in the shortest way there is."""
        question = bytes.fromhex("000100000001000000000000") + b"\x04mesh\x04test\x00" + bytes.fromhex("00060001")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            try:
                sock.connect(("127.0.0.1", self.port))
                sock.send(question)
                return len(sock.recv(512)) > len(question)
            except OSError:
                return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None
