"""Members of a service replaced, killed and drained in turn under load: no idempotent request fails. By hand.

    python -m tests.agent.rollout_soak --seconds 60

Three members that register themselves, each a sidecar with its application; a client's sidecar with a steady load of GETs. In turns:

    rollout   each member is replaced by a new one: that registers, then the old one gets SIGTERM
    kill      one member, sidecar and application, is killed with SIGKILL while the control plane still lists it; another takes its place
    drain     one member is drained (as by `meshctl workload drain`), must get no more requests, is ended, and replaced

Ends with 0 when no request failed and nobody that was drained got any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.agent.conftest import Mesh
from tests.agent.mesh import ROOT, Sidecar, Steady, free_port, until

APP = (sys.executable, str(ROOT / "tests/agent/app_program.py"))
MEMBERS = 3
TURNS = ("rollout", "kill", "drain")


class Rollouts:
    """A service under load, and what was done to it so far."""

    def __init__(self, mesh: Mesh, rng: random.Random) -> None:
        self._mesh, self._rng = mesh, rng
        self._plane = mesh.plane()
        self._plane.service("web")
        self._client = mesh.sidecar(self._plane, "client")
        self._names = 0
        self._members = [self._fresh() for _ in range(MEMBERS)]
        until(lambda: self._client.get("http://web/")[0] == 200, "they serve")
        self.done: Counter[str] = Counter()
        self.after_drain = 0
        """Requests that a drained member got."""
        self.load = Steady(self._client, "http://web/", threads=6)

    def _fresh(self) -> Sidecar:
        """One more member, in the control plane's list."""
        self._names += 1
        name, port = f"web-{self._names}", free_port()
        words = ("--register", "web", "--advertise", "127.0.0.1", "--drain", "5s")
        made = self._mesh.sidecar(self._plane, "web", *words, app_port=port, name=name, command=(*APP, str(port), name))
        until(lambda: made.inbound in {one["port"] for one in self._plane.do("endpoints")}, f"{name} is registered")
        return made

    def _end(self, old: Sidecar) -> None:
        old.signal(signal.SIGTERM)
        status = old.wait()
        assert status == 0, f"{old.name} ended with {status}: {old.said()}"

    def turn(self, what: str) -> None:
        getattr(self, f"_{what}")()
        self.done[what] += 1
        self._mesh.sidecars[:] = [self._client, *self._members]

    def _rollout(self) -> None:
        for old in tuple(self._members):
            self._members.append(self._fresh())
            self._members.remove(old)
            self._end(old)

    def _kill(self) -> None:
        victim = self._rng.choice(self._members)
        self._members.remove(victim)
        assert victim.process is not None
        os.killpg(victim.process.pid, signal.SIGKILL)
        victim.process.wait()
        time.sleep(self._rng.uniform(0.0, 1.0))
        self._members.append(self._fresh())

    def _drain(self) -> None:
        leaves = self._rng.choice(self._members)
        self._members.remove(leaves)
        listed = {one["port"]: one["workload"] for one in self._plane.do("endpoints")}
        workload = listed[leaves.inbound]  # as `meshctl workload list` has it
        self._plane.do("put", values=[("drain", {"namespace": "shop", "name": workload})])
        seen = -1

        def is_quiet() -> bool:
            nonlocal seen
            before, seen = seen, self.load.bodies[leaves.name]
            time.sleep(0.2)
            return before == seen == self.load.bodies[leaves.name]

        until(is_quiet, f"{leaves.name} gets no more requests")
        time.sleep(0.5)
        self.after_drain += self.load.bodies[leaves.name] - seen
        self._end(leaves)
        self._plane.do("delete", kind="drain", key=f"shop/{workload}")
        self._members.append(self._fresh())

    def seen(self) -> dict[str, object]:
        return {
            **self.done, "members_used": len(self.load.bodies), "requests": self.load.requests,
            "failed": len(self.load.failures), "failures": self.load.failures[:5], "requests_after_drain": self.after_drain,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rollouts: Rollouts | None = None
    with tempfile.TemporaryDirectory() as folder:
        mesh = Mesh(Path(folder))
        try:
            rollouts = Rollouts(mesh, random.Random(options.seed))
            began = time.monotonic()
            # Each of them at least once, however slow this machine is.
            while time.monotonic() < began + options.seconds or len(rollouts.done) < len(TURNS):
                rollouts.turn(TURNS[rollouts.done.total() % len(TURNS)])
                print(f"[{time.monotonic() - began:4.0f} s] {rollouts.seen()}", file=sys.stderr, flush=True)
        finally:
            if rollouts is not None:
                rollouts.load.stop()
            mesh.close()
    seen = rollouts.seen()
    print(json.dumps(seen, indent=2))
    holds = not rollouts.load.failures and not rollouts.after_drain
    print("holds" if holds else "DOES NOT HOLD", f"after {rollouts.done.total()} turns")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
