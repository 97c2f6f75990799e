"""A server in a process of its own, which answers every request at once: `python -m bench.binding.backend NAME`."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

from meshcore import Proxy
from meshcore.config import Config, Limits, Listener, Respond, Route


class Backend:
    """Context manager: a running server and its port."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.binding.backend", name], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()


def serve(name: str) -> None:
    """Until the input ends, and so with whoever started it. The engine answers: what the servers take, those who are measured lack."""
    proxy = Proxy(
        Config(
            workers=1,
            listeners=[Listener(name="all", address="0.0.0.0:0")],
            routes=[Route(name="answer", respond=Respond(body=name))],
            limits=Limits(max_requests_per_connection=0),
        )
    )
    proxy.start()
    print(proxy.addresses["all"][1], flush=True)
    sys.stdin.read()
    proxy.stop()


if __name__ == "__main__":
    serve(sys.argv[1])
