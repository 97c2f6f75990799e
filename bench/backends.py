"""The servers behind the proxies where the load instrument is not its own backend: HTTP/2, gRPC, HTTP/1.1."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from bench import grpc_echo
from bench.instruments import instrument
from bench.load import LOAD_CORE
from bench.peers.base import READY_SECONDS, PeerFailed, accepts, find_program
from bench.shapes import GRPC, H2, H2_H1

BODY_BYTES = 560
ROOT = Path(__file__).parents[1]


class Backend:
    """Context manager: a server on the load's core, listening on `port` until the block ends."""

    answer_bytes: ClassVar[int] = BODY_BYTES
    h2load_arguments: ClassVar[tuple[str, ...]] = ()
    path: ClassVar[str] = "/"

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.directory = directory / f"{type(self).__name__}-{port}"

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Backend:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(LOAD_CORE), *self.command()],
                stdin=subprocess.PIPE,  # the load instrument serves until it ends
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if accepts(self.port):
                return self
            time.sleep(0.05)
        self.__exit__(None, None, None)
        words = (self.directory / "log").read_text(errors="replace").strip().splitlines()
        raise PeerFailed(f"{type(self).__name__}: not listening: {' | '.join(words[-5:]) or '(nothing printed)'}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class PlainBackend(Backend):
    """The load instrument without a load: speaks HTTP/1.1 alone."""

    def command(self) -> list[str]:
        return [str(instrument("lgb")), "--proxy-port=0", f"--backend-port={self.port}", "--conns=0", "--idle"]


class H2Backend(Backend):
    """nghttpd, which speaks HTTP/2 alone: more than twice as fast as nginx's HTTP/2."""

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_program("nghttpd") else "nghttpd is not installed (apt-get install nghttp2-server)"

    def command(self) -> list[str]:
        (self.directory / "index.html").write_text("x" * BODY_BYTES)
        return [
            *(find_program("nghttpd") or "nghttpd", "--no-tls", "-n1", "-m", "10000", "-a", "127.0.0.1"),
            *("-d", str(self.directory), str(self.port)),
        ]


class GrpcBackend(Backend):
    """A grpcio server that echoes one message of 64 bytes."""

    answer_bytes = len(grpc_echo.FRAME)
    path = grpc_echo.METHOD

    @property
    def h2load_arguments(self) -> tuple[str, ...]:  # type: ignore[override]
        message = self.directory / "message"
        message.write_bytes(grpc_echo.FRAME)
        return ("-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers")

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.grpc_echo", "serve", str(self.port)]


BACKENDS: dict[str, type[Backend]] = {H2_H1: PlainBackend, H2: H2Backend, GRPC: GrpcBackend}
