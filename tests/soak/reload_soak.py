"""A million requests while the configuration changes every second and endpoints come and go: each is accounted for.

    python -m tests.soak.reload_soak --requests 1000000

Three processes: the proxy (this one, so that its memory can be watched), the clients (`visitors`), the endpoints
(`endpoints`). Every reload adds an endpoint on a new port, drops the oldest one, and rewrites the route table. A dropped
endpoint stops listening at once when the reload has returned. At the end every id must have been answered to the client
once, been seen by the endpoints once, and been counted by the proxy once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import shared_memory

from tests.soak import endpoints, visitors
from tests.soak.memory import MemoryUse

LIVE_ENDPOINTS = 4


@dataclass
class Account:
    """What became of the requests."""

    requests: int
    reloads: int
    outcome: visitors.Outcome
    seen_once: int
    seen_never: int
    seen_often: int
    counted: int
    counted_good: int
    retries: int
    memory: MemoryUse
    troubles: list[str] = field(default_factory=list)

    def judge(self) -> None:
        out = self.outcome
        for name, found in (("wrong", out.wrong), ("lost", out.lost), ("refused", out.refused)):
            if found:
                self.troubles.append(f"{name} at the client: {found}")
        if out.answered != self.requests:
            self.troubles.append(f"{out.answered} of {self.requests} answered")
        if self.seen_never or self.seen_often:
            self.troubles.append(f"endpoints: {self.seen_never} requests never seen, {self.seen_often} seen more than once")
        if (self.counted, self.counted_good) != (self.requests, self.requests):
            self.troubles.append(f"proxy: counted {self.counted}, {self.counted_good} of them answered 2xx")
        self.troubles += self.memory.troubles(most_percent=5)

    def __str__(self) -> str:
        out = self.outcome
        return (
            f"{self.requests} requests in {out.seconds:.1f} s ({self.requests / out.seconds:.0f}/s), {self.reloads} reloads: "
            f"{self.requests - out.answered} lost, {self.seen_often} duplicated, {len(out.refused)} refused; "
            f"{self.retries} retries, slowest {out.slowest_ms:.0f} ms, {self.memory}"
        )


def configuration(ports: list[int], version: int, workers: int) -> dict:
    """Routes and endpoints of one version; the listener and the main route never change."""
    passing = [
        {"name": f"v{version}-{n}", "match": {"prefix": f"/other/{n}"}, "respond": {"status": 200}} for n in range(version % 20)
    ]
    return {
        "workers": workers,
        "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
        "routes": [*passing, {"name": "ids", "match": {"prefix": "/id"}, "to": "ids", "request_headers": {"set": {"x-version": str(version)}}}],
        "clusters": [{"name": "ids", "endpoints": [f"127.0.0.1:{port}" for port in ports], "balancer": "least_request"}],
    }


def soak(requests: int, *, reload_every_s: float = 1.0, connections: int = 64, close_every: int = 50, workers: int = 1,
         progress=lambda line: None) -> Account:
    import meshcore

    context = multiprocessing.get_context("spawn")
    counts = shared_memory.SharedMemory(create=True, size=requests)
    ours, theirs = context.Pipe()
    backend = context.Process(target=endpoints.run, args=(theirs, counts.name), daemon=True)
    backend.start()

    def command(*words):
        ours.send(words)
        return ours.recv()

    ports = [command("open") for _ in range(LIVE_ENDPOINTS)]
    proxy = meshcore.Proxy(configuration(ports, 0, workers))
    proxy.start()
    reports, reporting = context.Pipe(duplex=False)
    address = tuple(proxy.addresses["web"][:2])
    client = context.Process(target=visitors.run, args=(reporting, address, requests, connections, close_every), daemon=True)
    client.start()
    reporting.close()
    version, outcome, memory, left_open = 0, None, MemoryUse(), []
    memory.sample()
    next_reload = time.monotonic() + reload_every_s
    try:
        while outcome is None:
            if reports.poll(max(0.0, min(0.5, next_reload - time.monotonic()))):
                report = reports.recv()
                if isinstance(report, visitors.Outcome):
                    outcome = report
                else:
                    progress(f"{report}/{requests} requests, {version} reloads, {memory}")
            if time.monotonic() >= next_reload:
                next_reload += reload_every_s
                version += 1
                ports.append(command("open"))
                retired = ports.pop(0)
                proxy.reload(configuration(ports, version, workers))
                command("close", retired)
                left_open.append(retired)
                memory.sample()
        stats = proxy.stats()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(command("connections", port) for port in left_open):
            time.sleep(0.05)
        lingering = {port: n for port in left_open if (n := command("connections", port))}
    finally:
        proxy.stop()
        ours.send(("stop",))
        client.join(5)
        backend.join(5)
        seen = bytes(counts.buf[:requests])
        counts.close()
        counts.unlink()
    route = stats.route("ids")
    account = Account(
        requests=requests, reloads=version, outcome=outcome, seen_once=seen.count(1), seen_never=seen.count(0),
        seen_often=requests - seen.count(0) - seen.count(1), counted=route.requests, counted_good=route.status_class[2],
        retries=stats.cluster("ids").retries, memory=memory,
    )
    if lingering:
        account.troubles.append(f"connections to removed endpoints stay open: {lingering}")
    account.judge()
    return account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--reload-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    show = sys.stderr.isatty()

    def progress(line: str) -> None:
        print(f"\r{line}    ", end="" if show else "\n", file=sys.stderr, flush=True)

    account = soak(chosen.requests, reload_every_s=chosen.reload_every, connections=chosen.connections, workers=chosen.workers, progress=progress)
    print(f"\n{account}" if show else str(account))
    for trouble in account.troubles:
        print(f"TROUBLE {trouble}")
    return int(bool(account.troubles))


if __name__ == "__main__":
    sys.exit(main())
