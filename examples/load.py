"""A bounded load: so many requests a second, for so many seconds, whatever the answers are.

    python examples/load.py 8080 --rps 200 --seconds 10
    python examples/load.py 4140 --name b.demo          # by way of an HTTP proxy on that port, as a sidecar's outbound is

Requests are sent when they are due, not when the previous answer came, and a latency counts from when its request
was due: a server that stalls cannot hide it. What cannot be sent because too many are open is counted as not sent.
"""

import argparse
import asyncio
import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

OPEN_AT_MOST = 64


@dataclass
class Outcome:
    """What the clients saw. `latencies_ms` holds one value for each answered request."""

    statuses: Counter[int] = field(default_factory=Counter)
    not_answered: int = 0
    not_sent: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.not_answered

    @property
    def good(self) -> int:
        return sum(n for status, n in self.statuses.items() if status < 500)

    def quantile_ms(self, q: float) -> float:
        ranked = sorted(self.latencies_ms)
        return ranked[min(len(ranked) - 1, int(q * len(ranked)))] if ranked else 0.0


class Load:
    """Requests against one port. `run` ends by itself or when `stop` is called; it leaves no connection.

    name: the service that is meant. host: whom to connect to; on 127.0.0.1 it is a proxy, which is asked for the name.
    """

    def __init__(self, port: int, rps: float = 200, seconds: float = 20, seed: int = 1, name: str = "", host: str = "127.0.0.1") -> None:
        self.port, self.rps, self.seconds = port, rps, seconds
        self._host, self._name, self._form = host, name or "shop.test", f"http://{name}" if name and host == "127.0.0.1" else ""
        self.outcome = Outcome()
        self._rng = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> Outcome:
        began, sent = monotonic(), 0
        while not self._stopped.is_set() and (due := began + sent / self.rps) < began + self.seconds:
            if (wait := due - monotonic()) > 0:
                try:
                    await asyncio.wait_for(self._stopped.wait(), wait)
                except TimeoutError:
                    pass
                continue
            sent += 1
            if len(self._open) >= OPEN_AT_MOST:
                self.outcome.not_sent += 1
                continue
            task = asyncio.create_task(self._request(due))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        if self._open:
            await asyncio.wait(self._open, timeout=5)
        for _, writer in self._idle:
            writer.close()
        return self.outcome

    def _next(self) -> bytes:
        """Mostly reads, some orders, now and then a path that no route knows."""
        kind = self._rng.random()
        body, method, path = "", "GET", f"/shop/items/{self._rng.randrange(100)}"
        if kind < 0.02:
            path = "/nowhere"
        elif kind < 0.15:
            body, method, path = '{"item": 1}', "POST", "/shop/orders"
        length = f"content-length: {len(body)}\r\n" if body else ""
        return f"{method} {self._form}{path} HTTP/1.1\r\nhost: {self._name}\r\n{length}\r\n{body}".encode()

    async def _request(self, due: float) -> None:
        writer = None
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self.port)
            writer.write(self._next())
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((int(x.partition(":")[2]) for x in head.split("\r\n") if x.startswith("content-length:")), 0)
            await reader.readexactly(length)
            self.outcome.statuses[int(head.split(" ", 2)[1])] += 1
            self.outcome.latencies_ms.append((monotonic() - due) * 1000)
            if "connection: close" in head:
                writer.close()
            else:
                self._idle.append((reader, writer))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.outcome.not_answered += 1
            if writer is not None:
                writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--rps", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--name", default="", help="The service to ask an HTTP proxy for.")
    parser.add_argument("--host", default="127.0.0.1", help="Whom to connect to.")
    parser.add_argument("--json", action="store_true", help="What came, as one JSON object.")
    options = parser.parse_args()

    async def run() -> Outcome:
        load = Load(options.port, options.rps, options.seconds, name=options.name, host=options.host)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, load.stop)
        return await load.run()

    seen = asyncio.run(run())
    if options.json:
        print(json.dumps({**vars(seen), "statuses": dict(seen.statuses)}))
        return
    print(f"{seen.requests} requests: {dict(seen.statuses)}, {seen.not_answered} without an answer, "
          f"{seen.not_sent} not sent; p50 {seen.quantile_ms(.5):.1f} ms, p99 {seen.quantile_ms(.99):.1f} ms")


if __name__ == "__main__":
    main()
