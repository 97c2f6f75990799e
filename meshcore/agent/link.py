"""The one connection to the control plane: to the next address when one fails, anew when we have another certificate.

Parts are coroutines that use a channel for as long as it stands: each runs once per connection, and when it ends early it
is run again after a wait of its own. None of them can end another, and none the connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import grpc
import grpc.aio
import msgspec

from .backoff import Backoff
from .dialing import Shown, Unreachable, dial

# Whoever lost its control plane is back within two seconds of its return, and a thousand do not knock at once.
LEAST_WAIT_S, MOST_WAIT_S = 0.05, 1.0
# Of a part that fails while the connection stands: the fault is ours or the server's, and haste mends neither.
LEAST_PART_WAIT_S, MOST_PART_WAIT_S = 0.1, 30.0
SETTLED_S = 5.0  # a part that ran for so long had not failed at once

Part = Callable[[grpc.aio.Channel], Awaitable[None]]
_log = logging.getLogger("meshcore.agent")


class LinkState(msgspec.Struct):
    """What can be seen of it, from any thread."""

    is_connected: bool = False
    address: str = ""
    since_s: float = 0.0
    """Time of day of the last change."""
    connects: int = 0
    failures: int = 0
    last_error: str = ""


class Link:
    """`run` holds it open until it is cancelled. `shown` is asked before each handshake."""

    def __init__(self, addresses: Sequence[str], shown: Callable[[], Shown], parts: dict[str, Part]) -> None:
        self._addresses = list(addresses)
        self._shown = shown
        self._parts = dict(parts)
        self._renew = asyncio.Event()
        self._next = 0
        self.state = LinkState(since_s=time.time())

    def renew(self) -> None:
        """Connect anew: who we are, or whom we trust, has changed."""
        self._renew.set()

    def go_elsewhere(self) -> None:
        """The server at this address is about to leave: begin with the next one."""
        self._next += 1
        self._renew.set()

    async def run(self) -> None:
        backoff = Backoff(LEAST_WAIT_S, MOST_WAIT_S)
        try:
            while True:
                self._renew.clear()
                address = self._addresses[self._next % len(self._addresses)]
                try:
                    channel = await dial(address, self._shown())
                except Unreachable as error:
                    self._failed(error)
                    self._next += 1
                    await asyncio.sleep(backoff.next_s())
                    continue
                self._connected(address)
                began_s = time.monotonic()
                try:
                    await self._serve(channel)
                finally:
                    await channel.close()
                if time.monotonic() - began_s > MOST_WAIT_S:
                    backoff.reset()
                await asyncio.sleep(backoff.next_s())
        finally:
            self._disconnected("")

    async def _serve(self, channel: grpc.aio.Channel) -> None:
        """Run the parts until the connection is gone or should be another."""
        tasks = [asyncio.create_task(self._keep(name, part, channel), name=name) for name, part in self._parts.items()]
        renewed = asyncio.create_task(self._renew.wait())
        gone = asyncio.create_task(_until_gone(channel))
        try:
            done, _ = await asyncio.wait({renewed, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                self._disconnected("the connection was closed")
        finally:
            for task in (*tasks, renewed, gone):
                task.cancel()
            await asyncio.gather(*tasks, renewed, gone, return_exceptions=True)

    async def _keep(self, name: str, part: Part, channel: grpc.aio.Channel) -> None:
        backoff = Backoff(LEAST_PART_WAIT_S, MOST_PART_WAIT_S)
        while True:
            began_s = time.monotonic()
            try:
                await part(channel)
            except grpc.aio.AioRpcError as error:
                _log.info("%s: %s: %s", name, error.code().name, error.details())
            except Exception:
                _log.exception("%s failed; it is begun again", name)
            if time.monotonic() - began_s > SETTLED_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    # --- what is seen ---

    def _connected(self, address: str) -> None:
        self.state.is_connected, self.state.address, self.state.since_s = True, address, time.time()
        self.state.connects += 1
        _log.info("connected to the control plane at %s", address)

    def _disconnected(self, why: str) -> None:
        if self.state.is_connected:
            self.state.is_connected, self.state.since_s = False, time.time()
            if why:
                _log.warning("control plane at %s: %s; serving what is known", self.state.address, why)

    def _failed(self, error: Unreachable) -> None:
        self.state.failures += 1
        self._disconnected("")
        if str(error) != self.state.last_error:  # told once, not each second of an outage
            _log.warning("control plane: %s; trying on", error)
        self.state.last_error = str(error)


async def _until_gone(channel: grpc.aio.Channel) -> None:
    state = channel.get_state()
    while state == grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)
        state = channel.get_state()
