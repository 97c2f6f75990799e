"""Kubernetes: list and watch of any resource, as the API concepts of Kubernetes describe them. Knows no kind of object.

Why not kubernetes_asyncio: it is a generated class for each of a thousand kinds, takes most of a second to import, and its
watch does not do what makes a watch right: go on from the last bookmark, list again after 410 Gone, notice a silent peer.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from ..errors import MeshError
from .errors import StoreUnavailable
from .etcd import watchful_socket

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10.0
PAGE = 500
WATCH_S = 300
"""The server ends a watch after it, and we go on from the last bookmark: a stuck one cannot last."""
MAX_EVENT_BYTES = 16_777_216
QUIET_S = 0.1
"""Between two watches: a server that ends each at once must not keep us busy."""
GONE = 410

Object = Mapping[str, Any]
Objects = Mapping[tuple[str, str], Object]
"""(namespace, name) -> object."""


class KubernetesError(MeshError):
    """The API server understood and refused: no right to, no such resource."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"Kubernetes: status {status}: {message[:300]}")


class Gone(MeshError):
    """The version to go on from is no longer known: list again."""


class KubernetesClient:
    """One API server. The token file is read again for each request: Kubernetes rotates it."""

    def __init__(
        self, url: str, *, token_file: str | Path | None = None, token: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._token = token
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def in_cluster(cls) -> KubernetesClient:
        """With the account of the pod that this runs in; StoreUnavailable when it runs in none."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (ACCOUNT / "token").exists():
            raise StoreUnavailable("this does not run in a pod of Kubernetes with a service account", is_unsent=True)
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", token_file=ACCOUNT / "token", tls=tls)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, ssl=self._tls if self._tls is not None else True, socket_factory=watchful_socket
            )
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=2**18)
        return self._session

    def _headers(self) -> dict[str, str]:
        token = self._token
        if self._token_file is not None:
            token = Path(self._token_file).read_text().strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list(self, path: str, params: Mapping[str, str] | None = None) -> tuple[dict[tuple[str, str], Object], str]:
        """All objects of a collection, page by page, and the version to watch from."""
        found: dict[tuple[str, str], Object] = {}
        following = ""
        while True:
            wanted = {**(params or {}), "limit": str(PAGE)}
            if following:
                wanted["continue"] = following
            page = await self._get(path, wanted)
            for one in page.get("items") or ():
                found[name_of(one)] = one
            metadata = page.get("metadata") or {}
            following = metadata.get("continue") or ""
            if not following:
                return found, str(metadata.get("resourceVersion", ""))

    async def watch(self, path: str, version: str, params: Mapping[str, str] | None = None) -> AsyncIterator[tuple[str, Object]]:
        """(type, object) of each event behind a version, bookmarks too, until the stream ends or breaks: then go on from
        the last version. Gone: list again."""
        wanted = {
            **(params or {}),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = aiohttp.ClientTimeout(total=WATCH_S + TIMEOUT_S, sock_connect=TIMEOUT_S)
        has_begun = False
        try:
            async with self._open().get(self.url + path, params=wanted, headers=self._headers(), timeout=timeout) as answer:
                if answer.status != 200:
                    _refuse(answer.status, await answer.content.read(4096))
                has_begun = True
                buffer = bytearray()
                async for part in answer.content.iter_any():
                    buffer += part
                    *lines, rest = bytes(buffer).split(b"\n") if b"\n" in part else (bytes(buffer),)
                    buffer = bytearray(rest)
                    if len(buffer) > MAX_EVENT_BYTES:
                        raise StoreUnavailable(f"{self.url}: an event of more than {MAX_EVENT_BYTES} bytes")
                    for line in lines:
                        if line.strip():
                            yield _event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not has_begun:
                raise StoreUnavailable(f"{self.url}{path}: {error or type(error).__name__}", is_unsent=True) from None

    async def follow(self, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[Objects]:
        """All objects, and again after each change. Raises when the server is away: then begin again."""
        while True:
            try:  # Gone may come of a watch, or of the next page of a list that took too long
                objects, version = await self.list(path, params)
                yield dict(objects)
                while True:
                    async for kind, one in self.watch(path, version, params):
                        version = str((one.get("metadata") or {}).get("resourceVersion") or version)
                        if kind == "BOOKMARK":
                            continue
                        if kind == "DELETED":
                            objects.pop(name_of(one), None)
                        else:
                            objects[name_of(one)] = one
                        yield dict(objects)
                    await asyncio.sleep(QUIET_S * random.uniform(0.5, 1.0))
            except Gone:
                await asyncio.sleep(QUIET_S * random.uniform(0.5, 1.0))

    async def _get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S * 3, sock_connect=TIMEOUT_S)
        try:
            async with self._open().get(self.url + path, params=params, headers=self._headers(), timeout=timeout) as answer:
                data = await answer.read()
                if answer.status != 200:
                    _refuse(answer.status, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable(f"{self.url}{path}: {error or type(error).__name__}", is_unsent=True) from None
        found = _decoded(data)
        if not isinstance(found, dict):
            raise StoreUnavailable(f"{self.url}{path}: got {type(found).__name__}; expected a list of objects")
        return found


def name_of(one: Object) -> tuple[str, str]:
    metadata = one.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _refuse(status: int, data: bytes) -> None:
    try:
        message = str(msgspec.json.decode(data).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        message = data.decode(errors="replace")
    if status == GONE:
        raise Gone(f"Kubernetes: {message[:200]}")
    if status >= 500 or status == 429:
        raise StoreUnavailable(f"Kubernetes: status {status}: {message[:200]}", is_unsent=True)
    raise KubernetesError(status, message)


def _event(line: bytes) -> tuple[str, Object]:
    event = _decoded(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise StoreUnavailable(f"Kubernetes: no event: {line[:80]!r}")
    kind, one = str(event.get("type")), event["object"]
    if kind == "ERROR":
        if one.get("code") == GONE:
            raise Gone(f"Kubernetes: {str(one.get('message'))[:200]}")
        raise StoreUnavailable(f"Kubernetes: {str(one.get('message'))[:200]}")
    return kind, one


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        raise StoreUnavailable(f"Kubernetes: no JSON: {data[:80]!r}") from None
