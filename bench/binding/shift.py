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
from meshcore.binder.watched import LEARNT_S

PATIENCE_S = 10.0
# Loops of one process share gRPC's poller, which wakes all of them for each event: a proxy among twenty-five costs half as much again.
PROCESSES = 10
# After an edit that led to a new name proxies take so long until each has opened its own watch for the addresses.
AFTER_S = LEARNT_S + 0.3


class Shift(msgspec.Struct, frozen=True):
    """Milliseconds from the moment an edit was sent until requests through a proxy went elsewhere; over all proxies and edits."""

    to: str
    proxies: int
    edits: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    last_p50_ms: float
    """Until the last of all proxies had moved."""
    requests: int
    failed: int


class Namerd:
    """Context manager: `meshctl namerd run`, tables in memory."""

    def __init__(self) -> None:
        self.mesh, self.http, self.admin = free_ports(3)

    def __enter__(self) -> Namerd:
        self._folder = tempfile.TemporaryDirectory()
        self.catalogue = Path(self._folder.name) / "catalogue"
        self.catalogue.mkdir()
        path = Path(self._folder.name) / "namerd.yaml"
        path.write_text(
            f"admin: {{port: {self.admin}}}\n"
            "storage: {kind: io.l5d.inMemory, namespaces: {default: '/srv => /$/inet'}}\n"
            f"namers:\n- {{kind: io.l5d.fs, rootDir: {self.catalogue}}}\n"
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


def measure(proxies: int = 100, edits: int = 40, processes: int = PROCESSES) -> list[Shift]:
    """Every proxy is asked all the time while an edit is on its way. A request that fails ends the run.

    To two ids in turn, which all have followed since; to addresses that are new to all; to names of a catalogue that are new to all, so
    that every proxy has to learn from the namerd where they are.
    """
    fresh = max(1, edits // 4)
    with Backend("a") as a, Backend("b") as b, Namerd() as namerd:
        ports = (a.port, b.port)
        for number in range(fresh + 1):
            (namerd.catalogue / f"web{number}").write_text(f"127.0.0.1 {ports[number % 2]}\n")
        followed = [f"/$/inet/127.0.0.1/{ports[number % 2]}" for number in range(edits + 1)]
        new = [f"/$/inet/127.0.1.{number + 1}/{ports[number % 2]}" for number in range(fresh + 1)]
        named = [f"/#/io.l5d.fs/web{number}" for number in range(fresh + 1)]
        namerd.put(f"/svc => {followed[0]}")
        with Fleet(proxies, namerd.mesh, processes) as addresses:
            askers = Askers(addresses, "web")
            askers.until(b"a", PATIENCE_S * 3)
            ways = (("ids in turn", followed, 0.15), ("new addresses", new, 0.15), ("new names", named, AFTER_S))
            found = [_moved(to, ids, pause_s, namerd, askers, proxies) for to, ids, pause_s in ways]
            askers.close()
    return found


def _moved(to: str, ids: list[str], pause_s: float, namerd: Namerd, askers: Askers, proxies: int) -> Shift:
    """One edit after the other; the first is not counted, as an answer may be the old one's, too."""
    moved: list[float] = []
    last: list[float] = []
    before = askers.requests
    for number, id in enumerate(ids):
        time.sleep(pause_s)
        since = time.perf_counter()
        putting = threading.Thread(target=namerd.put, args=(f"/svc => {id}",))
        putting.start()
        heard = askers.until(b"ab"[number % 2 : number % 2 + 1], PATIENCE_S)
        putting.join()
        if number:
            took = [at - since for at in heard]
            moved += took
            last.append(max(took))
    figures = (quantile(moved, 0.5), quantile(moved, 0.99), max(moved), quantile(last, 0.5))
    ms = [round(1000 * one, 2) for one in figures]
    return Shift(to, proxies, len(last), *ms, requests=askers.requests - before, failed=0)
