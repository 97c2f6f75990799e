"""What being looked at costs proxies: CPU per request with a tap of 100 requests/s over ten of them, and with statistics pushed.

    .venv/bin/python -m bench.observation                 about a minute
    .venv/bin/python -m bench.observation --proxies 1     all of the load on one: what a busy proxy pays

Ten proxies in one process (a worker each) carry the load of ten h2load processes to one backend; the control plane is this
process. Windows with and without are interleaved; a ratio is that of neighbours, and the median of all is what counts. The CPU is
all of the proxies' process. It is told in two parts: of the workers' threads, which moves by several percent with whatever else the
machine does, and of all others (the agent, gRPC), which is nearly all of what being looked at costs, and does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from controlplane.identity import PrivateKey
from controlplane.identity.certificates import pem_of
from controlplane.server import ControlPlane
from controlplane.settings import Settings
from controlplane.spiffe import SpiffeId
from meshcore import Proxy
from meshcore.api import observation_pb2, observation_pb2_grpc, relay_pb2

DOMAIN = "mesh.bench"
GATES_PERCENT = {"tap": 2.0, "statistics": 1.0}


class Proxies:
    """The process under measurement: see proxies.py."""

    def __init__(self, folder: Path, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.observation.proxies", str(folder), str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.ports: list[int] = self.ask("ports")

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Bench:
    """The parts, and one window."""

    def __init__(self, plane: ControlPlane, proxies: Proxies, window_s: float) -> None:
        self.plane, self.proxies, self.window_s = plane, proxies, window_s
        self.rps = 0.0

    async def load(self) -> list[asyncio.subprocess.Process]:
        words = ["--h1", "-c", "4", "-t", "1", "-D", str(int(self.window_s * 1000) // 1000 or 1)]
        return [
            await asyncio.create_subprocess_exec("h2load", *words, f"http://127.0.0.1:{port}/", stdout=asyncio.subprocess.DEVNULL)
            for port in self.proxies.ports
        ]

    async def window_us(self) -> tuple[float, float]:
        """CPU microseconds per request: of the threads that carry it, and of all others."""
        before, began_s = await asyncio.to_thread(self.proxies.ask, "mark"), time.monotonic()
        for one in await self.load():
            await one.wait()
        after = await asyncio.to_thread(self.proxies.ask, "mark")
        requests = after["requests"] - before["requests"]
        self.rps = requests / (time.monotonic() - began_s)
        carrying = after["workers_ns"] - before["workers_ns"]
        return carrying / 1000 / requests, (after["cpu_ns"] - before["cpu_ns"] - carrying) / 1000 / requests

    @contextlib.asynccontextmanager
    async def tap(self, count: int):
        """A tap over all of them, read as meshctl reads it."""
        options = [("grpc.default_authority", "localhost")]
        seen = {"requests": 0, "hidden": 0}
        async with grpc.aio.insecure_channel(f"unix:{self.plane.settings.admin_path}", options=options) as channel:
            target = observation_pb2.Resource(kind="ns", name="bench")
            call = observation_pb2_grpc.ObservationStub(channel).Tap(
                observation_pb2.TapRequest(target=target, ask=relay_pb2.Ask(max_rps=100))
            )
            ready = asyncio.Event()

            async def read() -> None:
                async for told in call:
                    seen["requests"] += sum(one.seen.event.http.WhichOneof("event") == "request_init" for one in told.seen)
                    seen["hidden"] = told.progress.hidden
                    if told.progress.proxies >= count:
                        ready.set()

            reading = asyncio.create_task(read())
            await asyncio.wait_for(ready.wait(), 20)
            try:
                yield seen
            finally:
                call.cancel()
                await asyncio.gather(reading, return_exceptions=True)


def leaves(plane: ControlPlane, folder: Path, count: int) -> None:
    """A certificate for each proxy, as files."""
    (folder / "roots.pem").write_bytes(plane.bundle_pem)
    (folder / "address").write_text(plane.address)
    for number in range(count):
        key = PrivateKey.generate()
        leaf = plane.trust.authority().issue(key.public, SpiffeId.of(DOMAIN, "bench", f"web-{number}"), time.time(), 86_400)
        (folder / f"key-{number}.pem").write_bytes(key.pem())
        (folder / f"chain-{number}.pem").write_bytes(pem_of(leaf.chain))


async def run(rounds: int, count: int, window_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="obs-") as name, contextlib.ExitStack() as closing:
        folder = Path(name)
        backend = closing.enter_context(Proxy({
            "workers": 1, "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": [{"name": "all", "respond": {"status": 200, "body": "x" * 560}}],
        }))  # fmt: skip
        (folder / "backend").write_text("{}:{}".format(*backend.addresses["web"]))
        settings = Settings(data=str(folder / "plane"), trust_domain=DOMAIN, listen="127.0.0.1:0", drain_s=0.5)
        async with ControlPlane(settings) as plane:
            leaves(plane, folder, count)
            proxies = await asyncio.to_thread(Proxies, folder, count)
            closing.callback(proxies.process.kill)
            bench = Bench(plane, proxies, window_s)
            await bench.window_us()
            figures: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {"tap": [], "statistics": []}
            shown: list[dict[str, int]] = []
            rates = []
            for number in range(rounds):
                order = (False, True) if number % 2 else (True, False)
                for what in figures:
                    pair = {}
                    for is_on in order:
                        if what == "statistics":
                            await asyncio.to_thread(proxies.ask, "statistics on" if is_on else "statistics off")
                            pair[is_on] = await bench.window_us()
                            await asyncio.to_thread(proxies.ask, "statistics off")
                        elif is_on:
                            async with bench.tap(count) as seen:
                                pair[is_on] = await bench.window_us()
                            shown.append(seen)
                        else:
                            pair[is_on] = await bench.window_us()
                        rates.append(bench.rps)
                    figures[what].append((pair[False], pair[True]))
                    print(f"{what}: {sum(pair[False]):.2f} -> {sum(pair[True]):.2f} us/request", file=sys.stderr)
    off_us = statistics.median(sum(off) for pairs in figures.values() for off, _ in pairs)
    rate = statistics.median(rates)
    found: dict[str, Any] = {}
    for what, pairs in figures.items():
        whole = [100 * (sum(on) / sum(off) - 1) for off, on in pairs]
        agent_us = statistics.median(on[1] - off[1] for off, on in pairs)
        found[what] = {
            "percent": round(statistics.median(whole), 2),
            "percent_spread": [round(min(whole), 2), round(max(whole), 2)],
            "workers_percent": round(statistics.median(100 * (on[0] / off[0] - 1) for off, on in pairs), 2),
            "agent_percent": round(100 * agent_us / off_us, 2),
            "agent_ms_per_s_and_proxy": round(agent_us * rate / 1000 / count, 2),
            "gate_percent": GATES_PERCENT[what],
        }
    return {
        "proxies": count,
        "requests_per_s": round(rate),
        "off_us": round(off_us, 2),
        **found,
        "shown_per_s": round(sum(one["requests"] for one in shown) / (len(shown) * window_s), 1),
        "hidden": sum(one["hidden"] for one in shown),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--proxies", type=int, default=10)
    parser.add_argument("--window", type=float, default=3.0, help="seconds")
    asked = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed: apt-get install nghttp2-client")
    print(json.dumps(asyncio.run(run(asked.rounds, asked.proxies, asked.window)), indent=2))


if __name__ == "__main__":
    main()
