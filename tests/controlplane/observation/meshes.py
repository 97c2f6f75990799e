"""A mesh in one process for tests of taps and statistics: a control plane, members with real proxies, an operator."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from controlplane.model import Workload
from controlplane.server import ControlPlane
from meshcore import Proxy
from meshcore.agent.relay import Relay
from meshcore.agent.statistics import Statistics
from meshcore.api import observation_pb2, observation_pb2_grpc, relay_pb2
from meshcore.api.tap_wire import event_of
from tests.controlplane.members import join, settings


class Mesh:
    """One control plane, and what is attached to it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._stack = contextlib.AsyncExitStack()
        self.members: dict[str, Member] = {}

    async def open(self) -> None:
        options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(f"unix:{self.plane.settings.admin_path}", options=options)
        await self._stack.enter_async_context(channel)
        self.operator = observation_pb2_grpc.ObservationStub(channel)

    async def close(self) -> None:
        for member in list(self.members.values()):
            await member.leave()
        await self._stack.aclose()

    async def register(self, namespace: str, name: str, account: str = "", labels=None, addresses=()) -> None:
        workload = Workload(
            namespace=namespace, name=name, account=account or name, labels=labels or {}, addresses=tuple(addresses)
        )
        position = await self.plane.catalogue.put(workload, by="test")
        assert await self.plane.view.reached(position, 10)

    async def attach(self, proxy: Proxy, namespace: str, name: str, account: str = "", direction: str = "in") -> Member:
        """A member whose proxy this is."""
        joined = await join(self.plane, namespace, account or name)
        member = self.members[name] = Member(proxy, f"{namespace}/{name}", joined.channel(), direction)
        await member.attach()
        return member

    async def attach_again(self, member: Member, namespace: str, account: str) -> Member:
        """The same proxy on a new connection, with what it has not got rid of."""
        member.channel = (await join(self.plane, namespace, account)).channel()
        await member.attach()
        return member

    @contextlib.asynccontextmanager
    async def tapping(self, kind: str, name: str = "", namespace: str = "", *, to=None, origin=None, proxies: int = 1, **ask):
        """A Watched, once as many proxies are asked."""
        request = observation_pb2.TapRequest(
            target=observation_pb2.Resource(kind=kind, name=name, namespace=namespace),
            ask=relay_pb2.Ask(**{"max_rps": 1000, **ask}),
        )
        if to:
            request.to.CopyFrom(observation_pb2.Resource(kind=to[0], name=to[1], namespace=to[2] if len(to) > 2 else ""))
        if origin:
            getattr(request, "from").CopyFrom(observation_pb2.Resource(kind=origin[0], name=origin[1]))
        call = self.operator.Tap(request)
        watched = Watched(call)
        collecting = asyncio.create_task(watched.collect())
        try:
            await watched.until(lambda: watched.progress is not None and watched.progress.proxies >= proxies)
            # The command is on its way: the proxy's session is open once it has read it.
            await asyncio.sleep(0.2)
            yield watched
        finally:
            call.cancel()
            await asyncio.gather(collecting, return_exceptions=True)


class Member:
    """One proxy with its relay and its statistics."""

    def __init__(self, proxy: Proxy, workload: str, channel, direction: str) -> None:
        self.channel = channel
        self.relay = Relay(proxy, workload, "test", lambda route: direction)
        self.statistics = Statistics(proxy, workload, lambda route: direction, lambda cluster: direction == "in")
        self._tasks: list[asyncio.Task] = []

    async def attach(self) -> None:
        self._tasks = [asyncio.create_task(self.relay(self.channel)), asyncio.create_task(self.statistics(self.channel))]

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.channel.close()


class Watched:
    """What an operator sees."""

    def __init__(self, call) -> None:
        self._call = call
        self.events = []
        self.workloads = []
        self.progress = None
        self._changed = asyncio.Event()

    async def collect(self) -> None:
        async for told in self._call:
            for one in told.seen:
                self.events.append(event_of(one.seen))
                self.workloads.append(one.workload)
            self.progress = told.progress
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def until(self, claim, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not claim():
                await self._changed.wait()

    async def first(self, n: int):
        await self.until(lambda: len(self.events) >= n)
        return self.events[:n]

    def paths(self) -> list[str]:
        return [event.path for event in self.events if event.kind == "req"]


@contextlib.asynccontextmanager
async def mesh(**changes) -> AsyncIterator[Mesh]:
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        async with ControlPlane(settings(Path(folder) / "plane", **changes)) as plane:
            made = Mesh(plane)
            await made.open()
            try:
                yield made
            finally:
                await made.close()
