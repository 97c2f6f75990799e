"""namerd's own pages: alive, ready, metrics, and which namers and tables are in trouble. Changes nothing.

`/metrics` is Prometheus text; names are few and bounded: no table and no path of a request is a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from .server import Namerd

Sample = tuple[str, str, str, dict[str, str], float]
"""Name, type, help, labels, value."""


def admin_application(namerd: Namerd) -> web.Application:
    app = web.Application()
    app.router.add_get("/admin/ping", _ping)
    app.router.add_get("/live", _ping)

    async def ready(request: web.Request) -> web.Response:
        trouble = namerd.book.fault
        return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ready'}\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=exposition(samples(namerd)).encode(), content_type="text/plain", charset="utf-8")

    async def health(request: web.Request) -> web.Response:
        told = {
            "store": namerd.book.fault,
            "tables": {one.name: one.fault for one in namerd.book.bad()},
            "namers": [msgspec.to_builtins(one) for one in namerd.names.namers.health()],
        }
        return web.Response(body=msgspec.json.encode(told) + b"\n", content_type="application/json")

    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/admin/metrics/prometheus", metrics)
    app.router.add_get("/admin/health.json", health)
    return app


async def _ping(request: web.Request) -> web.Response:
    return web.Response(text="pong")


def samples(namerd: Namerd) -> Iterator[Sample]:
    book = namerd.book
    yield "namerd_tables", "gauge", "Namespaces that have a table.", {}, len(book)
    yield "namerd_bad_tables", "gauge", "Tables in the store that are bad; the one before is in use.", {}, len(book.bad())
    yield "namerd_revisions_total", "counter", "Revisions of tables that arrived.", {}, book.revisions
    yield "namerd_bad_revisions_total", "counter", "Of these, how many were bad.", {}, book.bad_revisions
    yield "namerd_store_up", "gauge", "Whether the store can be followed.", {}, 0 if book.fault else 1
    yield "namerd_store_outages_total", "counter", "How often it could not.", {}, book.outages
    yield "namerd_mesh_streams", "gauge", "Open streams of the mesh interface.", {}, namerd.mesh_streams()
    for interface in namerd.http:
        watches = interface.watches
        yield "namerd_http_watches", "gauge", "Open watches over HTTP.", {}, watches.open
        yield "namerd_http_lines_total", "counter", "Lines told to them.", {}, watches.lines
        yield "namerd_http_stalled_total", "counter", "Watches cut off because nobody read.", {}, watches.stalled
        for (route, status), count in sorted(interface.requests.items()):
            labels = {"route": route, "status": str(status)}
            yield "namerd_http_requests_total", "counter", "Requests by route and status.", labels, count
    for namer in namerd.names.namers.health():
        labels = {"kind": namer.kind, "prefix": namer.prefix}
        source = namer.source
        yield "namerd_namer_keys", "gauge", "Names that are watched.", labels, source.keys
        yield "namerd_namer_stale_keys", "gauge", "Of these, whose source does not answer.", labels, source.stale_keys
        yield "namerd_namer_stale_seconds", "gauge", "Since when the oldest does not.", labels, source.oldest_stale_s
        yield "namerd_namer_updates_total", "counter", "Answers of the source.", labels, source.updates
        yield "namerd_namer_failures_total", "counter", "Failures of the source.", labels, source.failures


def exposition(found: Iterator[Sample]) -> str:
    """Prometheus text: all samples of a name together."""
    by_name: dict[str, list[str]] = {}
    for name, kind, told, labels, value in found:
        lines = by_name.setdefault(name, [f"# HELP {name} {told}", f"# TYPE {name} {kind}"])
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{shown}}} {value:g}" if shown else f"{name} {value:g}")
    return "".join(f"{line}\n" for lines in by_name.values() for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
