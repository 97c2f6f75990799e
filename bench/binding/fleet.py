"""Many whole proxies in one process, each with a connection of its own to a namerd: `python -m bench.binding.fleet COUNT PORT FIRST PIPE`.

Prints their addresses, writes a proxy's number, from FIRST on, into the pipe when it has told its engine something, answers each line
of its input with when each proxy last heard a tree and had told its engine, and ends with its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import TracebackType

import msgspec

from bench.binding.proxies import BoundProxy
from meshcore.binder.namerd_mesh import MeshInterpreter
from meshcore.binder.watched import Tell
from meshcore.cli.serving import collect_rarely
from meshcore.naming import BindResult, Dtab, Path


class Moved(msgspec.Struct):
    """When one proxy was told the last edit, by time.perf_counter."""

    heard: float = 0.0
    """A tree, from its namerd."""
    bound: float = 0.0
    """All workers were handed what it means."""


class Alone(MeshInterpreter):
    """Shares no connection with the others of its process."""

    options = (*MeshInterpreter.options, ("grpc.use_local_subchannel_pool", 1))

    def __init__(self, host: str, port: int, namespace: str, moved: Moved) -> None:
        super().__init__(host, port, namespace)
        self._moved = moved

    async def watch_tree(self, path: Path, dtab: Dtab, tell: Tell[BindResult]) -> None:
        def noting(found: BindResult) -> None:
            self._moved.heard = time.perf_counter()
            tell(found)

        await super().watch_tree(path, dtab, noting)


class Fleet:
    """Context manager: the addresses of so many proxies, in a few processes."""

    def __init__(self, count: int, port: int, processes: int) -> None:
        shares = [count // processes + (number < count % processes) for number in range(processes)]
        self.told, pipe = os.pipe()
        """Numbers of proxies that have told their engines something, four octets each."""
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.binding.fleet", str(share), str(port), str(sum(shares[:number])), str(pipe)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[pipe],
            )
            for number, share in enumerate(shares)
            if share
        ]  # fmt: skip
        os.close(pipe)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def __enter__(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for process in self._processes:
            assert process.stdout is not None
            found += [(host, port) for host, port in json.loads(process.stdout.readline())]
        return found

    def moved(self) -> list[Moved]:
        """When each proxy was told last, in the order of the addresses."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        found: list[Moved] = []
        for process in self._processes:
            assert process.stdout is not None
            found += msgspec.json.decode(process.stdout.readline(), type=list[Moved])
        return found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.communicate()
        os.close(self.told)


def serve(count: int, port: int, first: int, pipe: int) -> None:
    proxies: list[BoundProxy] = []
    moved = [Moved() for _ in range(count)]
    for number, one in enumerate(moved, first):
        beside = proxies[0] if proxies else None

        def note(one: Moved = one, octets: bytes = number.to_bytes(4, sys.byteorder)) -> None:
            one.bound = time.perf_counter()
            os.write(pipe, octets)

        proxies.append(BoundProxy(lambda one=one: Alone("127.0.0.1", port, "default", one), workers=1, beside=beside, on_bound=note))
    collect_rarely()  # as `meshproxy run` does
    print(json.dumps([proxy.address for proxy in proxies]), flush=True)
    for _ in sys.stdin:
        print(msgspec.json.encode(moved).decode(), flush=True)
    for proxy in reversed(proxies):
        proxy.stop()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
