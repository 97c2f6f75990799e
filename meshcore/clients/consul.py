"""A thin Consul client: answers with their index, blocking queries, values under compare-and-set. Knows no service.

Why not a package: what there is in Python is dead or quiet, and this is three calls. Source: Consul's documentation of
its HTTP API, blocking queries: an index that goes backwards begins again, and a wait is spread by the server.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from typing import Any, Self

import aiohttp
import msgspec

from ..errors import MeshError
from .errors import StoreUnavailable

WAIT_S = 300
"""How long a blocking query may take to say that nothing changed; Consul itself allows ten minutes."""
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 67_108_864
CONSISTENCY = ("default", "stale", "consistent")


class ConsulError(MeshError):
    """Consul understood and refused: no token, a bad request."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"Consul: status {status}: {message[:300]}")


class Answer(msgspec.Struct, frozen=True):
    """What Consul said, and the index at which it said it. `value` is None for 404."""

    value: Any
    index: int


class Pair(msgspec.Struct, frozen=True):
    """One key of the store."""

    key: str
    value: bytes
    index: int
    """ModifyIndex: to be expected by who writes it back."""


class ConsulClient:
    """One agent."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8500",
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        consistency: str = "default",
    ) -> None:
        if consistency not in CONSISTENCY:
            raise ValueError(f"got consistency {consistency!r}; expected one of {', '.join(CONSISTENCY)}")
        self.url = url.rstrip("/")
        self._headers = {"X-Consul-Token": token} if token else {}
        self._tls = tls
        self._consistency = {} if consistency == "default" else {consistency: ""}
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Each watch holds a connection for as long as it waits.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, path: str, params: dict[str, str] | None = None, index: int = 0) -> Answer:
        """The answer now; with an index, when there is one that is newer, or after a long wait."""
        wanted = {**self._consistency, **(params or {})}
        timeout_s = TIMEOUT_S
        if index:
            wanted |= {"index": str(index), "wait": f"{WAIT_S}s"}
            timeout_s += WAIT_S * (1 + 1 / 16)  # the server adds up to a sixteenth
        status, headers, data = await self._ask("GET", path, wanted, None, timeout_s)
        found = headers.get("X-Consul-Index", "0")
        told = int(found) if found.isdigit() else 0
        if status == 404:
            return Answer(None, told)
        return Answer(_decoded(data), told)

    async def send(self, method: str, path: str, params: dict[str, str] | None = None, data: bytes = b"") -> Any:
        """A write. Whether it was done is not known when the connection broke."""
        _, _, answer = await self._ask(method, path, params or {}, data, TIMEOUT_S)
        return _decoded(answer)

    async def pairs(self, prefix: str, index: int = 0, params: dict[str, str] | None = None) -> tuple[list[Pair], int]:
        """All keys below a prefix, and the index to wait behind."""
        answer = await self.get(f"/v1/kv/{prefix}", {"recurse": "", **(params or {})}, index)
        items = answer.value if isinstance(answer.value, list) else []
        return [
            Pair(item["Key"], base64.b64decode(item.get("Value") or ""), int(item["ModifyIndex"])) for item in items
        ], answer.index

    async def transact(self, operations: Sequence[dict[str, Any]], params: dict[str, str] | None = None) -> list[Any] | None:
        """All operations of /v1/txn or none: their results, or None when a condition does not hold."""
        status, _, data = await self._ask("PUT", "/v1/txn", params or {}, msgspec.json.encode(list(operations)), TIMEOUT_S, (409,))
        if status == 409:
            return None
        results = _decoded(data).get("Results") or []
        return list(results)

    async def _ask(
        self, method: str, path: str, params: dict[str, str], data: bytes | None, timeout_s: float, allowed: tuple[int, ...] = ()
    ) -> tuple[int, Any, bytes]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=TIMEOUT_S)
        try:
            async with self._open().request(method, self.url + path, params=params, data=data, timeout=timeout) as answer:
                body = await answer.content.read(MAX_ANSWER_BYTES + 1)
                while body and not answer.content.at_eof() and len(body) <= MAX_ANSWER_BYTES:
                    body += await answer.content.read(MAX_ANSWER_BYTES + 1 - len(body))
                status, headers = answer.status, answer.headers
        except aiohttp.ClientConnectorError as error:
            raise StoreUnavailable(f"{self.url}: {error}", is_unsent=True) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable(f"{self.url}: {error or type(error).__name__}", is_unsent=method == "GET") from None
        if len(body) > MAX_ANSWER_BYTES:
            raise StoreUnavailable(f"{self.url}: an answer of more than {MAX_ANSWER_BYTES} bytes")
        if status >= 500:
            text = body.decode(errors="replace").strip()[:300]
            raise StoreUnavailable(f"{self.url}: status {status}: {text}", is_unsent=method == "GET")
        if status != 404 and status not in allowed and not 200 <= status < 300:
            raise ConsulError(status, body.decode(errors="replace").strip())
        return status, headers, body


def next_index(before: int, told: int) -> int:
    """What to wait behind: an index that went backwards, or none at all, begins anew (Consul's own advice)."""
    return told if told > 0 and told >= before else 0


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data) if data.strip() else None
    except msgspec.DecodeError:
        raise StoreUnavailable(f"Consul answered no JSON: {data[:80]!r}", is_unsent=True) from None
