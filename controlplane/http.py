"""The control plane's page for machines: /metrics, /live, /ready, on loopback. Nothing here changes anything.

A web page of somebody else must not ask it through a browser: Host must name loopback, and so must Origin where there is one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """One server."""

    def __init__(self, address: str, metrics: Callable[[], str], why_not_ready: Callable[[], str]) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._metrics = metrics
        self._why_not_ready = why_not_ready
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def open(self) -> None:
        """Listens. OSError when the address cannot be had."""
        app = web.Application(client_max_size=1_024, middlewares=[_from_here])
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/live", self._show_live)
        app.router.add_get("/ready", self._show_ready)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=30)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics().encode(), headers={"Content-Type": METRICS_TYPE})

    async def _show_live(self, request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _show_ready(self, request: web.Request) -> web.Response:
        why_not = self._why_not_ready()
        return web.Response(text=f"{why_not or 'ready'}\n", status=503 if why_not else 200)


@web.middleware
async def _from_here(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Before anything else is looked at: DNS rebinding shows in Host, another's page in Origin."""
    origin = request.headers.get("Origin")
    if not _is_loopback(request.host) or (origin is not None and not _is_loopback(urlsplit(origin).netloc)):
        raise web.HTTPForbidden(text="this is served under loopback names only\n")
    return await handler(request)


def _is_loopback(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = (host if port.isdigit() and host else address).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
