"""The control plane's page for machines: /metrics, /live, /ready, on loopback. Nothing here changes anything.

A web page of somebody else must not read it through a browser: Host must name loopback, or a name that was given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from aiohttp import web

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
        app = web.Application(client_max_size=1_024)
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
        _check_host(request)
        return web.Response(body=self._metrics().encode(), headers={"Content-Type": METRICS_TYPE})

    async def _show_live(self, request: web.Request) -> web.Response:
        _check_host(request)
        return web.Response(text="live\n")

    async def _show_ready(self, request: web.Request) -> web.Response:
        _check_host(request)
        why_not = self._why_not_ready()
        return web.Response(text=f"{why_not or 'ready'}\n", status=503 if why_not else 200)


def _check_host(request: web.Request) -> None:
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    try:
        is_loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise web.HTTPForbidden(text="this is served under loopback names only\n")
