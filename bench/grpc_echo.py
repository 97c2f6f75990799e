"""A gRPC server that echoes, and a client that asks it once: `python -m bench.grpc_echo serve|ask PORT`."""

from __future__ import annotations

import asyncio
import struct
import sys

METHOD = "/bench.Echo/Unary"
MESSAGE = b"m" * 64
FRAME = struct.pack(">BI", 0, len(MESSAGE)) + MESSAGE
ASK_SECONDS = 5.0


async def serve(port: int) -> None:
    import grpc

    async def echo(message: bytes, context: object) -> bytes:
        return message

    server = grpc.aio.server()
    service, method = METHOD[1:].split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def ask(port: int) -> None:
    """Raises unless the message comes back with status OK: so trailers have passed too."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = channel.unary_unary(METHOD)(MESSAGE, timeout=ASK_SECONDS)
    if answer != MESSAGE:
        raise RuntimeError(f"another message came back: {len(answer)} bytes")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        ask(int(sys.argv[2]))
