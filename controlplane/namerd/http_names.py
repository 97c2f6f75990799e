"""Names over HTTP: bind, addr, resolve, delegate, bound-names; once or as a stream. Source: namerd's HttpControlService.scala."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from meshcore.namers import Live, Resolution, State
from meshcore.naming import (
    EMPTY_DTAB,
    Dtab,
    Failed,
    Leaf,
    NamingError,
    NameTree,
    Path,
    Pending,
    choose,
    delegator_json,
    explain,
    read_dtab,
    read_path,
)
from meshcore.naming.transformers import strip_transformers

from .http_watch import Watches, is_watch, one_line
from .names import BINDING_S, DELEGATING_S, Key, Names
from .shapes import addr_json, bound_json, with_addresses
from .tables import check_namespace

JSON = "application/json"


class NameRoutes:
    """What answers questions about names."""

    def __init__(self, names: Names, watches: Watches) -> None:
        self._names = names
        self._watches = watches

    async def bind(self, request: web.Request) -> web.StreamResponse:
        live = self._names.shared(_key(request), _bound)
        if is_watch(request):
            return await self._watches.stream(request, JSON, _lines(live))
        return await _once(live)

    async def addr(self, request: web.Request) -> web.StreamResponse:
        check_namespace(request.match_info["namespace"])
        live = self._names.replicas(strip_transformers(_path(request))).map(_addr)
        if is_watch(request):
            return await self._watches.stream(request, JSON, _lines(live))
        return await _once(live)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """The addresses of what the name is bound to; of a union, of one branch that is drawn for each answer."""
        live = self._names.follow(_key(request)).map(_resolved)
        if is_watch(request):
            return await self._watches.stream(request, JSON, _lines(live))
        return await _once(live)

    async def delegate(self, request: web.Request) -> web.StreamResponse:
        told: dict[str, str] = dict(request.query)
        namespace = request.match_info.get("namespace")
        if request.method == "POST":
            if request.content_type != JSON:
                raise web.HTTPUnsupportedMediaType(reason=f"expected {JSON}")
            told, namespace = await _asked(request, namespace)
        elif request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "POST"])
        path, local = read_name(told.get("path", "")), read_local(told.get("dtab", ""))
        if namespace is None:
            shown = explain(local, path, self._names.namers.reading(lambda live: live.now))
            return web.Response(body=msgspec.json.encode(delegator_json(shown)), content_type=JSON)
        check_namespace(namespace)
        delegation, replicas = await self._names.explain(Key(namespace, path, local))
        body = with_addresses(delegator_json(delegation), replicas)
        return web.Response(body=msgspec.json.encode(body), content_type=JSON)

    async def bound_names(self, request: web.Request) -> web.StreamResponse:
        """The ids that are in use: catalogues are not listed, as most of them cannot be."""
        found = {str(namer.prefix + key) for namer in self._names.namers.asked if namer.source for key in namer.source.cells}
        return web.Response(body=msgspec.json.encode(sorted(found)) + b"\n", content_type=JSON)


def _key(request: web.Request) -> Key:
    namespace = request.match_info["namespace"]
    check_namespace(namespace)
    keeps = request.query.get("alternatives", "").lower() == "true"
    return Key(namespace, _path(request), read_local(request.query.get("dtab", "")), keeps)


def _path(request: web.Request) -> Path:
    return read_name(request.query.get("path", ""))


def read_name(text: str) -> Path:
    """A path, or 400 in namerd's words."""
    try:
        return read_path(text)
    except NamingError as error:
        raise web.HTTPBadRequest(reason=one_line(f"Invalid path: {error}")) from None


def read_local(text: str) -> Dtab:
    if not text:
        return EMPTY_DTAB
    try:
        return read_dtab(text)
    except (NamingError, RecursionError) as error:
        raise web.HTTPBadRequest(reason=one_line(f"Invalid dtab: {error}")) from None


async def _asked(request: web.Request, namespace: str | None) -> tuple[dict[str, str], str | None]:
    """The body of a POST: `{"namespace", "dtab", "path"}`."""
    try:
        body: Any = msgspec.json.decode(await request.read())
        assert isinstance(body, dict)
        told = {key: str(body.get(key) or "") for key in ("path", "dtab")}
    except (msgspec.DecodeError, AssertionError):
        raise web.HTTPBadRequest(reason="Malformed delegation request: expected a JSON object") from None
    return told, namespace or (str(body["namespace"]) if body.get("namespace") else None)


class Said(msgspec.Struct, frozen=True):
    """An answer in bytes; `is_pending` where there is none yet, `message` where it is a failure."""

    body: bytes = b""
    message: str = ""
    is_pending: bool = False


_PENDING = Said(is_pending=True)


def _bound(resolution: Resolution) -> Said:
    """Waits for the tree, and for the addresses of each of its leaves: a leaf without them would look like an empty one."""
    if isinstance(resolution.tree, Failed):
        return Said(message=resolution.tree.message)
    if isinstance(resolution.tree, Pending) or resolution.is_pending:
        return _PENDING
    return Said(msgspec.json.encode(bound_json(resolution)))


def _addr(state: State) -> Said:
    return _PENDING if isinstance(state, Pending) else Said(msgspec.json.encode(addr_json(state)))


def _resolved(resolution: Resolution) -> Said:
    tree = resolution.tree
    if isinstance(tree, Failed):
        return Said(message=tree.message)
    if not isinstance(tree, NameTree):
        return _PENDING
    end = choose(tree, random.random())
    if not isinstance(end, Leaf):
        return Said(b'{"type":"neg"}')
    return _addr(resolution.replicas[end.value.id])


async def _once(live: Live[Said]) -> web.Response:
    said = await live.settled(BINDING_S)
    if said.is_pending:
        raise web.HTTPGatewayTimeout(reason=f"a namer has not answered within {BINDING_S:g} s")
    if said.message:
        raise web.HTTPInternalServerError(reason=one_line(said.message))
    return web.Response(body=said.body + b"\n", content_type=JSON)


async def _lines(live: Live[Said]) -> AsyncIterator[bytes]:
    """Each answer; a failure is a line, and the end, as namerd has it."""
    async with live.watch() as values:
        async for said in values:
            if said.message:
                yield said.message.encode()
                return
            if not said.is_pending:
                yield said.body
