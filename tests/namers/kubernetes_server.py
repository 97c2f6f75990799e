"""The HTTP protocol of a Kubernetes API server for lists and watches: pages, versions, bookmarks, 410 Gone, selectors.

Written after Kubernetes' description of its API concepts; holds everything in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class KubernetesServer:
    """`await put(path, object)` and `await remove(path, name)` change a collection, `/apis/…/endpointslices` of a namespace."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.version = 100
        self.oldest = 0
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[tuple[int, str, str, dict[str, Any]]] = []
        self.page = 500
        self.watches = 0
        self.lists = 0
        self.asked: list[str] = []
        self.gone_by_status = False
        """410 as the status of a watch, and not as an event in it: the API server does both."""
        self.expires_pages = 0
        """So many following pages are told that their list has taken too long."""
        self.piece = 0
        """Events are sent so many octets at a time, with a pause after each; 0: whole."""
        self.bookmarks = 0
        self.url = ""
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._cut = 0

    async def __aenter__(self) -> KubernetesServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def put(self, path: str, name: str, labels: dict[str, str] | None = None, **more: Any) -> None:
        key = (path, name)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.version += 1
        metadata = {"name": name, "namespace": path.split("/namespaces/")[1].split("/")[0], "labels": labels or {}}
        self.objects[key] = {"metadata": metadata | {"resourceVersion": str(self.version)}, **more}
        await self._tell(path, kind, self.objects[key])

    async def remove(self, path: str, name: str) -> None:
        self.version += 1
        one = self.objects.pop((path, name))
        one["metadata"]["resourceVersion"] = str(self.version)
        await self._tell(path, "DELETED", one)

    async def bookmark(self, path: str) -> None:
        self.bookmarks += 1
        await self._tell(path, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    async def forget(self) -> None:
        """History is gone: whoever goes on from before gets 410."""
        self.events, self.oldest = [], self.version + 1

    async def cut(self) -> None:
        """Ends every watch in the middle."""
        self._cut += 1
        async with self._changed:
            self._changed.notify_all()

    async def _tell(self, path: str, kind: str, one: dict[str, Any]) -> None:
        self.events.append((self.version, path, kind, json.loads(json.dumps(one))))
        async with self._changed:
            self._changed.notify_all()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(str(request.rel_url))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(403, "forbidden")
        if request.query.get("watch") == "true":
            return await self._watch(request)
        self.lists += 1
        if request.query.get("continue") and self.expires_pages:
            self.expires_pages -= 1
            return _status(410, "the provided continue parameter is too old")
        found = [one for (path, _), one in sorted(self.objects.items()) if path == request.path and _selected(one, request)]
        start = int(request.query.get("continue") or 0)
        size = min(self.page, int(request.query.get("limit", self.page)))
        more = str(start + size) if start + size < len(found) else ""
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"kind": "List", "metadata": metadata, "items": found[start : start + size]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        since, cut = int(request.query["resourceVersion"]), self._cut
        if since < self.oldest and self.gone_by_status:
            return _status(410, "too old resource version")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        if since < self.oldest:
            gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
            await answer.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return answer
        told = 0
        try:
            while self._cut == cut:
                pending, told = self.events[told:], len(self.events)
                for version, path, kind, one in pending:
                    if path == request.path and (version > since or kind == "BOOKMARK") and _selected(one, request):
                        await self._send(answer, json.dumps({"type": kind, "object": one}).encode() + b"\n", cut)
                async with self._changed:
                    await self._changed.wait_for(lambda: self._cut != cut or len(self.events) > told)
            request.transport.abort()
        except ConnectionError:
            pass
        return answer

    async def _send(self, answer: web.StreamResponse, octets: bytes, cut: int) -> None:
        for start in range(0, len(octets), self.piece or len(octets)):
            if self._cut != cut:
                return  # in the middle of an event
            await answer.write(octets[start : start + (self.piece or len(octets))])
            if self.piece:
                await asyncio.sleep(0.001)


def _selected(one: dict[str, Any], request: web.Request) -> bool:
    metadata = one["metadata"]
    labels = metadata.get("labels", {})
    wanted = [part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part]
    if "name" not in metadata:
        return True  # a bookmark
    if field := request.query.get("fieldSelector"):
        return metadata["name"] == field.removeprefix("metadata.name=")
    return all(labels.get(key) == value for key, value in wanted)


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)
