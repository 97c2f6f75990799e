"""How long after its request a line of `meshctl tap` can be read: single requests at random moments, through one of ten proxies.

    .venv/bin/python -m bench.observation.tap_delay                    200 requests, half a minute
    .venv/bin/python -m bench.observation.tap_delay --background 200   while so many requests a second pass the others

The line is read from a real `meshctl tap` that runs as a process of its own. The time is from before the request is sent until
its `req` line has been read; from a line's own request, so a slow answer does not count. Exit 1 above the bar.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from controlplane.server import ControlPlane
from controlplane.settings import Settings
from meshcore import Proxy

from .__main__ import DOMAIN, Proxies, leaves

BAR_MS = 100.0
PATIENCE_S = 20.0
_PATH = re.compile(r"^req .* :path=/(\d+)\b")


class Lines:
    """A `meshctl tap` and when it said what."""

    def __init__(self, admin: str) -> None:
        words = ["-c", "from controlplane.cli import main; main()", "--control-plane", f"unix:{admin}", "tap", "ns/bench", "--max-rps", "1000"]
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, bufsize=1)
        self.seen: dict[int, float] = {}
        self.came = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now_s = time.monotonic()
            if match := _PATH.match(line):
                with self.came:
                    self.seen[int(match[1])] = now_s
                    self.came.notify_all()

    def wait(self, number: int, patience_s: float = PATIENCE_S) -> float | None:
        with self.came:
            self.came.wait_for(lambda: number in self.seen, patience_s)
            return self.seen.get(number)


def passing_by(ports: list[int], rate: float, stop: threading.Event) -> None:
    """Other traffic, of which the tap shows lines as well."""
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in ports]
    while not stop.wait(random.expovariate(rate)):
        client = random.choice(clients)
        client.request("GET", "/other")
        client.getresponse().read()


def measure(ports: list[int], lines: Lines, count: int) -> list[float]:
    client = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=10)
    number = 0
    while lines.wait(number, 0.5) is None:  # until every proxy is tapped
        number += 1
        assert number < 100, "no line came"
        client.request("GET", f"/{number}")
        client.getresponse().read()
    found = []
    for number in range(1_000, 1_000 + count):
        time.sleep(random.uniform(0.03, 0.2))
        began_s = time.monotonic()
        client.request("GET", f"/{number}")
        client.getresponse().read()
        seen_s = lines.wait(number)
        assert seen_s is not None, f"request {number} was never seen"
        found.append((seen_s - began_s) * 1_000)
    return found


async def run(count: int, proxies_count: int, background: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tap-") as name:
        folder = Path(name)
        with Proxy({
            "workers": 1, "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": [{"name": "all", "respond": {"status": 200, "body": "x" * 560}}],
        }) as backend:  # fmt: skip
            (folder / "backend").write_text("{}:{}".format(*backend.addresses["web"]))
            async with ControlPlane(Settings(data=str(folder / "plane"), trust_domain=DOMAIN, listen="127.0.0.1:0", drain_s=0.5)) as plane:
                leaves(plane, folder, proxies_count)
                proxies = await asyncio.to_thread(Proxies, folder, proxies_count)
                lines = Lines(plane.settings.admin_path)
                stop = threading.Event()
                other = threading.Thread(target=passing_by, args=(proxies.ports[1:], background, stop))
                if background and len(proxies.ports) > 1:
                    other.start()
                try:
                    delays = sorted(await asyncio.to_thread(measure, proxies.ports, lines, count))
                finally:
                    stop.set()
                    lines.process.kill()
                    lines.process.wait()
                    proxies.process.kill()
                    proxies.process.wait()
    return {
        "requests": count, "proxies": proxies_count, "background_rps": background,
        "delay_ms": {
            "p50": round(statistics.median(delays), 1), "p99": round(delays[int(len(delays) * 0.99)], 1), "max": round(delays[-1], 1),
        },
        "bar_ms": BAR_MS,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--proxies", type=int, default=10)
    parser.add_argument("--background", type=float, default=0.0, help="requests a second beside the ones that are measured")
    asked = parser.parse_args()
    found = asyncio.run(run(asked.requests, asked.proxies, asked.background))
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["delay_ms"]["p99"] <= BAR_MS else 1)


if __name__ == "__main__":
    main()
