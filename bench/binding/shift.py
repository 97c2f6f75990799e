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
from bench.binding.usage import OTHERS, Usage
from bench.peers.base import free_ports
from meshcore.binder.watched import LEARNT_S

PATIENCE_S = 10.0
# Loops of one process share gRPC's poller, which wakes all of them for each event: a proxy among twenty-five costs half as much again.
PROCESSES = 10
# After an edit that led to a new name proxies take so long until each has opened its own watch for the addresses.
AFTER_S = LEARNT_S + 0.3
# A disturbed edit is made again, as a disturbed run of the load is: a hundred proxies take all of a small machine, and what others have of
# it is what the figure is longer by. So many edits at most for one that counts; others may have so much of one core.
MOST_EDITS = 3
MOST_OTHERS = 0.2


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
    disturbed: int
    """Of the edits: made while others had a good part of the machine."""
    left_out: int
    """Edits that were disturbed, and made again."""
    requests: int
    failed: int


class Edit(msgspec.Struct, frozen=True):
    """What one edit took, for `--explain`: milliseconds since it was sent, the first and the last of all proxies; CPU of all who took part."""

    to: str
    number: int
    put_ms: float
    """Until the namerd had answered."""
    heard_ms: tuple[float, float]
    bound_ms: tuple[float, float]
    moved_ms: tuple[float, float]
    cpu_ms: dict[str, float]
    """Of all threads until the last had moved."""

    @property
    def is_disturbed(self) -> bool:
        return self.cpu_ms[OTHERS] > MOST_OTHERS * self.moved_ms[1]


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

    @property
    def pid(self) -> int:
        return self._process.pid

    def put(self, dtab: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/api/1/dtabs/default", dtab.encode(), {"content-type": "application/dtab"}, method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).read()


def measure(proxies: int = 100, edits: int = 40, processes: int = PROCESSES) -> tuple[list[Shift], list[Edit]]:
    """Every proxy is asked all the time while an edit is on its way. A request that fails ends the run.

    To two ids in turn, which all have followed since; to addresses that are new to all; to names of a catalogue that are new to all, so
    that every proxy has to learn from the namerd where they are.
    """
    fresh = max(1, edits // 4)
    with Backend("a") as a, Backend("b") as b, Namerd() as namerd:
        ports = (a.port, b.port)
        most = 1 + MOST_EDITS * fresh
        for number in range(most):
            (namerd.catalogue / f"web{number}").write_text(f"127.0.0.1 {ports[number % 2]}\n")
        followed = [f"/$/inet/127.0.0.1/{ports[number % 2]}" for number in range(1 + MOST_EDITS * edits)]
        new = [f"/$/inet/127.0.1.{number + 1}/{ports[number % 2]}" for number in range(most)]
        named = [f"/#/io.l5d.fs/web{number}" for number in range(most)]
        namerd.put(f"/svc => {followed[0]}")
        fleet = Fleet(proxies, namerd.mesh, processes)
        with fleet as addresses:
            usage = Usage({"namerd": [namerd.pid], "proxies": fleet.pids, "servers": [a.pid, b.pid]})
            askers = Askers(addresses, "web", fleet.told)
            askers.until(b"a", PATIENCE_S * 3)
            ways = (("ids in turn", followed, 0.15, edits), ("new addresses", new, 0.15, fresh), ("new names", named, AFTER_S, fresh))
            found: list[Shift] = []
            told: list[Edit] = []
            for to, ids, pause_s, wanted in ways:
                before = askers.requests
                made = [_edited(to, number, ids[number], pause_s, namerd, askers, fleet, usage) for number in range(1 + wanted)][1:]
                while len(made) < MOST_EDITS * wanted and sum(not one.is_disturbed for one, _ in made) < wanted:
                    made.append(_edited(to, len(made) + 1, ids[len(made) + 1], pause_s, namerd, askers, fleet, usage))
                found.append(_shift(to, wanted, made, askers.requests - before))
                told += [one for one, _ in made]
            askers.close()
    return found, told


def _edited(
    to: str, number: int, id: str, pause_s: float, namerd: Namerd, askers: Askers, fleet: Fleet, usage: Usage
) -> tuple[Edit, list[float]]:
    """One edit, and after how many milliseconds each proxy had moved."""
    time.sleep(pause_s)
    answered: list[float] = []

    def put() -> None:
        namerd.put(f"/svc => {id}")
        answered.append(time.perf_counter())

    putting = threading.Thread(target=put)
    before = usage.now()
    since = time.perf_counter()
    putting.start()
    heard = askers.until(b"ab"[number % 2 : number % 2 + 1], PATIENCE_S)
    putting.join()
    cpu_ms = usage.since(before)
    stages = fleet.moved()
    ranges = [_ends(at, since) for at in ([one.heard for one in stages], [one.bound for one in stages], heard)]
    return Edit(to, number, round(1000 * (answered[0] - since), 1), *ranges, cpu_ms), [1000 * (at - since) for at in heard]


def _ends(at: list[float], since: float) -> tuple[float, float]:
    return round(1000 * (min(at) - since), 1), round(1000 * (max(at) - since), 1)


def _shift(to: str, wanted: int, made: list[tuple[Edit, list[float]]], requests: int) -> Shift:
    """Of the edits that nobody disturbed; where there are too few, of the least disturbed as well."""
    kept = sorted(made, key=lambda one: one[0].is_disturbed and one[0].cpu_ms[OTHERS])[:wanted]
    moved = [ms for _, each in kept for ms in each]
    figures = [quantile(moved, 0.5), quantile(moved, 0.99), max(moved), quantile([max(each) for _, each in kept], 0.5)]
    disturbed = sum(edit.is_disturbed for edit, _ in kept)
    left_out = len(made) - len(kept)
    return Shift(to, len(kept[0][1]), len(kept), *(round(one, 2) for one in figures), disturbed, left_out, requests, failed=0)
