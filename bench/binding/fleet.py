"""Many whole proxies in one process, each with a connection of its own to a namerd: `python -m bench.binding.fleet COUNT PORT`.

Prints their addresses, and ends with its input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType

from bench.binding.proxies import BoundProxy
from meshcore.binder.namerd_mesh import MeshInterpreter


class Alone(MeshInterpreter):
    """Shares no connection with the others of its process."""

    options = (*MeshInterpreter.options, ("grpc.use_local_subchannel_pool", 1))


class Fleet:
    """Context manager: the addresses of so many proxies, in a few processes."""

    def __init__(self, count: int, port: int, processes: int) -> None:
        shares = [count // processes + (number < count % processes) for number in range(processes)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.binding.fleet", str(share), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for share in shares
            if share
        ]

    def __enter__(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for process in self._processes:
            assert process.stdout is not None
            found += [(host, port) for host, port in json.loads(process.stdout.readline())]
        return found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.communicate()


def serve(count: int, port: int) -> None:
    proxies: list[BoundProxy] = []
    for _ in range(count):
        proxies.append(BoundProxy(lambda: Alone("127.0.0.1", port, "default"), workers=1, beside=proxies[0] if proxies else None))
    print(json.dumps([proxy.address for proxy in proxies]), flush=True)
    sys.stdin.read()
    for proxy in reversed(proxies):
        proxy.stop()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
