"""The HTTP protocol of Consul, as far as clients of services and keys use it: blocking queries with an index, health, keys
under compare-and-set, transactions. Written after Consul's documentation; holds everything in memory."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from aiohttp import web


class ConsulServer:
    """`services[(datacenter, name)]` are entries of /v1/health/service; `pairs` are keys with their ModifyIndex."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.services: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.pairs: dict[str, tuple[bytes, int]] = {}
        self.index = 10
        self.asked: list[str] = []
        self.status = 200  # anything else is answered to everything
        self.url = ""
        self.most_wait_s = 300.0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> ConsulServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/health/service/{name}", self._health)
        app.router.add_get("/v1/kv/{key:.*}", self._read)
        app.router.add_put("/v1/kv/{key:.*}", self._write)
        app.router.add_delete("/v1/kv/{key:.*}", self._remove)
        app.router.add_put("/v1/txn", self._transact)
        app.middlewares.append(self._guard)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def serve(self, name: str, *ports: int, datacenter: str = "dc1", **more: Any) -> None:
        """Registers these instances, and no others."""
        self.services[datacenter, name] = [self.entry(port, **more) for port in ports]
        await self.moved()

    @staticmethod
    def entry(port: int, tags: tuple[str, ...] = (), status: str = "passing", address: str = "127.0.0.1", **meta: str) -> dict:
        return {
            "Node": {"Node": "node-1", "Address": "10.0.0.1", "Datacenter": "dc1"},
            "Service": {"ID": f"s-{port}", "Service": "s", "Tags": list(tags), "Address": address, "Port": port, "Meta": meta},
            "Checks": [{"Status": status}],
        }

    async def moved(self) -> None:
        self.index += 1
        async with self._changed:
            self._changed.notify_all()

    @web.middleware
    async def _guard(self, request: web.Request, handler):
        self.asked.append(str(request.rel_url))
        if self.status != 200:
            return web.Response(status=self.status, text="No cluster leader")
        if self.token and request.headers.get("X-Consul-Token") != self.token:
            return web.Response(status=403, text="Permission denied")
        return await handler(request)

    async def _block(self, request: web.Request) -> None:
        """Waits until the index is newer than the client's, or its time is over."""
        since = int(request.query.get("index", "0"))
        wait_s = min(float(request.query.get("wait", "300s").rstrip("s")), self.most_wait_s)
        if since and self.index <= since:
            try:
                async with asyncio.timeout(wait_s), self._changed:
                    await self._changed.wait_for(lambda: self.index > since)
            except TimeoutError:
                pass

    def _answer(self, value: Any, status: int = 200) -> web.Response:
        return web.json_response(value, status=status, headers={"X-Consul-Index": str(self.index)})

    async def _health(self, request: web.Request) -> web.Response:
        await self._block(request)
        if self.status != 200:
            return web.Response(status=self.status, text="No cluster leader")
        found = self.services.get((request.query.get("dc", "dc1"), request.match_info["name"]), [])
        if tag := request.query.get("tag"):
            found = [one for one in found if tag in one["Service"]["Tags"]]
        if "passing" in request.query:
            found = [one for one in found if all(check["Status"] == "passing" for check in one["Checks"])]
        return self._answer(found)

    async def _read(self, request: web.Request) -> web.Response:
        await self._block(request)
        key = request.match_info["key"]
        found = sorted(name for name in self.pairs if (name.startswith(key) if "recurse" in request.query else name == key))
        if not found:
            return self._answer(None, 404)
        return self._answer([self._pair(name) for name in found])

    def _pair(self, name: str) -> dict[str, Any]:
        value, index = self.pairs[name]
        return {"Key": name, "Value": base64.b64encode(value).decode() or None, "ModifyIndex": index}

    def _holds(self, key: str, expected: int) -> bool:
        return (self.pairs[key][1] if key in self.pairs else 0) == expected

    async def _write(self, request: web.Request) -> web.Response:
        key, value = request.match_info["key"], await request.read()
        if "cas" in request.query and not self._holds(key, int(request.query["cas"])):
            return self._answer(False)
        await self.moved()
        self.pairs[key] = (value, self.index)
        return self._answer(True)

    async def _remove(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if "cas" in request.query and not self._holds(key, int(request.query["cas"])):
            return self._answer(False)
        self.pairs.pop(key, None)
        await self.moved()
        return self._answer(True)

    async def _transact(self, request: web.Request) -> web.Response:
        operations = [one["KV"] for one in await request.json()]
        for position, one in enumerate(operations):
            if one["Verb"] in ("cas", "delete-cas", "check-index") and not self._holds(one["Key"], int(one.get("Index", 0))):
                return self._answer({"Results": None, "Errors": [{"OpIndex": position, "What": "failed: index is stale"}]}, 409)
        await self.moved()
        results = []
        for one in operations:
            if one["Verb"] in ("set", "cas"):
                self.pairs[one["Key"]] = (base64.b64decode(one.get("Value") or ""), self.index)
                results.append({"KV": self._pair(one["Key"]) | {"Value": None}})
            elif one["Verb"] in ("delete", "delete-cas"):
                self.pairs.pop(one["Key"], None)
        return self._answer({"Results": results, "Errors": None})
