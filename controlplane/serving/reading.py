"""Messages that cannot be read: refused with a status, on every service. Knows no message.

gRPC's server answers them with UNKNOWN and a traceback in the log, which would make the log everybody's to fill.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ..resolve import Malformed
from .answers import refuse

_UNREADABLE = object()


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the methods of all services, of one server or several."""

    def __init__(self) -> None:
        self.refused = 0
        """Calls that ended because what was said in them could not be read, or not be meant."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        words = {
            "request_deserializer": _lenient(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        kinds = {
            (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
            (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
            (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
            (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
        }
        name, made = kinds[handler.request_streaming, handler.response_streaming]
        prepare = _readable if handler.request_streaming else _single
        return made(self._wrapped(getattr(handler, name), prepare), **words)

    def _wrapped(self, method: Callable[[Any, Any], Any], prepare: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        """A method of the same kind: gRPC looks whether it is a coroutine or a generator."""

        async def returning(request: Any, context: Any) -> Any:
            try:
                try:
                    request = prepare(request)
                except Malformed as error:
                    await refuse(context, error)
                return await method(request, context)
            finally:
                self._count(context)

        async def yielding(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                try:
                    request = prepare(request)
                except Malformed as error:
                    await refuse(context, error)
                async for answer in method(request, context):
                    yield answer
            finally:
                self._count(context)

        return yielding if inspect.isasyncgenfunction(method) else returning

    def _count(self, context: Any) -> None:
        self.refused += context.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT.value[0])


def _lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def lenient(octets: bytes) -> Any:
        try:
            return read(octets)
        except DecodeError:
            return _UNREADABLE

    return lenient


def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async def readable() -> AsyncIterator[Any]:
        async for one in requests:
            yield _single(one)

    return readable()


def _single(request: Any) -> Any:
    if request is _UNREADABLE:
        raise Malformed("a message that cannot be read")
    return request
