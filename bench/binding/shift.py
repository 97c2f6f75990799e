"""An edit of a table at a namerd, on its way: until a hundred watching proxies know, and until requests go elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import msgspec

from bench.binding.backend import Backend
from bench.binding.client import Client, quantile
from bench.binding.proxies import BoundProxy
from bench.peers.base import free_ports
from meshcore.binder.namerd_mesh import MeshInterpreter

PATIENCE_S = 10.0


class Shift(msgspec.Struct, frozen=True):
    """Milliseconds from the moment the edit was sent."""

    watchers: int
    edits: int
    told_p50_ms: float
    told_p99_ms: float
    told_max_ms: float
    moved_p50_ms: float
    moved_p99_ms: float
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


class Watchers:
    """Context manager: as many connections to the namerd, each with the name followed as a proxy follows it; a process of
    their own, which answers when each of them was told."""

    def __init__(self, count: int, port: int) -> None:
        command = [sys.executable, "-m", "bench.binding.watchers", str(count), str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def wait(self, id: str, since: float) -> list[float]:
        """Seconds until each was told that the name is bound to `id`. The clock is the same in both processes."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([id, since]) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        if None in told:
            raise SystemExit(f"{told.count(None)} watchers were not told of {id}")
        return [at - since for at in told]


def measure(watchers: int = 100, edits: int = 40) -> Shift:
    """One of the watchers is a whole proxy, with requests on their way through it all the time."""
    told: list[float] = []
    moved: list[float] = []
    with Backend("a") as a, Backend("b") as b, Namerd() as namerd, Watchers(watchers - 1, namerd.mesh) as others:
        ids = [f"/$/inet/127.0.0.1/{one.port}" for one in (a, b)]
        namerd.put(f"/svc => {ids[0]}")
        proxy = BoundProxy(lambda: MeshInterpreter("127.0.0.1", namerd.mesh, "default"))
        client = Client(proxy.address)
        client.ask("web")
        others.wait(ids[0], 0.0)
        for edit in range(1, edits + 1):
            expected = b"ab"[edit % 2 : edit % 2 + 1]
            since = time.perf_counter()
            putting = threading.Thread(target=namerd.put, args=(f"/svc => {ids[edit % 2]}",))
            putting.start()
            while client.ask("web")[0] != expected:  # an answer that is not 200 ends the run
                time.sleep(0.001)
                if time.perf_counter() - since > PATIENCE_S:
                    raise SystemExit("the traffic did not move")
            moved.append(time.perf_counter() - since)
            told += others.wait(ids[edit % 2], since)
            putting.join()
        client.close()
        proxy.stop()
    ms = [round(1000 * one, 2) for one in (quantile(told, 0.5), quantile(told, 0.99), max(told), quantile(moved, 0.5), quantile(moved, 0.99))]
    return Shift(watchers, edits, *ms, failed=0)
