"""Endpoints that health checks ask in tests, and what a test asks of a proxy that checks. Owns no assertion."""

from __future__ import annotations

import collections
import threading
from concurrent import futures

import grpc

from tests.scenario.servers import RawServer, response

# Often, and patient: a slow machine must not make a server unhealthy that a test has not.
FAST = {"path": "/live", "interval": "10ms", "timeout": "5s"}
FAST_TCP = {"type": "tcp", "interval": "10ms", "timeout": "5s"}
OPTIONS = [("grpc.so_reuseport", 0)]


class Asked:
    """A scripted HTTP server: `/live` is answered with the next of `upcoming`, then with `status`; all else with its name."""

    def __init__(self, raw_server, name: str, status: int = 200):
        self.status = status
        self.upcoming: collections.deque[int] = collections.deque()
        self.server: RawServer = raw_server(self._script)
        self.name = name
        self.address = self.server.address

    def _script(self, connection) -> None:
        while True:
            request = connection.read_request()
            if request.target == b"/live":
                connection.send(response(self.upcoming.popleft() if self.upcoming else self.status))
            else:
                connection.send(response(200, self.name.encode()))

    @property
    def checks(self) -> int:
        return sum(request.target == b"/live" for request in list(self.server.requests))


class HealthServer:
    """A gRPC server with `grpc.health.v1.Health` (or without), on grpcio. `answers`: service -> message, or a status code."""

    def __init__(self, answers: dict[str, bytes | grpc.StatusCode] | None):
        self.answers = answers
        self.authorities: list[str] = []
        self.hanging = threading.Event()
        self.ended = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
        if answers is not None:
            handlers = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
        self.address = "127.0.0.1:%d" % self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _check(self, request: bytes, context) -> bytes:
        service = request[2:].decode()
        answer = self.answers.get(service, grpc.StatusCode.NOT_FOUND)
        if answer == b"hang":
            self.hanging.set()
            context.add_callback(self.ended.set)
            self.ended.wait(30)
            return b""
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, f"no {service!r}\n\x1b[31mhere")
        return answer

    def stop(self) -> None:
        self.ended.set()
        self._server.stop(0).wait(5)


def endpoint(proxy, n: int = 0):
    """Statistics of the n-th endpoint."""
    return proxy.stats().endpoints[n]


def names(client, n: int = 12) -> set[bytes]:
    """Who answers the next requests."""
    return {client.get(f"/{i}").body for i in range(n)}


def health_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "meshcore-health"]
