"""An edit of a table at a namerd, on its way: until requests through a hundred proxies that watch it go elsewhere."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import msgspec

from bench.binding.askers import Askers
from bench.binding.backend import Backend
from bench.binding.client import quantile
from bench.binding.fleet import Fleet
from bench.peers.base import free_ports

PATIENCE_S = 10.0
# Loops of one process share gRPC's poller, which wakes all of them for each event: a proxy among twenty-five costs half as much again.
PROCESSES = 10


class Shift(msgspec.Struct, frozen=True):
    """Milliseconds from the moment an edit was sent until requests through a proxy went elsewhere; over all proxies and edits."""

    proxies: int
    edits: int
    moved_p50_ms: float
    moved_p99_ms: float
    moved_max_ms: float
    last_p50_ms: float
    """Until the last of all proxies had moved."""
    new_p50_ms: float
    new_max_ms: float
    """Of the first edit: it leads to an id that nobody has followed yet, so every proxy asks for its addresses, too. Not in the above."""
    requests: int
    failed: int


class Namerd:
    """Context manager: `meshctl namerd run`, tables in memory."""

    def __init__(self) -> None:
        self.mesh, self.http, self.admin = free_ports(3)

    def __enter__(self) -> Namerd:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "namerd.yaml"
        path.write_text(
            f"admin: {{port: {self.admin}}}\n"
            "storage: {kind: io.l5d.inMemory, namespaces: {default: '/srv => /$/inet'}}\nnamers: []\n"
            f"interfaces:\n- {{kind: io.l5d.mesh, port: {self.mesh}}}\n- {{kind: io.l5d.httpController, port: {self.http}}}\n"
        )
        command = [sys.executable, "-c", "from controlplane.cli import main; main()", "namerd", "run", "-c", str(path)]
        self._log = (Path(self._folder.name) / "log").open("w+")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + PATIENCE_S * 3
        while True:
            try:
                self.put("/srv => /$/inet")
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._log.seek(0)
                    raise SystemExit(f"namerd did not start:\n{self._log.read()}") from None
                time.sleep(0.1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        self._folder.cleanup()

    def put(self, dtab: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/api/1/dtabs/default", dtab.encode(), {"content-type": "application/dtab"}, method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).read()


def measure(proxies: int = 100, edits: int = 40, processes: int = PROCESSES) -> Shift:
    """Every proxy is asked all the time while an edit is on its way. A request that fails ends the run."""
    moved: list[float] = []
    last: list[float] = []
    new: list[float] = []
    with Backend("a") as a, Backend("b") as b, Namerd() as namerd:
        ids = [f"/$/inet/127.0.0.1/{one.port}" for one in (a, b)]
        namerd.put(f"/svc => {ids[0]}")
        with Fleet(proxies, namerd.mesh, processes) as addresses:
            askers = Askers(addresses, "web")
            askers.until(b"a", PATIENCE_S * 3)
            for edit in range(1, edits + 2):
                time.sleep(0.15)
                since = time.perf_counter()
                putting = threading.Thread(target=namerd.put, args=(f"/svc => {ids[edit % 2]}",))
                putting.start()
                heard = askers.until(b"ab"[edit % 2 : edit % 2 + 1], PATIENCE_S)
                putting.join()
                took = [at - since for at in heard]
                if edit == 1:
                    new = took
                    continue
                moved += took
                last.append(max(took))
            askers.close()
    figures = (quantile(moved, 0.5), quantile(moved, 0.99), max(moved), quantile(last, 0.5), quantile(new, 0.5), max(new))
    ms = [round(1000 * one, 2) for one in figures]
    return Shift(proxies, edits, *ms, requests=askers.requests, failed=0)
