"""The mesh interface: gRPC services that proxies ask for bound trees, replicas, tables and delegations. Reads only.

Source: linkerd's InterpreterService.scala, ResolverService.scala, DelegatorService.scala, CodecService.scala and the words of their
errors. A stream tells each value that is another, the newest to who is slow; it ends only with its caller or the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from meshcore.api import mesh_pb2 as pb
from meshcore.api import mesh_pb2_grpc as services
from meshcore.binder.dtab_message import dtab_message
from meshcore.errors import MeshError
from meshcore.namers import Live, Replicas, Resolution, State
from meshcore.namers.inet import said_by
from meshcore.naming import (
    Alt,
    Dentry,
    Dtab,
    Failed,
    NamingError,
    Path,
    Pending,
    Prefix,
    read_dtab,
    read_path,
    show_dtab,
)

from .book import Book, Revision
from .messages import (
    bound_message,
    delegation_message,
    dtab_of,
    path_message,
    path_of,
    replicas_message,
    tree_of,
)
from .names import BINDING_S, Key, Names
from .tables import check_namespace

T = TypeVar("T")

ALTERNATIVES = ("meshcore-alternatives", "true")
"""Metadata of a call whose bound trees keep what an alternation would go on to: proxies of ours fall over by themselves."""
ADDRESSES = ("meshcore-addresses", "true")
"""Metadata of a stream that is told, with each tree, where its ids are: proxies of ours move to a new id by one message."""
MOST_KNOWN = 1000
"""Addresses of an id that are told with a tree; of a larger one they are asked for."""
NAMELESS = b"\xff delegated"
"""A name that no table has: a tree is delegated as the destination of it."""


class MeshInterface:
    """All services over one book."""

    def __init__(self, book: Book, names: Names) -> None:
        self.book = book
        self.names = names
        self.streams = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        services.add_InterpreterServicer_to_server(Interpreter(self), server)
        services.add_ResolverServicer_to_server(Resolver(self), server)
        services.add_DelegatorServicer_to_server(Delegator(self), server)
        services.add_CodecServicer_to_server(Codec(), server)


class Interpreter(services.InterpreterServicer):  # type: ignore[misc]
    """What names are bound to."""

    def __init__(self, interface: MeshInterface) -> None:
        self._interface = interface

    async def GetBoundTree(self, request: pb.BindReq, context: Any) -> pb.BoundTreeRsp:
        live = await self._live(request, context)
        said = await live.settled(BINDING_S)
        if isinstance(said, Failed):
            await context.abort(grpc.StatusCode.INTERNAL, said.message)
        if isinstance(said, Pending):
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"a namer has not answered within {BINDING_S:g} s")
        return said

    async def StreamBoundTree(self, request: pb.BindReq, context: Any) -> AsyncIterator[pb.BoundTreeRsp]:
        key = await self._key(request, context)
        names = self._interface.names
        told = names.shared(key, _bound)
        # Followed beside the tree, so that it is made once for all; told with a tree only, as addresses have streams of their own.
        whole = names.shared(key, _bound_and_known) if ADDRESSES in (context.invocation_metadata() or ()) else told
        unfollow = whole.subscribe(_nothing)
        try:
            async for said in _values(told, self._interface):
                if isinstance(said, Failed):
                    await context.abort(grpc.StatusCode.INTERNAL, said.message)
                elif not isinstance(said, Pending):
                    yield said if isinstance(whole.now, (Failed, Pending)) else whole.now
        finally:
            unfollow()

    async def _live(self, request: pb.BindReq, context: Any) -> Live[pb.BoundTreeRsp | Failed | Pending]:
        return self._interface.names.shared(await self._key(request, context), _bound)

    async def _key(self, request: pb.BindReq, context: Any) -> Key:
        namespace = await _root(request.root, context)
        if not request.name.elems:
            await context.abort(grpc.StatusCode.NOT_FOUND, "No name given")
        local = await _meant(lambda: dtab_of(request.dtab), context)
        name = await _meant(lambda: path_of(request.name), context)
        return Key(namespace, name, local, ALTERNATIVES in (context.invocation_metadata() or ()))


def _bound(resolution: Resolution) -> pb.BoundTreeRsp | Failed | Pending:
    tree = resolution.tree
    return tree if isinstance(tree, (Failed, Pending)) else pb.BoundTreeRsp(tree=bound_message(tree))


def _bound_and_known(resolution: Resolution) -> pb.BoundTreeRsp | Failed | Pending:
    told = _bound(resolution)
    if isinstance(told, pb.BoundTreeRsp):
        for id, state in resolution.replicas.items():
            # What an id says by itself needs no telling.
            if isinstance(state, Replicas) and len(state.addresses) <= MOST_KNOWN and said_by(id) is None:
                told.known.add(id=path_message(id), replicas=replicas_message(state))
    return told


def _nothing() -> None:
    pass


class Resolver(services.ResolverServicer):  # type: ignore[misc]
    """Where the instances of a bound name are."""

    def __init__(self, interface: MeshInterface) -> None:
        self._interface = interface

    async def GetReplicas(self, request: pb.ReplicasReq, context: Any) -> pb.Replicas:
        live = await self._live(request, context)
        return replicas_message(await live.settled(BINDING_S))

    async def StreamReplicas(self, request: pb.ReplicasReq, context: Any) -> AsyncIterator[pb.Replicas]:
        live = await self._live(request, context)
        async for state in _values(live, self._interface):
            yield replicas_message(state)

    async def _live(self, request: pb.ReplicasReq, context: Any) -> Live[State]:
        if not request.id.elems:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "No id given")
        return self._interface.names.replicas(await _meant(lambda: path_of(request.id), context))


class Delegator(services.DelegatorServicer):  # type: ignore[misc]
    """Tables, and how they lead from a name to what it is bound to."""

    def __init__(self, interface: MeshInterface) -> None:
        self._interface = interface

    async def GetDtab(self, request: pb.DtabReq, context: Any) -> pb.DtabRsp:
        namespace = await _root(request.root, context)
        good = self._interface.book.namespace(namespace).good.now
        if good is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "Root not found")
        assert good is not None
        return _table(good)

    async def StreamDtab(self, request: pb.DtabReq, context: Any) -> AsyncIterator[pb.DtabRsp]:
        namespace = self._interface.book.namespace(await _root(request.root, context))
        async for good in _values(namespace.good, self._interface):
            if good is not None:
                yield _table(good)

    async def GetDelegateTree(self, request: pb.DelegateTreeReq, context: Any) -> pb.DelegateTreeRsp:
        namespace = await _root(request.root, context)
        local = await _meant(lambda: dtab_of(request.dtab), context)
        tree = await _meant(lambda: tree_of(request.tree), context)
        # A leaf is a name; any other tree is delegated as what one name would lead to.
        if hasattr(tree, "value"):
            path = tree.value
        else:
            path = Path((NAMELESS,))
            local += Dtab((Dentry(Prefix((NAMELESS,)), tree if not isinstance(tree, Alt) or tree.trees else Alt(())),))
        told, _ = await self._interface.names.explain(Key(namespace, path, local))
        return pb.DelegateTreeRsp(tree=delegation_message(told))

    async def StreamDelegateTree(self, request: pb.DelegateTreeReq, context: Any) -> AsyncIterator[pb.DelegateTreeRsp]:
        """One value, as theirs: a delegation is for people."""
        yield await self.GetDelegateTree(request, context)


class Codec(services.CodecServicer):  # type: ignore[misc]
    """Text to values and back, for clients without a parser."""

    async def ReadDtab(self, request: pb.ReadDtabReq, context: Any) -> pb.ReadDtabRsp:
        return pb.ReadDtabRsp(dtab=dtab_message(await _meant(lambda: read_dtab(request.text), context)))

    async def ShowDtab(self, request: pb.ShowDtabReq, context: Any) -> pb.ShowDtabRsp:
        return pb.ShowDtabRsp(text=show_dtab(await _meant(lambda: dtab_of(request.dtab), context)))

    async def ReadPath(self, request: pb.ReadPathReq, context: Any) -> pb.ReadPathRsp:
        return pb.ReadPathRsp(path=path_message(await _meant(lambda: read_path(request.text), context)))

    async def ShowPath(self, request: pb.ShowPathReq, context: Any) -> pb.ShowPathRsp:
        return pb.ShowPathRsp(text=str(await _meant(lambda: path_of(request.path), context)))


def _table(good: Revision) -> pb.DtabRsp:
    assert good.dtab is not None
    version = pb.VersionedDtab.Version(id=good.version)
    return pb.DtabRsp(dtab=pb.VersionedDtab(version=version, dtab=dtab_message(good.dtab)))


async def _values(live: Live[T], interface: MeshInterface) -> AsyncIterator[T]:
    interface.streams += 1
    try:
        async with live.watch() as values:
            async for value in values:
                yield value
    finally:
        interface.streams -= 1


async def _root(root: pb.Path, context: Any) -> str:
    """The namespace of a question."""
    if not root.elems:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "No namespace specified")
    path = await _meant(lambda: path_of(root), context)
    if len(path) != 1:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid root: `{path}` must have exactly one segment")
    namespace = path.texts[0]
    await _meant(lambda: check_namespace(namespace), context)
    return namespace


async def _meant(read: Callable[[], T], context: Any) -> T:
    """What a message says, or INVALID_ARGUMENT."""
    try:
        return read()
    except (NamingError, MeshError, RecursionError) as error:
        await _refuse(context, str(error) or "nested too deeply")


async def _refuse(context: Any, message: str) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
    raise AssertionError("abort raises")
