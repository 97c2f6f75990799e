"""Tables over HTTP: list, read, create, replace, remove, history, watch. Judges rights by what it is given.

Source: namerd's DtabHandler.scala and HttpControlServiceTest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable

import msgspec
from aiohttp import web

from meshcore.naming import (
    Dtab,
    DtabSyntaxError,
    NamingError,
    check,
    dtab_from_json,
    dtab_to_json,
    read_dtab,
    show_dtab,
)

from .book import Book, Revision, parsed, remember
from .http_watch import Watches, is_watch, one_line
from .tables import Record, check_namespace

JSON, DTAB, TEXT = "application/json", "application/dtab", "text/plain"
KINDS = (JSON, DTAB, TEXT)

Audit = Callable[..., None]


class TableRoutes:
    """What answers below `/dtabs`."""

    def __init__(self, book: Book, watches: Watches, writer: Callable[[web.Request], str], audit: Audit) -> None:
        self._book = book
        self._watches = watches
        self._writer = writer
        self._audit = audit

    # -- reading

    async def names(self, request: web.Request) -> web.StreamResponse:
        if is_watch(request):
            return await self._watches.stream(request, JSON, self._name_lines())
        return web.Response(body=_names(self._book.names.now) + b"\n", content_type=JSON)

    async def _name_lines(self) -> AsyncIterator[bytes]:
        async with self._book.names.watch() as lists:
            async for names in lists:
                yield _names(names)

    async def get(self, request: web.Request) -> web.StreamResponse:
        name = _namespace(request)
        kind = accepted(request.headers.get("Accept", ""))
        if is_watch(request):
            if "resume" in request.query:
                return await self._watches.stream(request, JSON, self._resumable(name, request.query["resume"]))
            return await self._watches.stream(request, kind, self._table_lines(name, kind))
        revision = await self._present(name)
        assert revision.dtab is not None
        answer = web.Response(body=worded(revision.dtab, kind) + b"\n", content_type=kind)
        self._stamp(answer, name)
        return answer

    async def head(self, request: web.Request) -> web.StreamResponse:
        name = _namespace(request)
        await self._present(name)
        answer = web.Response()
        self._stamp(answer, name)
        return answer

    def _stamp(self, answer: web.Response, name: str) -> None:
        """The version in the store, also where that is bad and an older table is shown: so the bad one can be replaced."""
        latest = self._book.namespace(name).latest.now
        assert latest is not None
        answer.headers["ETag"] = etag(latest.version)
        if latest.fault:
            answer.headers["Warning"] = f'199 - "the stored table is bad, this is the one before it: {one_line(latest.fault)}"'

    async def _present(self, name: str) -> Revision:
        """The table in use. The store is asked when this replica has not heard of it: it may be a moment behind."""
        namespace = self._book.namespace(name)
        if not namespace.exists:
            table = await self._book.tables.get(name)
            if table is None:
                raise web.HTTPNotFound(reason="no such namespace")
            await self._book.written(name, table.revision)
        good = namespace.good.now
        if good is None:
            raise web.HTTPInternalServerError(reason=f"the stored table is bad: {one_line(namespace.fault)}")
        return good

    async def _table_lines(self, name: str, kind: str) -> AsyncIterator[bytes]:
        """Every good table, in order; equal ones that follow each other once, as namerd does. A removal says nothing."""
        namespace = self._book.namespace(name)
        good = namespace.good.now
        told: bytes | None = None
        if good is not None and good.dtab is not None:
            told = worded(good.dtab, kind)
            yield told
        latest = namespace.latest.now
        async for revision in namespace.revisions(latest.revision if latest is not None else 0):
            if revision.dtab is not None and (line := worded(revision.dtab, kind)) != told:
                told = line
                yield line

    async def _resumable(self, name: str, resume: str) -> AsyncIterator[bytes]:
        """Objects with version and token, removals and bad tables too; from the token on when that is still known."""
        namespace = self._book.namespace(name)
        place = _token_place(resume)
        after = 0
        if place is not None and await self._knows(name, *place):
            after = place[0]
            for revision in await self._missed(name, after):
                after = revision.revision
                yield _event(revision)
        else:
            latest = namespace.latest.now
            if latest is not None:
                good = namespace.good.now
                if latest.fault and good is not None:
                    yield _event(good)
                after = latest.revision
                yield _event(latest)
        async for revision in namespace.revisions(after):
            yield _event(revision)

    async def _knows(self, name: str, revision: int, version: bytes) -> bool:
        if self._book.namespace(name).holds(revision, version):
            return True
        return any(one.revision == revision and one.version == version for one in await self._book.tables.history(name))

    async def _missed(self, name: str, after: int) -> list[Revision]:
        """What the journal does not reach back to, from the records."""
        journal = self._book.namespace(name).journal
        if journal and journal[0].revision <= after:
            return []
        oldest = journal[0].revision if journal else 2**63
        records = await self._book.tables.history(name)
        return [_revision(one) for one in records if after < one.revision < oldest]

    async def history(self, request: web.Request) -> web.StreamResponse:
        name = _namespace(request)
        records = await self._book.tables.history(name)
        if not records:
            raise web.HTTPNotFound(reason="no such namespace")
        return web.Response(body=msgspec.json.encode([_record(one) for one in records]) + b"\n", content_type=JSON)

    async def faults(self, request: web.Request) -> web.StreamResponse:
        """Tables in the store that are not in use, and why; and whether the store can be followed."""
        bad = {one.name: one.fault for one in self._book.bad()}
        told = {"store": self._book.fault, "tables": bad}
        return web.Response(body=msgspec.json.encode(told) + b"\n", content_type=JSON)

    # -- writing

    async def create(self, request: web.Request) -> web.StreamResponse:
        name, by = _namespace(request), self._writer(request)
        text = await self._told(request)
        with self._audited("create", name, by):
            table = await self._book.tables.create(name, text, by)
        return await self._done(name, table.revision, table.version)

    async def put(self, request: web.Request) -> web.StreamResponse:
        name, by = _namespace(request), self._writer(request)
        text = await self._told(request)
        version = expected(request)
        with self._audited("update", name, by):
            table = await self._book.tables.put(name, text, by, version)
        return await self._done(name, table.revision, table.version)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        name, by = _namespace(request), self._writer(request)
        version = expected(request)
        with self._audited("delete", name, by):
            revision = await self._book.tables.delete(name, by, version)
        return await self._done(name, revision, None)

    def _audited(self, what: str, name: str, by: str) -> _Audited:
        return _Audited(self._audit, what, name, by)

    async def _done(self, name: str, revision: int, version: bytes | None) -> web.StreamResponse:
        """204, once this replica knows it too: who wrote reads what he wrote."""
        await self._book.written(name, revision)
        return web.Response(status=204, headers={"ETag": etag(version)} if version is not None else None)

    async def _told(self, request: web.Request) -> str:
        """The table in the body, in its canonical text; 400 when there is none, or it can never work."""
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in KINDS:
            raise web.HTTPBadRequest(reason=f"Content-Type: got {kind[:60]!a}; expected one of {', '.join(KINDS)}")
        body = await request.read()
        try:
            text = body.decode()
            dtab = dtab_from_json(text) if kind == JSON else read_dtab(text)
        except (NamingError, UnicodeDecodeError, RecursionError) as error:
            shown = f" at line {error.line}, column {error.column}" if isinstance(error, DtabSyntaxError) else ""
            raise web.HTTPBadRequest(reason=one_line(f"Invalid dtab{shown}: {error}")) from None
        if request.query.get("faults", "").lower() != "allowed":
            for fault in check(dtab):
                if fault.is_certain or fault.kind != "loop":
                    message = f"{fault.message} (?faults=allowed writes it all the same)"
                    raise web.HTTPBadRequest(reason=one_line(f"Invalid dtab: {message}"))
        canonical = show_dtab(dtab)
        remember(canonical, dtab)
        return canonical


class _Audited:
    """One record of a write, however it ends."""

    def __init__(self, audit: Audit, what: str, name: str, by: str) -> None:
        self._audit, self._what, self._name, self._by = audit, what, name, by

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        outcome = "done" if kind is None else "failed"
        self._audit(event=f"dtab_{self._what}", outcome=outcome, actor=self._by, namespace=self._name, why=str(error or "")[:300])


def _namespace(request: web.Request) -> str:
    name = request.match_info["namespace"]
    check_namespace(name)
    return name


def accepted(accept: str) -> str:
    """The first kind that is ours; JSON when none is, as namerd does."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in KINDS:
            return kind
    return JSON


