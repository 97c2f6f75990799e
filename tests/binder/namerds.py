"""A namerd for tests: one table, spoken over real gRPC and HTTP, that can be stopped and started again on its ports."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import grpc.aio
from aiohttp import web

from meshcore.api import mesh_pb2, mesh_pb2_grpc
from meshcore.namers.interpreter import LocalInterpreter
from meshcore.namers.live import Cell, Live, Read, fixed
from meshcore.namers.namer import LiveNamer, LiveNamers
from meshcore.namers.states import Address, Replicas, State
from meshcore.naming import Answer, Bound, Dtab, Empty, Fail, Leaf, NameTree, Neg, Path, Union, read_dtab, read_path


class Places(LiveNamer):
    """`/#/places/host/port`: ids that only a namerd can say the address of."""

    kind = "places"
    prefix = read_path("/#/places")

    def answer(self, rest: Path, read: Read) -> Answer:
        return Leaf(Bound(self.prefix + Path(rest.elems[:2]), rest.drop(2)))

    def replicas(self, rest: Path) -> Live[State]:
        host, port = rest.texts
        return fixed(Replicas((Address(host, int(port)),)))


class Namerd:
    """The namespace `default`. Started when made."""

    def __init__(self, dtab: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.grpc_port = self.http_port = 0
        self.streams = 0
        self.locals: list[str] = []
        self.addresses_are_held = False
        self.held = 0
        """Watches of addresses that wait, as at a namerd that does not get to answer them."""
        self.is_silent = False
        """On HTTP: connections stay, and nothing is written to them any more."""
        self._call(self._make(dtab))
        self.start()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _make(self, dtab: str) -> None:
        self.table: Cell[Dtab] = Cell(read_dtab(dtab))
        self.interpreter = LocalInterpreter(LiveNamers([Places()]), self.table)

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """As kill -9: connections break, nothing is said."""
        self._call(self._stop())

    def end(self) -> None:
        self.stop()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self) -> None:
        await self.interpreter.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def set_table(self, dtab: str) -> None:
        async def change() -> None:
            self.table.set(read_dtab(dtab))

        self._call(change())

    async def _start(self) -> None:
        self._server = grpc.aio.server()
        mesh_pb2_grpc.add_InterpreterServicer_to_server(_Interpreter(self), self._server)
        mesh_pb2_grpc.add_ResolverServicer_to_server(_Resolver(self), self._server)
        self.grpc_port = self._server.add_insecure_port(f"127.0.0.1:{self.grpc_port}")
        await self._server.start()
        application = web.Application()
        application.router.add_get("/api/1/bind/default", self._http_bind)
        application.router.add_get("/api/1/addr/default", self._http_addr)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.http_port, reuse_address=True)
        await site.start()
        self.http_port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _stop(self) -> None:
        await self._server.stop(0)
        await self._runner.cleanup()

    # --- HTTP, as namerd's /api/1 ---

    async def _http_bind(self, request: web.Request) -> web.StreamResponse:
        local = read_dtab(request.query.get("dtab", ""))
        self.locals.append(request.query.get("dtab", ""))
        return await self._lines(request, self.interpreter.bind(read_path(request.query["path"]), local), tree_json)

    async def hold(self) -> None:
        if self.addresses_are_held:
            self.held += 1
            await asyncio.sleep(60)

    async def _http_addr(self, request: web.Request) -> web.StreamResponse:
        await self.hold()
        return await self._lines(request, self.interpreter.replicas(read_path(request.query["path"])), addresses_json)

    async def _lines(self, request: web.Request, live: Any, written: Any) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "application/json"})
        await answer.prepare(request)
        self.streams += 1
        async with live.watch() as values:
            async for value in values:
                while self.is_silent:
                    await asyncio.sleep(0.02)
                await answer.write(json.dumps(written(value)).encode() + b"\n\n")  # the empty line is a heartbeat
        return answer


def tree_json(tree: Any) -> Any:
    if isinstance(tree, Leaf):
        return {"type": "leaf", "bound": {"addr": {"type": "pending"}, "id": str(tree.value.id), "path": str(tree.value.residual)}}
    if isinstance(tree, Union):
        return {"type": "union", "union": [{"weight": one.weight, "tree": tree_json(one.tree)} for one in tree.branches]}
    return {"type": {Fail: "fail", Empty: "empty"}.get(type(tree), "neg")}


def addresses_json(state: Any) -> Any:
    if not isinstance(state, Replicas):
        return {"type": "neg" if isinstance(state, Neg) else "pending"}
    addresses = [
        {"ip": one.host, "port": one.port, "meta": {**dict(one.metadata), "endpoint_addr_weight": one.weight}} for one in state.addresses
    ]
    return {"type": "bound", "addrs": addresses, "meta": {}}


# --- gRPC, as io.linkerd.mesh ---


class _Interpreter(mesh_pb2_grpc.InterpreterServicer):
    def __init__(self, namerd: Namerd) -> None:
        self._namerd = namerd

    async def StreamBoundTree(self, request: Any, context: Any) -> Any:
        if tuple(request.root.elems) != (b"default",):
            await context.abort(grpc.StatusCode.NOT_FOUND, "Root not found")
        texts = [  # the tests override with entries of one leaf
            f"/{'/'.join(elem.label.decode() for elem in entry.prefix.elems)}=>/{b'/'.join(entry.dst.leaf.id.elems).decode()}"
            for entry in request.dtab.dentries
        ]
        local = read_dtab(";".join(texts))
        self._namerd.locals.append(str(local) if local else "")
        self._namerd.streams += 1
        async with self._namerd.interpreter.bind(Path(tuple(request.name.elems)), local).watch() as values:
            async for tree in values:
                if isinstance(tree, NameTree):
                    yield mesh_pb2.BoundTreeRsp(tree=tree_message(tree))


class _Resolver(mesh_pb2_grpc.ResolverServicer):
    def __init__(self, namerd: Namerd) -> None:
        self._namerd = namerd

    async def StreamReplicas(self, request: Any, context: Any) -> Any:
        import ipaddress

        await self._namerd.hold()
        self._namerd.streams += 1
        async with self._namerd.interpreter.replicas(Path(tuple(request.id.elems))).watch() as values:
            async for state in values:
                if isinstance(state, Replicas):
                    endpoints = [
                        mesh_pb2.Endpoint(address=ipaddress.ip_address(one.host).packed, port=one.port) for one in state.addresses
                    ]
                    yield mesh_pb2.Replicas(bound=mesh_pb2.Replicas.Bound(endpoints=endpoints))
                else:
                    yield mesh_pb2.Replicas(pending=mesh_pb2.Replicas.Pending())


def tree_message(tree: Any) -> Any:
    made = mesh_pb2.BoundNameTree
    if isinstance(tree, Leaf):
        return made(leaf=made.Leaf(id=mesh_pb2.Path(elems=tree.value.id.elems), residual=mesh_pb2.Path(elems=tree.value.residual.elems)))
    if isinstance(tree, Union):
        return made(union=made.Union(trees=[made.Union.Weighted(weight=w.weight, tree=tree_message(w.tree)) for w in tree.branches]))
    return made(neg=made.Neg())
