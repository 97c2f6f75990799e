"""The control plane, or its etcd, killed and restarted in a loop under load: no request fails, no endpoint stays stale. By hand.

    python -m tests.agent.outage_soak --seconds 300
    python -m tests.agent.outage_soak --seconds 300 --kill etcd

Two members of one service, a client's sidecar, a steady load. In each round the control plane is killed with SIGKILL and stays away for
up to --away-s, in every tenth round for --long-s; what it missed meanwhile, the endpoint of one member taken out of its store, is written as
soon as it is back; then the time is measured until the client's sidecar has let go of it. With `--kill etcd` the store is an etcd of one
member, which is killed in place of the control plane: that stays, and serves what it knows. A round in which this process itself stood
still for a second (a machine that is suspended, processes that are stopped) is told as disturbed: timeouts of everybody pass in such a
time, so it is not judged. Ends with 0 when nothing failed and every other round was within --stale-s.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.agent.conftest import Mesh
from tests.agent.mesh import PATIENCE_S, Plane, Sidecar, Steady, until
from tests.controlplane.places import EtcdServer

TELL_S = 15.0  # between two lines of progress


def endpoints_of(sidecar: Sidecar) -> set[str]:
    """Names of the members that the client's sidecar sends requests to, told by which of them answer."""
    return {sidecar.get("http://web/")[1].split(" ")[0] for _ in range(12)}


def written(write: Callable[[], None]) -> None:
    """As soon as the store takes it: the first writes after its return may find connections of before."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return write()
        except AssertionError as error:
            if "StoreUnavailable" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Stillness:
    """For how long this process has stood still so far: sleeps of 0.1 s that took a second more."""

    def __init__(self) -> None:
        self.seconds = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(0.1)
            took_s = time.monotonic() - before
            self.seconds += took_s if took_s > 1.1 else 0.0


class Outages:
    """A mesh under load, and the rounds so far."""

    def __init__(self, mesh: Mesh, plane: Plane, etcd: EtcdServer | None) -> None:
        self._plane, self._etcd = plane, etcd
        plane.service("web")
        for name in ("web-1", "web-2"):
            mesh.served(plane, "web", name)
        self._client = mesh.sidecar(plane, "client")
        until(lambda: endpoints_of(self._client) == {"web-1", "web-2"}, "both answer")
        self._inbound = {one.name: one.inbound for one in mesh.sidecars}
        self.load = Steady(self._client, "http://web/")
        self.stale_s: list[float] = []
        self.disturbed = self.disturbed_failures = 0
        self._stillness = Stillness()

    def one(self, away_s: float, leaves: str) -> None:
        """Away and back, with something that has changed."""
        still_s, failures = self._stillness.seconds, len(self.load.failures)
        try:
            stale_s = self._round(away_s, leaves)
        except (AssertionError, OSError):
            if self._stillness.seconds == still_s:
                raise
            stale_s = 0.0
        time.sleep(0.15)  # the other clock's turn
        if self._stillness.seconds == still_s:
            self.stale_s.append(stale_s)
            return
        self.disturbed += 1
        written(lambda: self._plane.endpoint("web", leaves, self._inbound[leaves], account="web"))
        until(lambda: endpoints_of(self._client) == {"web-1", "web-2"}, "both answer after a time that all stood still")
        self.disturbed_failures += len(self.load.failures) - failures
        del self.load.failures[failures:]

    def _round(self, away_s: float, leaves: str) -> float:
        if self._etcd is not None:
            self._etcd.stop(signal.SIGKILL)
            time.sleep(away_s)
            self._etcd.start()
        else:
            self._plane.kill()
            time.sleep(away_s)
            self._plane.start()
        stays = {"web-1": "web-2", "web-2": "web-1"}[leaves]
        # Before the sidecar can be back: what it hears first is already the new state.
        written(lambda: self._plane.gone("web", leaves))
        back = time.monotonic()
        until(lambda: endpoints_of(self._client) == {stays}, f"{leaves} is let go of")
        stale_s = time.monotonic() - back
        written(lambda: self._plane.endpoint("web", leaves, self._inbound[leaves], account="web"))
        until(lambda: endpoints_of(self._client) == {"web-1", "web-2"}, "both answer again")
        return stale_s

    def seen(self) -> dict[str, object]:
        ordered = sorted(self.stale_s)
        stale = {"p50": round(ordered[len(ordered) // 2], 3), "max": round(ordered[-1], 3)} if ordered else {}
        return {
            "rounds": len(ordered), "disturbed": self.disturbed, "disturbed_failures": self.disturbed_failures,
            "requests": self.load.requests, "failed": len(self.load.failures), "failures": self.load.failures[:5], "stale_s": stale,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--away-s", type=float, default=1.5)
    parser.add_argument("--long-s", type=float, default=6.0)
    parser.add_argument("--stale-s", type=float, default=2.0)
    parser.add_argument("--kill", choices=["control-plane", "etcd"], default="control-plane")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    outages: Outages | None = None
    with tempfile.TemporaryDirectory() as folder:
        mesh = Mesh(Path(folder))
        etcd = EtcdServer(Path(folder)) if options.kill == "etcd" else None
        try:
            if etcd is not None:
                etcd.start()
            outages = Outages(mesh, mesh.plane(etcd=etcd.url if etcd is not None else ""), etcd)
            began = told = time.monotonic()
            while (now := time.monotonic()) < began + options.seconds:
                is_long = (len(outages.stale_s) + outages.disturbed) % 10 == 9
                outages.one(options.long_s if is_long else rng.uniform(0.0, options.away_s), rng.choice(("web-1", "web-2")))
                if now > told + TELL_S:
                    told = now
                    print(f"[{now - began:4.0f} s] {outages.seen()}", file=sys.stderr, flush=True)
        finally:
            if outages is not None:
                outages.load.stop()
            mesh.close()
            if etcd is not None:
                etcd.stop()
    seen = outages.seen()
    print(json.dumps(seen, indent=2))
    holds = not outages.load.failures and max(outages.stale_s, default=options.stale_s + 1) <= options.stale_s
    print("holds" if holds else "DOES NOT HOLD", f"after {len(outages.stale_s)} outages of the {options.kill}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
