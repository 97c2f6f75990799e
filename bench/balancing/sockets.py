"""The story over real sockets: eleven HTTP servers, the proxy, and clients that send by the clock, whatever comes back."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from bench.balancing.story import Outcome, Story, outcome_of
from meshcore import Proxy
from meshcore.config import Cluster, Config, Listener, Route

REQUEST = b"GET / HTTP/1.1\r\nHost: story.test\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
# Answers that are still on their way when the last request has been sent.
PATIENCE_SECONDS = 10.0
# Ten times what the story needs. On a machine that cannot keep up requests then wait here, and that counts as latency.
MOST_CLIENTS = 3000


class Play:
    """One run: its clock, its counts, and the connections of its clients that wait for work."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.chance = random.Random(story.seed)
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.to_slow = 0
        self.latencies: list[float] = []
        self.errors = 0
        self.idle: deque[Client] = deque()
        self.due: deque[float] = deque()

    @property
    def now(self) -> float:
        return self.loop.time() - self.begun

    @property
    def ended(self) -> int:
        return len(self.latencies) + self.errors


class Backend(asyncio.Protocol):
    """A server's side of one connection; one request at a time, as the proxy sends them."""

    def __init__(self, play: Play, number: int) -> None:
        self._play = play
        self._number = number
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        self._received = b""
        play = self._play
        play.to_slow += play.story.is_slow(self._number, play.now)
        wait = play.story.answer_seconds(self._number, play.now, play.chance)
        play.loop.call_later(wait, self._transport.write, ANSWER)


class Client(asyncio.Protocol):
    """A client's side of one connection, kept and used again."""

    def __init__(self, play: Play, due: float) -> None:
        self._play = play
        self._due: float | None = due
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(REQUEST)

    def send(self, due: float) -> None:
        self._due = due
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n") or self._due is None:
            return
        # Counted from when it was due: a stall counts against all it delayed.
        latency, self._due = self._play.now - self._due, None
        if self._received.startswith(b"HTTP/1.1 200 "):
            self._play.latencies.append(latency)
        else:
            self._play.errors += 1
        self._received = b""
        if self._play.due:
            self.send(self._play.due.popleft())
        else:
            self._play.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._due is not None:
            self._play.errors += 1
        elif self in self._play.idle:
            self._play.idle.remove(self)

    def close(self) -> None:
        self._due = None
        self._transport.close()


def configuration(balancer: str, ports: list[int]) -> Config:
    """What anyone would write, but for the balancer."""
    return Config(
        listeners=[Listener(name="story", address="127.0.0.1:0")],
        routes=[Route(name="story", to="backends")],
        clusters=[Cluster(name="backends", balancer=balancer, endpoints=[f"127.0.0.1:{port}" for port in ports])],
    )


def play(story: Story, balancer: str) -> Outcome:
    """Takes as long as the story."""
    return asyncio.run(_play(story, balancer))


async def _play(story: Story, balancer: str) -> Outcome:
    running = Play(story)
    servers = [
        await running.loop.create_server(lambda number=number: Backend(running, number), "127.0.0.1", 0)  # type: ignore[misc]
        for number in range(story.backends)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    async with Proxy(configuration(balancer, ports)) as proxy:
        await _send(running, *proxy.addresses["story"])
    for server in servers:
        server.close()
    unanswered = story.requests - running.ended
    return outcome_of(balancer, running.latencies, running.errors + unanswered, running.to_slow)


async def _send(running: Play, host: str, port: int) -> None:
    """Every request when it is due; then what is still on its way."""
    opening: set[asyncio.Task[object]] = set()
    everyone: list[Client] = []
    running.begun = running.loop.time()
    for number in range(running.story.requests):
        due = number / running.story.rate
        if (early := due - running.now) > 0:
            await asyncio.sleep(early)
        if running.idle:
            running.idle.pop().send(due)
            continue
        if len(everyone) >= MOST_CLIENTS:
            running.due.append(due)
            continue
        client = Client(running, due)
        everyone.append(client)
        task = asyncio.ensure_future(running.loop.create_connection(lambda client=client: client, host, port))  # type: ignore[misc]
        opening.add(task)
        task.add_done_callback(opening.discard)
    last = running.now + PATIENCE_SECONDS
    while running.ended < running.story.requests and running.now < last:
        await asyncio.sleep(0.05)
    await asyncio.gather(*opening, return_exceptions=True)
    for client in everyone:
        client.close()
