"""A namerd by its gRPC interface (`io.l5d.mesh`): all names and ids as streams of one connection."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from ..naming import EMPTY_DTAB, Alt, BindResult, Bound, BoundTree, Dtab, Empty, Fail, Failed, Leaf, Neg, Path, Pending
from ..naming import Union, Weighted
from ..namers.states import Address, Replicas, State, pairs
from .dtab_message import dtab_message
from .policies import ClientTls
from .remote import RemoteInterpreter
from .watched import Tell

if TYPE_CHECKING:
    from ..api import mesh_pb2 as mesh

# A connection that is dead is noticed within 15 s, whatever the network says of it (theirs had none: linkerd#2219).
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


# Of a namerd of ours: what an alternation would go on to, for the engine falls over by itself. Another sends the branch that won.
ALTERNATIVES = (("meshcore-alternatives", "true"),)
# And where the ids of a tree are, together with it.
ADDRESSES = (("meshcore-addresses", "true"),)


class MeshInterpreter(RemoteInterpreter):
    """The table `namespace` of the namerd at host:port."""

    options = _OPTIONS

    def __init__(
        self, host: str, port: int, namespace: str, base: Dtab = EMPTY_DTAB, *, tls: ClientTls | None = None
    ) -> None:
        super().__init__(f"namerd {host}:{port}", base)
        # gRPC resolves by itself, and not what only C libraries take for an address.
        try:
            host = socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            host = f"[{host}]" if ":" in host else host
        self._target = f"{host}:{port}"
        self._root = Path.of(namespace)
        self._tls = tls
        self._channel: Any = None

    async def watch_tree(self, path: Path, dtab: Dtab, tell: Tell[BindResult]) -> None:
        from ..api import mesh_pb2, mesh_pb2_grpc

        request = mesh_pb2.BindReq(
            root=mesh_pb2.Path(elems=self._root.elems), name=mesh_pb2.Path(elems=path.elems), dtab=dtab_message(dtab)
        )
        interpreter = mesh_pb2_grpc.InterpreterStub(self._connected())
        async for told in _stream(interpreter.StreamBoundTree(request, metadata=ALTERNATIVES + ADDRESSES)):
            # Held until whoever follows the name has read the tree, and follows them.
            learnt = [self.learn(Path(tuple(one.id.elems)), read_replicas(one.replicas)) for one in told.known] if told.known else ()
            tell(read_tree(told.tree))

    async def watch_addresses(self, id: Path, tell: Tell[State]) -> None:
        from ..api import mesh_pb2, mesh_pb2_grpc

        request = mesh_pb2.ReplicasReq(id=mesh_pb2.Path(elems=id.elems))
        async for told in _stream(mesh_pb2_grpc.ResolverStub(self._connected()).StreamReplicas(request)):
            tell(read_replicas(told))

    def _connected(self) -> Any:
        if self._channel is None:
            import grpc.aio

            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self._target, options=self.options)
            else:
                name = ("grpc.ssl_target_name_override", self._tls.common_name)
                self._channel = grpc.aio.secure_channel(self._target, _credentials(self._tls), options=(*self.options, name))
        return self._channel

    async def disconnect(self) -> None:
        if self._channel is not None:
            await self._channel.close()


async def _stream(call: Any) -> Any:
    import grpc.aio

    from .tree_json import NamerdError

    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise NamerdError(f"{error.code().name}: {error.details()}") from None


def _credentials(tls: ClientTls) -> Any:
    import grpc

    roots = b"\n".join(File(path).read_bytes() for path in tls.trust) or None
    cert = File(tls.cert).read_bytes() if tls.cert else None
    key = File(tls.key).read_bytes() if tls.key else None
    return grpc.ssl_channel_credentials(roots, key, cert)


def read_tree(message: mesh.BoundNameTree) -> BoundTree:
    kind = message.WhichOneof("node")
    if kind == "leaf":
        return Leaf(Bound(Path(tuple(message.leaf.id.elems)), Path(tuple(message.leaf.residual.elems))))
    if kind == "alt":
        return Alt(tuple(map(read_tree, message.alt.trees)))
    if kind == "union":
        return Union(tuple(Weighted(one.weight, read_tree(one.tree)) for one in message.union.trees))
    return {"fail": Fail(), "empty": Empty()}.get(kind or "", Neg())


def read_replicas(message: mesh.Replicas) -> State:
    kind = message.WhichOneof("result")
    if kind == "bound":
        return Replicas.of((_address(one) for one in message.bound.endpoints), _metadata(message.bound))
    if kind == "failed":
        return Failed(message.failed.message)
    return Neg() if kind == "neg" else Pending()


def _address(endpoint: mesh.Endpoint) -> Address:
    metadata = _metadata(endpoint)
    weight = float(metadata.pop("endpoint_addr_weight", 1.0))
    if endpoint.meta.nodeName:
        metadata["nodeName"] = endpoint.meta.nodeName
    host = str(ipaddress.ip_address(bytes(endpoint.address)))
    return Address(host, endpoint.port, weight, pairs(metadata))


def _metadata(message: Any) -> dict[str, str]:
    return dict(getattr(message, "metadata", {}))