def worded(dtab: Dtab, kind: str) -> bytes:
    return dtab_to_json(dtab) if kind == JSON else show_dtab(dtab).encode()


def etag(version: bytes) -> str:
    """Base64 without quotes, as namerd sends it and namerctl hands it back."""
    return base64.b64encode(version).decode()


def expected(request: web.Request) -> bytes | None:
    """The version of If-Match. What is no version at all is one that no table has."""
    told = request.headers.get("If-Match")
    if told is None:
        return None
    try:
        return base64.b64decode(told.strip().removeprefix("W/").strip('"'), validate=True)
    except (binascii.Error, ValueError):
        return b"no version"


def token_of(revision: int, version: bytes) -> str:
    return f"{revision}.{base64.urlsafe_b64encode(version).decode().rstrip('=')}"


def _token_place(token: str) -> tuple[int, bytes] | None:
    revision, dot, version = token.partition(".")
    if not dot or not revision.isascii() or not revision.isdigit() or len(token) > 200:
        return None
    try:
        return int(revision), base64.urlsafe_b64decode(version + "=" * (-len(version) % 4))
    except (binascii.Error, ValueError):
        return None


def _names(names: tuple[str, ...]) -> bytes:
    return msgspec.json.encode(names)


def _event(one: Revision) -> bytes:
    told: dict[str, object] = {"token": token_of(one.revision, one.version), "version": etag(one.version)}
    if one.fault:
        told["fault"] = one.fault
    else:
        told["dtab"] = None if one.dtab is None else msgspec.Raw(dtab_to_json(one.dtab))
    return msgspec.json.encode(told)


def _record(one: Record) -> dict[str, object]:
    return {
        "revision": one.revision,
        "version": etag(one.version),
        "by": one.by,
        "time": one.time_s,
        "dtab": one.text,
    }


def _revision(one: Record) -> Revision:
    dtab, fault = (None, "") if one.text is None else parsed(one.text)
    return Revision(one.revision, one.version, one.text, dtab, fault, one.by, one.time_s)
