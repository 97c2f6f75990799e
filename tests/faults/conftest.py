"""Endpoints as processes of their own, so that they can be killed, stopped and continued."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import shared_memory

import pytest

from tests.soak import endpoints


class EndpointProcess:
    """One endpoint that answers `/id/<n>` with `<n>`."""

    def __init__(self, counts: shared_memory.SharedMemory):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=endpoints.run, args=(theirs, counts.name), daemon=True)
        self._process.start()
        self._pipe.send(("open",))
        self.address = f"127.0.0.1:{self._pipe.recv()}"

    def kill(self) -> None:
        self._process.kill()
        self._process.join(10)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture
def endpoint_process(only_meshcore):
    """`endpoint_process()`: a started EndpointProcess."""
    counts = shared_memory.SharedMemory(create=True, size=16)
    started: list[EndpointProcess] = []

    def start() -> EndpointProcess:
        started.append(EndpointProcess(counts))
        return started[-1]

    yield start
    for process in started:
        process.thaw()
        process.kill()
    counts.close()
    counts.unlink()
