"""Many watchers of a namerd in one process: `python -m bench.binding.watchers COUNT PORT`. Answers a line for each line it reads."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.namers.interpreter import Resolution
from meshcore.namers.live import Live
from meshcore.namers.states import has_addresses
from meshcore.naming import read_path

NAME = read_path("/svc/web")
PATIENCE_S = 10.0


class Watcher:
    """One connection, and when it was told what."""

    def __init__(self, port: int) -> None:
        self.interpreter = MeshInterpreter("127.0.0.1", port, "default")
        self.told: list[tuple[float, str]] = []
        self._live: Live[Resolution] = self.interpreter.follow(NAME)
        self._live.subscribe(self._note)

    def _note(self) -> None:
        found = self._live.now
        if found.replicas and all(map(has_addresses, found.replicas.values())):
            self.told.append((time.perf_counter(), " ".join(map(str, found.replicas))))

    def when(self, id: str, since: float) -> float | None:
        return next((at for at, what in self.told if at >= since and id in what), None)


async def serve(count: int, port: int) -> None:
    watchers = [Watcher(port) for _ in range(count)]
    while line := await asyncio.to_thread(sys.stdin.readline):
        id, since = json.loads(line)
        deadline = time.monotonic() + PATIENCE_S
        while None in (told := [one.when(id, since) for one in watchers]) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        print(json.dumps(told), flush=True)
    await asyncio.gather(*(one.interpreter.close() for one in watchers))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
