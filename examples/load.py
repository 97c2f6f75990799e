"""A bounded load: so many requests a second, for so many seconds, whatever the answers are.

    python examples/load.py 8080 --rps 200 --seconds 10

Requests are sent when they are due, not when the previous answer came, and a latency counts from when its request
was due: a server that stalls cannot hide it. What cannot be sent because too many are open is counted as not sent.
"""

import argparse
import asyncio
import random
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
    """Requests against one port of 127.0.0.1. `run` ends by itself or when `stop` is called; it leaves no connection."""

    def __init__(self, port: int, rps: float = 200, seconds: float = 20, seed: int = 1) -> None:
        self.port, self.rps, self.seconds = port, rps, seconds
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
        if kind < 0.02:
            return b"GET /nowhere HTTP/1.1\r\nhost: shop.test\r\n\r\n"
        if kind < 0.15:
            return b"POST /shop/orders HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 11\r\n\r\n{\"item\": 1}"
        return b"GET /shop/items/%d HTTP/1.1\r\nhost: shop.test\r\n\r\n" % self._rng.randrange(100)

    async def _request(self, due: float) -> None:
        writer = None
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(self._next())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").lower()
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
    options = parser.parse_args()

    async def run() -> Outcome:
        return await Load(options.port, options.rps, options.seconds).run()

    seen = asyncio.run(run())
    print(f"{seen.requests} requests: {dict(seen.statuses)}, {seen.not_answered} without an answer, "
          f"{seen.not_sent} not sent; p50 {seen.quantile_ms(.5):.1f} ms, p99 {seen.quantile_ms(.99):.1f} ms")


if __name__ == "__main__":
    main()
