"""Two namerds over one real etcd, killed with -9 one by one and together, while writers count and watchers follow.

    .venv/bin/python -m tests.namerd.outages 60        # each outage lasts a minute

Each write is a compare-and-set from one number to the next, through either replica. In the end: every number was seen by each
watcher once and in order, none that was acknowledged is missing, and both replicas bind by the last table. Two proxies' worth of
interpreters, over HTTP and over gRPC, ask the replica that is killed: they never go back to an older table, and end with the last.
Four whole proxies, two of each replica, are asked for twenty names each all the while: every table sends them elsewhere, no request
fails, and in the end all go where the last table says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from meshcore.binder.namerd_http import HttpInterpreter
from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.namers import Interpreter, has_addresses
from meshcore.naming import Leaf, read_path
from tests.controlplane.places import EtcdServer, free_ports

from .traffic import Backends, Traffic

DTAB = {"Content-Type": "application/dtab"}
HEARTBEAT_S = 1


class Replica:
    """One namerd in a process of its own."""

    def __init__(self, folder: Path, number: int, etcd: str) -> None:
        self.http, self.mesh, self._admin = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http}/api/1"
        self._log = folder / f"namerd-{number}.log"
        self._config = folder / f"namerd-{number}.yaml"
        self._config.write_text(
            f"admin: {{port: {self._admin}}}\n"
            f"storage: {{kind: io.l5d.etcd, endpoints: ['{etcd}'], pathPrefix: /outages}}\n"
            f"interfaces:\n- {{kind: io.l5d.httpController, port: {self.http}}}\n- {{kind: io.l5d.mesh, port: {self.mesh}}}\n"
        )
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", "from controlplane.cli import main; main()", "namerd", "run", "-c", str(self._config)]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text()[-4000:]

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


class Ledger(msgspec.Struct):
    """What was seen."""

    acknowledged: set[int] = msgspec.field(default_factory=set)
    unknown: set[int] = msgspec.field(default_factory=set)
    """Writes whose answer was lost: they may have been done."""
    refused: int = 0
    seen: dict[str, list[int]] = msgspec.field(default_factory=dict)
    resumed: int = 0
    recovered_s: list[float] = msgspec.field(default_factory=list)
    answers: int = 0
    """Times that what a proxy binds by was looked at."""
    requests: int = 0
    connections: int = 0
    in_outages: list[int] = msgspec.field(default_factory=list)
    """Requests that were answered while something was dead."""


class Bound:
    """What a proxy of ours holds of one name, asked of the replica that is killed. It must never go back, and end up to date."""

    def __init__(self, interpreter: Interpreter, ledger: Ledger) -> None:
        self._interpreter = interpreter
        self._live = interpreter.follow(read_path("/svc"))
        self._leave = self._live.subscribe(lambda: None)
        self._ledger = ledger
        self._number: int | None = None

    @property
    def number(self) -> int | None:
        """The number of the table that it binds by; None before any answer. A new one counts from when its addresses are
        there: until then, and where they cannot be learned, a proxy keeps what it has."""
        resolution = self._live.now
        if not isinstance(resolution.tree, Leaf) or not has_addresses(resolution.replicas[resolution.tree.value.id]):
            return self._number
        self._number = int(resolution.tree.value.id.texts[-1])
        return self._number

    async def watch(self) -> None:
        """Looks all the time, as requests would."""
        async with asyncio.timeout(60):
            while self.number is None:
                await asyncio.sleep(0.01)
        last = 0
        while True:
            number = self.number
            assert number is not None and number >= last, f"after table {last} it binds by table {number}"
            last = number
            self._ledger.answers += 1
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._leave()
        await self._interpreter.close()


def number_of(dtab: list[dict[str, str]]) -> int:
    return int(dtab[0]["dst"].rpartition("/")[2])


def table(number: int, backends: Backends) -> str:
    return f"/svc => /$/inet/127.0.0.1/{number} ; {backends.entry(number)}"


async def write(replicas: list[Replica], ledger: Ledger, backends: Backends, stop: asyncio.Event, most: int) -> None:
    """Counts up through either replica, one write at a time."""
    timeout = aiohttp.ClientTimeout(total=8)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while not stop.is_set() and len(ledger.acknowledged) < most:
            replica = random.choice(replicas)
            number = None
            try:
                async with session.get(f"{replica.url}/dtabs/count") as got:
                    if got.status != 200:
                        raise aiohttp.ClientError(f"status {got.status}")
                    number = number_of(await got.json()) + 1
                    etag = got.headers["ETag"]
                body = table(number, backends)
                headers = {**DTAB, "If-Match": etag}
                async with session.put(f"{replica.url}/dtabs/count", data=body, headers=headers) as put:
                    if put.status == 204:
                        assert number not in ledger.acknowledged, f"{number} was acknowledged twice"
                        ledger.acknowledged.add(number)
                    elif put.status == 412:
                        ledger.refused += 1
                    else:
                        ledger.unknown.add(number)
            except (aiohttp.ClientError, TimeoutError, OSError):
                if number is not None:
                    ledger.unknown.add(number)
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.02)


async def follow(name: str, replicas: list[Replica], ledger: Ledger) -> None:
    """Reads every revision, and goes on at the other replica when one is gone."""
    token, seen, index = "", ledger.seen.setdefault(name, []), 0
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=HEARTBEAT_S * 5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            replica = replicas[index % len(replicas)]
            params = {"watch": "true", "heartbeat": str(HEARTBEAT_S), "resume": token}
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.get(f"{replica.url}/dtabs/count", params=params) as answer:
                    if answer.status == 200:
                        async for line in answer.content:
                            if line.strip():
                                event = json.loads(line)
                                token = event["token"]
                                seen.append(number_of(event["dtab"]))
            ledger.resumed += 1
            index += 1
            await asyncio.sleep(0.1)


async def ready(replica: Replica) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.get(f"{replica.url}/dtabs") as answer:
                    if answer.status == 200:
                        return
            assert replica.is_alive, replica.log
            await asyncio.sleep(0.1)


async def recovery(replicas: list[Replica], ledger: Ledger) -> None:
    """Until a write through each replica gets through again."""
    begun = time.monotonic()
    async with asyncio.timeout(60), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as session:
        for replica in replicas:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with session.put(f"{replica.url}/dtabs/probe", data="", headers=DTAB) as answer:
                        if answer.status == 204:
                            break
                await asyncio.sleep(0.05)
    ledger.recovered_s.append(round(time.monotonic() - begun, 2))


async def run(folder: Path, outage_s: float, most: int = 100_000, pace_s: float = 0.005) -> Ledger:
    """All outages once; raises AssertionError at what was lost."""
    etcd = EtcdServer(folder)
    etcd.start()
    replicas = [Replica(folder, number, etcd.url) for number in range(2)]
    ledger, stop, backends, traffic = Ledger(), asyncio.Event(), Backends(), Traffic(pace_s)
    tasks: list[asyncio.Task] = []
    proxies = contextlib.ExitStack()
    try:
        await backends.start()
        for replica in replicas:
            replica.start()
        await asyncio.gather(*map(ready, replicas))
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{replicas[0].url}/dtabs/count", data=table(1, backends), headers=DTAB) as made:
                assert made.status == 204, await made.text()
        await asyncio.to_thread(proxies.enter_context, traffic.through([(one.http, one.mesh) for one in replicas], "count"))
        watchers = [
            asyncio.create_task(follow(name, order, ledger))
            for name, order in (("first", replicas), ("second", replicas[::-1]))
        ]
        bound = [
            Bound(HttpInterpreter("127.0.0.1", replicas[0].http, "count"), ledger),
            Bound(MeshInterpreter("127.0.0.1", replicas[0].mesh, "count"), ledger),
        ]
        watchers += [asyncio.create_task(one.watch()) for one in bound]
        watchers += [asyncio.create_task(client.run()) for client in traffic.clients]
        await traffic.reaches(backends.of(1))
        tasks = [asyncio.create_task(write(replicas, ledger, backends, stop, most)) for _ in range(2)]
        await asyncio.sleep(min(2.0, outage_s))
        for what in ("replica", "etcd", "both"):
            if what in ("replica", "both"):
                replicas[0].stop(signal.SIGKILL)
            if what in ("etcd", "both"):
                etcd.stop(signal.SIGKILL)
            before = traffic.requests
            await asyncio.sleep(outage_s)
            ledger.in_outages.append(traffic.requests - before)
            if what in ("replica", "both"):
                replicas[0].start()  # before etcd: it waits for its store
            if what in ("etcd", "both"):
                await asyncio.to_thread(etcd.start)
            await ready(replicas[0])
            await recovery(replicas, ledger)
            check(watchers)
            await asyncio.sleep(min(2.0, outage_s))
        stop.set()
        await asyncio.gather(*tasks)
        check(watchers)
        await traffic.reaches(backends.of(await judge(replicas, ledger, bound)))
        ledger.requests, ledger.connections = traffic.requests, sum(client.connections for client in traffic.clients)
        check(watchers)
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*(one.close() for one in bound))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(proxies.close)
        await backends.stop()
        for replica in replicas:
            replica.stop(signal.SIGKILL)
        etcd.stop(signal.SIGKILL)
    return ledger


def check(watchers: list[asyncio.Task]) -> None:
    """None of them has seen what must not be."""
    for watcher in watchers:
        assert not watcher.done(), repr(watcher.exception())


async def judge(replicas: list[Replica], ledger: Ledger, bound: list[Bound]) -> int:
    """The number of the last table."""
    async with aiohttp.ClientSession() as session:
        ends = []
        for replica in replicas:
            async with session.get(f"{replica.url}/dtabs/count") as got:
                ends.append(number_of(await got.json()))
            async with session.get(f"{replica.url}/bind/count", params={"path": "/svc"}) as shown:
                told = await shown.json()
                assert told["bound"]["id"] == f"/$/inet/127.0.0.1/{ends[-1]}", f"a stale table is bound: {told}"
    assert ends[0] == ends[1], f"the replicas have different tables: {ends}"
    async with asyncio.timeout(30):  # no proxy is left with an old table
        while any(one.number != ends[0] for one in bound):
            await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        while any(not seen or seen[-1] != ends[0] for seen in ledger.seen.values()):
            await asyncio.sleep(0.05)
    everything = list(range(1, ends[0] + 1))
    for name, seen in ledger.seen.items():
        assert seen == everything, f"the {name} watcher: {_difference(seen, everything)}"
    lost = ledger.acknowledged - set(everything)
    assert not lost, f"acknowledged and lost: {sorted(lost)}"
    strays = set(everything) - ledger.acknowledged - ledger.unknown - {1}
    assert not strays, f"nobody wrote {sorted(strays)}"
    return ends[0]


def _difference(seen: list[int], everything: list[int]) -> str:
    for index, (one, other) in enumerate(zip(seen, everything, strict=False)):
        if one != other:
            return f"saw {seen[max(0, index - 2) : index + 3]} where {everything[max(0, index - 2) : index + 3]} was written"
    return f"saw {len(seen)} of {len(everything)}"


def main() -> None:
    outage_s = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        ledger = asyncio.run(run(Path(folder), outage_s))
    print(f"{len(ledger.acknowledged)} writes acknowledged, {len(ledger.unknown)} of unknown outcome, {ledger.refused} refused")
    print(f"each of {len(ledger.seen)} watchers saw {len(ledger.seen['first'])} revisions in order; {ledger.resumed} resumptions")
    print(f"proxies had a table at each of {ledger.answers} looks, never an older one than before, and the last one in the end")
    print(f"{ledger.requests} requests over {ledger.connections} connections through four proxies, none failed; {ledger.in_outages} of them in the outages")
    print(f"writes through both replicas again after {ledger.recovered_s} s; {time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
