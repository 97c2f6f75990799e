"""A real gRPC client and server (grpcio) for tests of calls through the proxy. Messages are plain bytes; owns no assertion.

The server's service is `test.Echo`; what a method does is in its name.
"""

from __future__ import annotations

import threading
from concurrent import futures

import grpc

SERVICE = "test.Echo"
# Windows and frames of megabytes are grpcio's own affair; its limit on messages would only hide the proxy's.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0),
           ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


class EchoServer:
    """Serves on `address`; `seen` has the metadata of every call, `cancelled` is set when a client gave up."""

    def __init__(self, address: str = "127.0.0.1:0"):
        self.seen: list[dict[str, str]] = []
        self.cancelled = threading.Event()
        self.started = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=OPTIONS)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
            "Server": grpc.unary_stream_rpc_method_handler(self._server_stream),
            "Client": grpc.stream_unary_rpc_method_handler(self._client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(self._both),
            "FailLate": grpc.unary_stream_rpc_method_handler(self._fail_late),
        }),))
        port = self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait(5)

    def _note(self, context) -> None:
        self.seen.append(dict(context.invocation_metadata()))
        context.add_callback(lambda: self.cancelled.set() if not context.code() else None)

    def _unary(self, request: bytes, context) -> bytes:
        self._note(context)
        context.send_initial_metadata((("x-initial", "first"), ("x-bytes-bin", b"\0\xff\x80")))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-more-bin", b"\xfe\0")))
        return request

    def _fail(self, request: bytes, context) -> bytes:
        self._note(context)
        context.set_trailing_metadata((("x-trailing", "of the failure"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: caf\u00e9 100%")

    def _hang(self, request: bytes, context) -> bytes:
        self._note(context)
        ended = threading.Event()
        context.add_callback(lambda: (self.cancelled.set(), ended.set()))
        self.started.set()
        ended.wait(30)
        return b"too late"

    def _server_stream(self, request: bytes, context):
        self._note(context)
        for n in range(int(request)):
            yield b"%d" % n

    def _client_stream(self, requests, context) -> bytes:
        self._note(context)
        return b"+".join(requests)

    def _both(self, requests, context):
        self._note(context)
        for request in requests:
            yield b"echo " + request

    def _fail_late(self, request: bytes, context):
        self._note(context)
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "after two")


class EchoClient:
    """The methods of `EchoServer` as callables."""

    def __init__(self, address: tuple[str, int]):
        self.channel = grpc.insecure_channel("%s:%d" % address, options=[*OPTIONS, ("grpc.default_authority", "a.test")])
        path = f"/{SERVICE}/"
        self.unary = self.channel.unary_unary(path + "Unary")
        self.fail = self.channel.unary_unary(path + "Fail")
        self.hang = self.channel.unary_unary(path + "Hang")
        self.server = self.channel.unary_stream(path + "Server")
        self.client = self.channel.stream_unary(path + "Client")
        self.both = self.channel.stream_stream(path + "Both")
        self.fail_late = self.channel.unary_stream(path + "FailLate")
        self.unknown = self.channel.unary_unary(path + "Unknown")

    def close(self) -> None:
        self.channel.close()


def failure(call) -> grpc.RpcError:
    """The error a call must end in."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")
