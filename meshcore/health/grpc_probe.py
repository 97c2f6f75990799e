"""One check by grpc.health.v1.Health/Check, through grpcio. The only file here that needs it; counts nothing.

The two messages are a string and an enum, coded here: generated code would register file names of others.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from typing import Any
from urllib.parse import quote

import grpc

from .probes import BAD_ANSWER, TIMEOUT, UNREACHABLE, CheckFailed, connect, encrypt, tls_words, words_of
from .targets import Target

METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1
STATUS_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
# A channel for each check: it tells whether new connections succeed, and an old one's backoff tells nothing.
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16_384),
]


async def ask_grpc(target: Target) -> None:
    """Raises CheckFailed unless the service is SERVING. To be cancelled when its time is over."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(_: Any) -> None:
        # On a thread of grpcio's, perhaps when nobody waits any more.
        try:
            loop.call_soon_threadsafe(lambda: ended.done() or ended.set_result(None))
        except RuntimeError:
            pass  # the loop is closed

    relay = None if target.tls is None else await Relay.open(target)
    uri = _uri(target) if relay is None else relay.uri
    channel = grpc.insecure_channel(uri, options=[*_OPTIONS, ("grpc.default_authority", target.authority)])
    try:
        call = channel.unary_unary(METHOD).future(encode_request(target.check.service), timeout=target.timeout_s)
        call.add_done_callback(tell)
        try:
            await ended
        finally:
            call.cancel()
        if relay is not None and relay.failed is not None:
            raise relay.failed
        _judge(target, call)
    finally:
        channel.close()
        if relay is not None:
            relay.close()


class Relay:
    """Carries one connection of grpcio's into TLS: its own verifies host names alone, no SPIFFE ids. The socket between them
    has a random abstract name, and takes one connection."""

    def __init__(self, target: Target, uri: str) -> None:
        self.uri = uri
        self.failed: CheckFailed | None = None
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_taken = False
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(cls, target: Target) -> Relay:
        name = f"meshcore-check-{secrets.token_hex(16)}"
        relay = cls(target, f"unix-abstract:{name}")
        relay._server = await asyncio.start_unix_server(relay._carry, path=f"\0{name}")
        return relay

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_taken:
            writer.close()
            return
        self._is_taken = True
        out = None
        try:
            there, out = await connect(self._target)
            out.write(self._target.prefix)
            assert self._target.tls is not None
            await encrypt(self._target.tls, out)
            self._tasks = {asyncio.create_task(_copy(reader, out)), asyncio.create_task(_copy(there, writer))}
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        except CheckFailed as failed:
            self.failed = failed
        except ssl.SSLError as error:
            self.failed = CheckFailed(BAD_ANSWER, tls_words(error))
        except OSError as error:
            self.failed = CheckFailed(UNREACHABLE, words_of(error))
        finally:
            for end in (writer, out):
                if end is not None:
                    end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(16_384):
            writer.write(octets)
            await writer.drain()
    except OSError:
        pass  # either end is gone: the call tells


def _judge(target: Target, call: Any) -> None:
    code = call.code()
    if code == grpc.StatusCode.OK:
        status = decode_status(call.result())
        if status != SERVING:
            raise CheckFailed(BAD_ANSWER, f"it says {STATUS_NAMES.get(status, status)}")
        return
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise CheckFailed(TIMEOUT, f"no answer within {target.check.timeout}")
    result = UNREACHABLE if code == grpc.StatusCode.UNAVAILABLE else BAD_ANSWER
    raise CheckFailed(result, f"{code.name}: {call.details()}")


def _uri(target: Target) -> str:
    if isinstance(target.place, str):
        return "unix:" + quote(target.place)
    host, port = target.place
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def encode_request(service: str) -> bytes:
    """HealthCheckRequest: field 1, the service. Empty is the default and left out."""
    raw = service.encode()
    length = b""
    left = len(raw)
    while left > 0x7F:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    return b"\x0a" + length + bytes([left]) + raw if raw else b""


def decode_status(message: bytes) -> int:
    """HealthCheckResponse: field 1, an enum; the last one counts, other fields are skipped. Raises CheckFailed."""
    status = at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            if tag >> 3 == 0:
                raise IndexError
            if tag & 7 == 0:
                value, at = _varint(message, at)
                status = value if tag >> 3 == 1 else status
            elif tag & 7 in (1, 5):
                at += 8 if tag & 7 == 1 else 4
            elif tag & 7 == 2:
                length, at = _varint(message, at)
                at += length
            else:
                raise IndexError
        if at > len(message):
            raise IndexError
    except IndexError:
        raise CheckFailed(BAD_ANSWER, "its answer is no HealthCheckResponse") from None
    return status


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise IndexError
