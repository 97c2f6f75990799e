"""A namerd served in this process over free ports, and an HTTP client that speaks to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import aiohttp

from controlplane.namerd.server import Namerd
from controlplane.namerd.settings import HttpController, InMemory, Mesh, Settings

DTAB = "application/dtab"
LONG_S = 20


def memory(*interfaces, namers=(), **namespaces: str) -> Settings:
    """A namerd in memory."""
    return configured(InMemory(namespaces=namespaces), *interfaces, namers=namers)


def configured(storage, *interfaces, namers=()) -> Settings:
    found = list(interfaces) or [HttpController(port=0), Mesh(port=0)]
    settings = Settings(storage=storage, interfaces=found, namers=list(namers))
    settings.admin.port = 0
    return settings


class Served:
    """A running namerd and a session."""

    def __init__(self, namerd: Namerd, session: aiohttp.ClientSession) -> None:
        self.namerd = namerd
        self.session = session
        self.scheme = "http"

    async def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        names = {"kind": "Content-Type", "accept": "Accept", "match": "If-Match", "auth": "Authorization", "origin": "Origin"}
        wanted = {names[key]: value for key, value in headers.items()}
        data = body.encode() if isinstance(body, str) else body
        skip = ("Content-Type",) if "kind" not in headers else ()
        url = f"{self.scheme}://{self.namerd.addresses['http']}/api/1{path}"
        async with self.session.request(method, url, data=data, headers=wanted, skip_auto_headers=skip) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def json(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    @contextlib.asynccontextmanager
    async def watch(self, path: str):
        """Lines as they come."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=LONG_S)
        url = f"{self.scheme}://{self.namerd.addresses['http']}/api/1{path}"
        async with self.session.get(url, timeout=timeout) as answer:
            assert answer.status == 200, await answer.text()
            yield answer.content


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def etag(self) -> str:
        return self.headers["ETag"]

    def __repr__(self) -> str:
        return f"{self.status} {dict(self.headers)} {self.body[:500]!r}"


@contextlib.asynccontextmanager
async def served(settings: Settings, **options: Any):
    async with Namerd(settings, **options) as namerd, aiohttp.ClientSession() as session:
        yield Served(namerd, session)


async def line(stream) -> str:
    async with asyncio.timeout(LONG_S):
        return (await stream.readline()).decode()


def version(number: int) -> str:
    return base64.b64encode(number.to_bytes(8, "big")).decode()
