"""The HTTP interface of namerd, `/api/1/…`: routes, who may, and what errors become. Tables and names answer beside it.

Source: namerd's HttpControlService.scala and its test. Better than there: bad input to bind and resolve is 400 and not 500,
writes need a right, watches may have heartbeats and be resumed, DELETE takes If-Match.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from meshcore.clients.errors import StoreUnavailable
from meshcore.errors import MeshError

from ..errors import Denied
from .access import Access, Caller, names_of
from .book import Book
from .http_names import NameRoutes
from .http_tables import TableRoutes
from .http_watch import Watches
from .names import Names
from .tables import MAX_TABLE_BYTES, AlreadyThere, BadNamespace, Forbidden, Missing, WrongVersion

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS: dict[type[MeshError], int] = {
    AlreadyThere: 409,
    Missing: 404,
    WrongVersion: 412,
    Forbidden: 403,
    Denied: 403,
    BadNamespace: 400,
    StoreUnavailable: 503,
}


class HttpInterface:
    """All of it, as an application of aiohttp."""

    def __init__(self, book: Book, names: Names, access: Access, *, audit: Callable[..., None] | None = None) -> None:
        self.access = access
        self.watches = Watches()
        self._audit = audit
        self.requests: dict[tuple[str, int], int] = {}
        tables = TableRoutes(book, self.watches, self._writer, audit or (lambda **_: None))
        bound = NameRoutes(names, self.watches)
        self.app = web.Application(client_max_size=MAX_TABLE_BYTES + 4096, middlewares=[self._guard])
        route = self.app.router
        for path in ("/api/1/dtabs", "/api/1/dtabs/"):
            route.add_get(path, tables.names)
        route.add_get("/api/1/dtabs/{namespace}", tables.get, allow_head=False)
        route.add_head("/api/1/dtabs/{namespace}", tables.head)
        route.add_post("/api/1/dtabs/{namespace}", tables.create)
        route.add_put("/api/1/dtabs/{namespace}", tables.put)
        route.add_delete("/api/1/dtabs/{namespace}", tables.delete)
        route.add_get("/api/1/dtabs/{namespace}/history", tables.history)
        route.add_get("/api/1/faults", tables.faults)
        for verb in ("bind", "addr", "resolve"):
            route.add_get(f"/api/1/{verb}/{{namespace}}", getattr(bound, verb))
        for path in ("/api/1/delegate", "/api/1/delegate/{namespace}"):
            route.add_route("*", path, bound.delegate)
        route.add_get("/api/1/bound-names", bound.bound_names)

    def _writer(self, request: web.Request) -> str:
        """Who writes; Denied when nobody may here."""
        return self.access.writer(caller_of(request))

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors become answers; nothing is told of ours but what the caller can use."""
        try:
            if request.method in ("GET", "HEAD"):
                answer = await handler(request)
            else:  # a write goes on to its end, and to its record, though its caller is gone
                answer = await asyncio.shield(asyncio.ensure_future(handler(request)))
        except web.HTTPException as error:
            answer = error
        except MeshError as error:
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
            if isinstance(error, Denied):
                _log.warning("a write was refused: %s (%s)", error, error.why)
            elif status >= 500:
                _log.error("%s %s: %s", request.method, request.path, error)
            answer = text(status, str(error))
            if status == 503:
                answer.headers["Retry-After"] = "1"
        key = (request.match_info.route.resource.canonical if request.match_info.route.resource else "", answer.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if isinstance(answer, web.HTTPException):
            return text(answer.status, answer.reason, dict(answer.headers))
        return answer


def caller_of(request: web.Request) -> Caller:
    """What the connection and the headers say."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    return Caller(
        request.remote or "",
        token.strip() if scheme.lower() == "bearer" else "",
        names_of(certificate),
        request.headers.get("Origin", ""),
    )


def text(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    kept = {key: value for key, value in (headers or {}).items() if key == "Allow"}
    return web.Response(status=status, text=f"{message}\n", headers=kept)
