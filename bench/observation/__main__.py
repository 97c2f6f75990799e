"""What being looked at costs proxies: CPU per request with a tap of 100 requests/s over ten of them, and with statistics pushed.

    .venv/bin/python -m bench.observation                 about four minutes
    .venv/bin/python -m bench.observation --proxies 1     all of the load on one: what a busy proxy pays

Ten proxies in one process (a worker each) carry the load of ten h2load processes to one backend; the control plane is this
process. Under one load that does not stop, short windows with and without follow each other, the order of the two changing; a ratio
is that of neighbours, the median of all is what counts, and the interval beside it is where the true median lies nineteen times in
twenty. Pairs during which others had much of the machine are made again. The CPU is all of the proxies' process. It is told in two
parts: of the workers' threads, which moves by several percent with whatever else the machine does, and of all others (the agent, gRPC),
which is nearly all of what being looked at costs, and does not.
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
from typing import Any, NamedTuple

import grpc

from bench.binding.usage import OTHERS, Usage
from controlplane.identity import PrivateKey
from controlplane.identity.certificates import pem_of
from controlplane.server import ControlPlane
from controlplane.settings import Settings
from controlplane.spiffe import SpiffeId
from meshcore import Proxy
from meshcore.api import observation_pb2, observation_pb2_grpc, relay_pb2

DOMAIN = "mesh.bench"
GATES_PERCENT = {"tap": 2.0, "statistics": 1.0}
WINDOW_S = {"tap": 1.0, "statistics": 2.0}  # of whole seconds: statistics are pushed once in each
SETTLE_S = 1.0  # a tap begins with a second's worth at once
MOST_OTHERS = 0.2  # of a core: a pair with more is made again
MOST_REPEATS = 2  # of all pairs, not of one: a machine that is never quiet is measured as it is
LOAD_S = 600  # longer than any run; it is stopped at the end


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


class Window(NamedTuple):
    """CPU microseconds per request, of the threads that carry it and of all others; and how the machine was."""

    carrying_us: float
    agent_us: float
    requests_per_s: float
    others: float  # cores

    @property
    def us(self) -> float:
        return self.carrying_us + self.agent_us


class Bench:
    """The parts, and one window."""

    def __init__(self, plane: ControlPlane, proxies: Proxies) -> None:
        self.plane, self.proxies = plane, proxies
        self.load: list[subprocess.Popen[bytes]] = []
        self.usage = Usage({})

    def begin(self) -> None:
        words = ["h2load", "--h1", "-c", "4", "-t", "1", "-D", str(LOAD_S)]
        self.load = [
            subprocess.Popen([*words, f"http://127.0.0.1:{port}/"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for port in self.proxies.ports
        ]
        self.usage = Usage({"proxies": [self.proxies.process.pid], "load": [one.pid for one in self.load]})

    def end(self) -> None:
        for one in self.load:
            one.kill()
            one.wait()

    async def window(self, seconds: float) -> Window:
        machine, before = self.usage.now(), await asyncio.to_thread(self.proxies.ask, "mark")
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(self.proxies.ask, "mark")
        took_s = time.monotonic() - began_s
        others = self.usage.since(machine)[OTHERS] / 1000 / took_s
        requests = after["requests"] - before["requests"]
        carrying = after["workers_ns"] - before["workers_ns"]
        agent = after["cpu_ns"] - before["cpu_ns"] - carrying
        return Window(carrying / 1000 / requests, agent / 1000 / requests, requests / took_s, others)

    async def pair(self, what: str, on_first: bool, count: int, shown: list[dict[str, int]]) -> tuple[Window, Window]:
        """Without and with, in one order or the other."""
        windows = {}
        for is_on in (on_first, not on_first):
            if not is_on:
                windows[is_on] = await self.window(WINDOW_S[what])
            elif what == "tap":
                async with self.tap(count) as seen:
                    await asyncio.sleep(SETTLE_S)
                    before = dict(seen)
                    windows[is_on] = await self.window(WINDOW_S[what])
                    shown.append({key: seen[key] - before[key] for key in seen})
            else:
                await asyncio.to_thread(self.proxies.ask, "statistics on")
                windows[is_on] = await self.window(WINDOW_S[what])
                await asyncio.to_thread(self.proxies.ask, "statistics off")
        return windows[False], windows[True]

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


def interval(values: list[float]) -> list[float]:
    """Where the median of what these are a sample of lies, nineteen times in twenty: by ranks, whatever its shape."""
    ordered = sorted(values)
    n = len(ordered)
    below = max(round(n / 2 - 0.98 * n**0.5) - 1, 0)
    return [round(ordered[below], 2), round(ordered[n - 1 - below], 2)]


async def measured(bench: Bench, what: str, rounds: int, count: int, shown: list[dict[str, int]]) -> list[tuple[Window, Window]]:
    """So many pairs that nobody disturbed, or what came when there was no patience left."""
    quiet: list[tuple[Window, Window]] = []
    disturbed: list[tuple[Window, Window]] = []
    while len(quiet) < rounds and len(quiet) + len(disturbed) < rounds * MOST_REPEATS:
        off, on = await bench.pair(what, len(quiet) % 2 == 1, count, shown)
        is_quiet = max(off.others, on.others) <= MOST_OTHERS
        (quiet if is_quiet else disturbed).append((off, on))
        note = "" if is_quiet else f", others had {max(off.others, on.others):.2f} cores: again"
        print(f"{what} {len(quiet)}/{rounds}: {off.us:.2f} -> {on.us:.2f} us/request{note}", file=sys.stderr)
    return quiet + disturbed[: rounds - len(quiet)]


def figures(what: str, pairs: list[tuple[Window, Window]], count: int) -> dict[str, Any]:
    whole = [100 * (on.us / off.us - 1) for off, on in pairs]
    off_us = statistics.median(off.us for off, _ in pairs)
    agent_us = statistics.median(on.agent_us - off.agent_us for off, on in pairs)
    rate = statistics.median(on.requests_per_s for _, on in pairs)
    return {
        "percent": round(statistics.median(whole), 2),
        "percent_interval": interval(whole),
        "percent_spread": [round(min(whole), 2), round(max(whole), 2)],
        "workers_percent": round(statistics.median(100 * (on.carrying_us / off.carrying_us - 1) for off, on in pairs), 2),
        "agent_percent": round(100 * agent_us / off_us, 2),
        "agent_ms_per_s_and_proxy": round(agent_us * rate / 1000 / count, 2),
        "off_us": round(off_us, 2),
        "requests_per_s": round(rate),
        "pairs": len(pairs),
        "disturbed": sum(max(off.others, on.others) > MOST_OTHERS for off, on in pairs),
        "gate_percent": GATES_PERCENT[what],
        "holds": statistics.median(whole) <= GATES_PERCENT[what],
    }


async def run(rounds: int, count: int) -> dict[str, Any]:
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
            bench = Bench(plane, proxies)
            bench.begin()
            closing.callback(bench.end)
            await bench.window(2)
            shown: list[dict[str, int]] = []
            found = {what: figures(what, await measured(bench, what, rounds, count, shown), count) for what in GATES_PERCENT}
    return {
        "proxies": count,
        **found,
        "shown_per_s": round(sum(one["requests"] for one in shown) / (len(shown) * WINDOW_S["tap"]), 1),
        "hidden_per_s": round(sum(one["hidden"] for one in shown) / (len(shown) * WINDOW_S["tap"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=24, help="pairs of windows, of each of the two")
    parser.add_argument("--proxies", type=int, default=10)
    asked = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed: apt-get install nghttp2-client")
    print(json.dumps(asyncio.run(run(asked.rounds, asked.proxies)), indent=2))


if __name__ == "__main__":
    main()
