"""One namerd: its store, its namers, its interfaces, opened in order and closed in the other. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from meshcore.errors import ConfigError, Problem

from .admin import admin_application
from .book import Book
from .http import HttpInterface
from .names import Names
from .settings import HttpController, Mesh, ServerTls, Settings

KEEPALIVE_S = 75.0
GRPC_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1_048_576),
    ("grpc.max_concurrent_streams", 10_000),
    # A proxy that vanished without a word is noticed within half a minute (linkerd/linkerd#2219).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class Namerd:
    """`async with Namerd(settings)` serves until the block is left."""

    def __init__(self, settings: Settings, *, audit: Callable[..., None] | None = None) -> None:
        self.settings = settings
        self.addresses: dict[str, str] = {}
        """Where each interface listens: `http`, `mesh`, `admin`; the first of each kind."""
        self._audit = audit
        self.book = Book(settings.storage.tables())
        self.http: list[HttpInterface] = []
        self._runners: list[web.AppRunner] = []
        self._mesh: list[Any] = []
        self.mesh_streams: Callable[[], int] = lambda: 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self.names = Names(self.book, self.settings.live_namers())
        try:
            await self.book.open()
            for interface in self.settings.interfaces:
                if isinstance(interface, HttpController):
                    await self._open_http(interface)
                else:
                    await self._open_mesh(interface)
            admin = self.settings.admin
            await self._listen("admin", admin_application(self), admin.ip, admin.port, admin.tls)
        except BaseException:
            await self.close()
            raise

    async def _open_http(self, config: HttpController) -> None:
        interface = HttpInterface(self.book, self.names, config.access(), audit=self._audit)
        self.http.append(interface)
        await self._listen("http", interface.app, config.ip, config.port, config.tls)

    async def _listen(self, name: str, app: web.Application, ip: str, port: int, tls: ServerTls | None) -> None:
        # The grace is for answers under way; streams have been ended before.
        # A stream whose reader is gone is cancelled: it may have nothing to write, and would stay for ever.
        runner = web.AppRunner(
            app, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=1.0, access_log=None, handler_cancellation=True
        )
        await runner.setup()
        self._runners.append(runner)
        context = tls.context() if tls is not None else None
        try:
            await web.TCPSite(runner, ip, port, ssl_context=context, reuse_address=True, backlog=1024).start()
        except OSError as error:
            raise ConfigError(Problem(message=f"cannot listen at {shown(ip, port)}: {error.strerror or error}")) from None
        self.addresses.setdefault(name, shown(ip, runner.addresses[0][1]))

    async def _open_mesh(self, config: Mesh) -> None:
        import grpc

        from .mesh import MeshInterface

        server = grpc.aio.server(options=GRPC_OPTIONS, maximum_concurrent_rpcs=20_000)
        interface = MeshInterface(self.book, self.names)
        interface.add_to(server)
        self.mesh_streams = lambda: interface.streams
        address = shown(config.ip, config.port)
        try:
            if config.tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, _credentials(config.tls))
        except RuntimeError as error:
            raise ConfigError(Problem(message=f"cannot listen at {address}: {error}")) from None
        await server.start()
        self._mesh.append(server)
        self.addresses.setdefault("mesh", shown(config.ip, port))

    async def close(self) -> None:
        """Streams end first: their readers go to another replica while this one still answers."""
        for interface in self.http:
            interface.watches.close()
        grace_s = min(self.settings.admin.shutdownGraceMs / 1000, 1.0)
        await asyncio.gather(*(server.stop(grace_s) for server in self._mesh))
        for runner in self._runners:
            await runner.cleanup()
        with contextlib.suppress(Exception):
            await self.names.namers.close()
        await self.book.close()


def shown(ip: str, port: int) -> str:
    try:
        return f"[{ip}]:{port}" if ipaddress.ip_address(ip).version == 6 else f"{ip}:{port}"
    except ValueError:
        return f"{ip}:{port}"


def _credentials(tls: ServerTls) -> Any:
    import grpc

    with open(tls.keyPath, "rb") as key, open(tls.certPath, "rb") as chain:
        pair = (key.read(), chain.read())
    roots = None
    if tls.caCertPath:
        with open(tls.caCertPath, "rb") as file:
            roots = file.read()
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=tls.requireClientAuth)
