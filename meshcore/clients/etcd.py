"""A thin etcd v3 client over its JSON gateway: calls and streams, bounded. Knows no entry.

Why not gRPC: the gateway is part of every etcd since 3.4 (`/v3/…`), needs no generated code of a third project, and
its cost, base64 and JSON, is small beside the majority's fsync. Why aiohttp: asyncio's best kept HTTP client; it
streams, and pools connections.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec

from ..errors import MeshError
from .errors import StoreUnavailable

TIMEOUT_S = 5.0  # an election takes about one second; longer silence is an outage
MAX_ANSWER_BYTES = 268_435_456  # a page of a thousand of the largest entries
NOT_FOUND, OUT_OF_RANGE, INVALID_ARGUMENT = 5, 11, 3
UNAVAILABLE = {4, 8, 14}  # deadline exceeded, resource exhausted, unavailable: no leader, or too slow

# A peer that vanished without a word is noticed within half a minute, though a watch may be silent for days.
KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 30_000),
)


class EtcdError(MeshError):
    """etcd understood and refused. `code` is that of gRPC."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"etcd: {message}")


def encoded(data: bytes | str) -> str:
    """Keys and values travel as base64."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def decoded(text: str | None) -> bytes:
    """The same, back; what is empty is left out by the gateway."""
    return base64.b64decode(text) if text else b""


class EtcdClient:
    """Members of one cluster, tried in turn: the one that last answered is asked first."""

    def __init__(
        self,
        members: Sequence[str],
        *,
        tls: ssl.SSLContext | None = None,
        user: str = "",
        password: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not members:
            raise ValueError("no etcd member to ask; expected URLs like http://127.0.0.1:2379")
        self._members = [member.rstrip("/") for member in members]
        self._tls = tls
        self._user, self._password = user, password
        self._token = ""
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes connections possible; opens none yet."""
        connector = aiohttp.TCPConnector(
            limit=128, ssl=self._tls if self._tls is not None else True, socket_factory=watchful_socket
        )
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        await self._log_in()

    async def close(self) -> None:
        """Ends all connections and streams."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, path: str, body: dict[str, Any], *, is_read: bool = False) -> dict[str, Any]:
        """One question, one answer.

        A member that cannot be reached never saw it, so the next one is asked. If the connection broke after that, a
        read is asked again elsewhere; a write may have happened, and StoreUnavailable says so.
        """
        data = msgspec.json.encode(body)
        trouble = ""
        may_be_done = False
        for member in list(self._members):
            try:
                return await self._ask(member, path, data)
            except aiohttp.ClientConnectorError as error:
                trouble = f"{member}: {error}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                trouble = f"{member}: {error or type(error).__name__}"
                may_be_done = True
            except EtcdError as error:
                if error.code == 16 and self._user:  # the token is too old: the next one is fresh
                    await self._log_in()
                if error.code not in UNAVAILABLE and error.code != 16:
                    raise
                trouble = f"{member}: {error}"
                may_be_done = error.code != 16
            if may_be_done and not is_read:
                break
            self._members.append(self._members.pop(0))
        raise StoreUnavailable(f"no etcd member answered; {trouble}", is_unsent=is_read or not may_be_done)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """One question, and results as they come, until the block is left or the connection ends."""
        session = self._open_session()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s)
        member = self._members[0]
        try:
            answer = await session.post(
                member + path, data=msgspec.json.encode(body), timeout=timeout, headers=self._headers()
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._members.append(self._members.pop(0))
            raise StoreUnavailable(f"{member}: {error or type(error).__name__}", is_unsent=True) from None
        try:
            if answer.status != 200:
                raise StoreUnavailable(f"{member}: status {answer.status}", is_unsent=True)
            yield _results(answer)
        finally:
            answer.close()

    async def _ask(self, member: str, path: str, data: bytes) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        session = self._open_session()
        async with session.post(member + path, data=data, timeout=timeout, headers=self._headers()) as answer:
            parts, size = [], 0
            async for part in answer.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise StoreUnavailable(f"{member}: an answer of more than {MAX_ANSWER_BYTES} bytes")
            return _understood(b"".join(parts), answer.status)

    async def _log_in(self) -> None:
        if self._user:
            self._token = ""
            answer = await self.call(
                "/v3/auth/authenticate", {"name": self._user, "password": self._password}, is_read=True
            )
            self._token = answer.get("token", "")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise StoreUnavailable("the store is not open", is_unsent=True)
        return self._session


def watchful_socket(info: Any) -> socket.socket:
    sock = socket.socket(*info[:3])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def _understood(data: bytes, status: int) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(data)
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise StoreUnavailable(f"etcd answered with status {status} and no JSON")
    trouble = answer.get("error")
    if isinstance(trouble, dict):  # an error inside a stream
        raise EtcdError(
            int(trouble.get("grpc_code") or trouble.get("code") or 2), str(trouble.get("message", ""))[:300]
        )
    if status != 200 or trouble:
        raise EtcdError(int(answer.get("code") or 2), str(answer.get("message") or trouble)[:300])
    return answer


async def _results(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The results of a stream: one JSON object a line."""
    buffer = bytearray()
    try:
        async for part in answer.content.iter_any():
            buffer += part
            while (end := buffer.find(b"\n", max(0, len(buffer) - len(part) - 1))) >= 0 or (
                end := buffer.find(b"\n")
            ) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                if line.strip():
                    result = _understood(line, 200).get("result")
                    yield result if isinstance(result, dict) else {}
            if len(buffer) > MAX_ANSWER_BYTES:
                raise StoreUnavailable(f"etcd sent an event of more than {MAX_ANSWER_BYTES} bytes")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StoreUnavailable(f"the stream broke: {error or type(error).__name__}", is_unsent=True) from None
    except EtcdError as error:
        raise StoreUnavailable(str(error), is_unsent=True) from None
