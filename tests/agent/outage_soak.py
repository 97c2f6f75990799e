"""The control plane, or its etcd, killed and restarted in a loop under load: no request fails, no endpoint stays stale. By hand.

    python -m tests.agent.outage_soak --seconds 300
    python -m tests.agent.outage_soak --seconds 300 --kill etcd

Two members of one service, a client's sidecar, a steady load. In each round the control plane is killed with SIGKILL; while it
is away the endpoint of one member is taken out of its store or put back; after its return the time is measured until
the client's sidecar has let go of it. With `--kill etcd` the store is an etcd of one member, which is killed in place of the control
plane: that stays, serves what it knows, and is written to as soon as etcd is back. Exit 0 when nothing failed and every round was within --stale-s.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.agent.conftest import Mesh
from tests.agent.mesh import PATIENCE_S, Steady, until
from tests.controlplane.places import EtcdServer


def endpoints_of(sidecar) -> set[str]:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--stale-s", type=float, default=2.0)
    parser.add_argument("--kill", choices=["control-plane", "etcd"], default="control-plane")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        mesh = Mesh(Path(folder))
        etcd = EtcdServer(Path(folder)) if options.kill == "etcd" else None
        try:
            if etcd is not None:
                etcd.start()
            plane = mesh.plane(etcd=etcd.url if etcd is not None else "")
            plane.service("web")
            for name in ("web-1", "web-2"):
                mesh.served(plane, "web", name)
            client = mesh.sidecar(plane, "client")
            until(lambda: endpoints_of(client) == {"web-1", "web-2"}, "both answer")
            inbound = {one.name: one.inbound for one in mesh.sidecars}
            load = Steady(client, "http://web/")
            stale_s: list[float] = []
            began = time.monotonic()
            while time.monotonic() < began + options.seconds:
                if etcd is not None:
                    etcd.stop(signal.SIGKILL)
                    time.sleep(rng.uniform(0.0, 1.5))
                    etcd.start()
                else:
                    plane.kill()
                    time.sleep(rng.uniform(0.0, 1.5))
                    plane.start()
                leaves = rng.choice(("web-1", "web-2"))
                stays = "web-2" if leaves == "web-1" else "web-1"
                # Before the sidecar can be back: what it hears first is already the new state.
                written(lambda leaves=leaves: plane.gone("web", leaves))
                back = time.monotonic()
                until(lambda stays=stays: endpoints_of(client) == {stays}, f"{leaves} is let go of")
                stale_s.append(time.monotonic() - back)
                written(lambda leaves=leaves: plane.endpoint("web", leaves, inbound[leaves], account="web"))
                until(lambda: endpoints_of(client) == {"web-1", "web-2"}, "both answer again")
            load.stop()
        finally:
            mesh.close()
            if etcd is not None:
                etcd.stop()
    worst = sorted(stale_s)
    seen = {
        "rounds": len(stale_s), "requests": load.requests, "failed": len(load.failures), "failures": load.failures[:5],
        "stale_s": {"p50": round(worst[len(worst) // 2], 3), "max": round(worst[-1], 3)},
    }  # fmt: skip
    print(json.dumps(seen, indent=2))
    return 0 if not load.failures and worst[-1] <= options.stale_s else 1


if __name__ == "__main__":
    sys.exit(main())
