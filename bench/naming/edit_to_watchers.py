"""How long it takes from an edit of a table until every one of many watchers is told what its name is bound to now.

    .venv/bin/python bench/naming/edit_to_watchers.py [--watchers 100] [--edits 100] [--protocol http|mesh] [--names 100]

One namerd in a process of its own, its watchers in this one; each watcher follows a name of its own over a connection of its own,
as proxies do. Measured from before the PUT is sent until a watcher has taken its answer apart; CPU of namerd per edit besides.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

DTAB = {"Content-Type": "application/dtab"}


class Watcher:
    """One name followed; `seen` is the number of the last table that it was told of, `at_s` when."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen = -1
        self.at_s = 0.0
        self.moved = asyncio.Event()

    def tell(self, number: int) -> None:
        self.seen, self.at_s = number, time.perf_counter()
        self.moved.set()

    async def reaches(self, number: int) -> None:
        while self.seen != number:
            self.moved.clear()
            await self.moved.wait()


async def watch_http(watcher: Watcher, url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.get(f"{url}/bind/default", params={"path": watcher.name, "watch": "true"}) as answer:
            async for line in answer.content:
                watcher.tell(int(json.loads(line)["bound"]["id"].rpartition("/")[2]))


async def watch_mesh(watcher: Watcher, address: str) -> None:
    import grpc

    from meshcore.api import mesh_pb2, mesh_pb2_grpc

    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    async with grpc.aio.insecure_channel(address, options) as channel:
        name = [part.encode() for part in watcher.name.split("/")[1:]]
        request = mesh_pb2.BindReq(root=mesh_pb2.Path(elems=[b"default"]), name=mesh_pb2.Path(elems=name))
        async for answer in mesh_pb2_grpc.InterpreterStub(channel).StreamBoundTree(request):
            watcher.tell(int(answer.tree.leaf.id.elems[-1]))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def table(number: int, entries: int) -> str:
    """As many entries as a real table has; the last one is what changes."""
    fill = " ;\n".join(f"/srv/s{index} => /$/inet/10.0.{index // 256}.{index % 256}/80" for index in range(entries - 1))
    return f"{fill} ;\n/svc => /$/inet/127.0.0.1/{number}" if fill else f"/svc => /$/inet/127.0.0.1/{number}"


async def measure(arguments: argparse.Namespace, http: int, mesh: int, pid: int) -> None:
    url = f"http://127.0.0.1:{http}/api/1"
    async with aiohttp.ClientSession() as session:
        await put(session, url, 1, arguments.entries)
        watchers = [Watcher(f"/svc/s{index % arguments.names}") for index in range(arguments.watchers)]
        begin = watch_http if arguments.protocol == "http" else watch_mesh
        where = url if arguments.protocol == "http" else f"127.0.0.1:{mesh}"
        tasks = [asyncio.create_task(begin(watcher, where)) for watcher in watchers]
        await asyncio.gather(*(watcher.reaches(1) for watcher in watchers))
        waits_ms: list[float] = []
        last_ms: list[float] = []
        spent_s = cpu_s(pid)
        for number in range(2, arguments.edits + 2):
            sent_s = time.perf_counter()
            await asyncio.gather(put(session, url, number, arguments.entries), *(one.reaches(number) for one in watchers))
            told = [(one.at_s - sent_s) * 1000 for one in watchers]
            waits_ms += told
            last_ms.append(max(told))
            await asyncio.sleep(0.01)
        spent_s = cpu_s(pid) - spent_s
        for task in tasks:
            task.cancel()
    waits_ms.sort()
    last_ms.sort()
    print(
        f"{arguments.protocol}: {arguments.edits} edits of a table of {arguments.entries} entries, {arguments.watchers} watchers of "
        f"{arguments.names} names: p50 {at(waits_ms, 0.5):.1f} ms, p99 {at(waits_ms, 0.99):.1f} ms, max {waits_ms[-1]:.1f} ms; "
        f"the last watcher p50 {at(last_ms, 0.5):.1f} ms; namerd {spent_s * 1000 / arguments.edits:.1f} ms CPU an edit"
    )


async def put(session: aiohttp.ClientSession, url: str, number: int, entries: int) -> None:
    async with session.put(f"{url}/dtabs/default", data=table(number, entries), headers=DTAB) as answer:
        assert answer.status == 204, await answer.text()


def at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def ready(http: int) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.get(f"http://127.0.0.1:{http}/api/1/dtabs"):
                    return
            await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--names", type=int, default=100)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--entries", type=int, default=100)
    parser.add_argument("--protocol", choices=["http", "mesh"], default="http")
    arguments = parser.parse_args()
    from tests.controlplane.places import free_ports

    http, mesh, admin = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "namerd.yaml"
        config.write_text(
            f"admin: {{port: {admin}}}\nstorage: {{kind: io.l5d.sqlite, path: {folder}/namerd.db}}\n"
            f"interfaces:\n- {{kind: io.l5d.httpController, port: {http}}}\n- {{kind: io.l5d.mesh, port: {mesh}}}\n"
        )
        command = [sys.executable, "-c", "from controlplane.cli import main; main()", "namerd", "run", "-c", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(ready(http))
            asyncio.run(measure(arguments, http, mesh, process.pid))
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
