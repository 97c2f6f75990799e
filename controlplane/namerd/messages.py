"""Between values of naming and messages of the mesh interface. Total: what a message cannot mean raises NamingError."""

from __future__ import annotations

import ipaddress
from typing import Any

from meshcore.api import mesh_pb2 as pb
from meshcore.binder.dtab_message import dtab_message
from meshcore.namers import Replicas, State
from meshcore.naming import (
    ANY,
    Alt,
    BoundTree,
    Delegation,
    Dentry,
    Dtab,
    Empty,
    Fail,
    Failed,
    Leaf,
    NameTree,
    NamingError,
    Neg,
    Path,
    Prefix,
    Union,
    Weighted,
)

DEEPEST = 100
"""Trees in trees: protobuf itself ends at about as many."""


def path_of(message: pb.Path) -> Path:
    return Path(tuple(message.elems))


def path_message(path: Path) -> pb.Path:
    return pb.Path(elems=path.elems)


def tree_of(message: pb.PathNameTree, depth: int = 0) -> NameTree[Path]:
    if depth > DEEPEST:
        raise NamingError(f"a name tree of more than {DEEPEST} levels")
    kind = message.WhichOneof("node")
    if kind == "leaf":
        return Leaf(path_of(message.leaf.id))
    if kind == "alt":
        return Alt(tuple(tree_of(one, depth + 1) for one in message.alt.trees))
    if kind == "union":
        return Union(tuple(Weighted(one.weight, tree_of(one.tree, depth + 1)) for one in message.union.trees))
    if kind == "nop" and message.nop == pb.PathNameTree.FAIL:
        return Fail()
    if kind == "nop" and message.nop == pb.PathNameTree.EMPTY:
        return Empty()
    return Neg()


def dtab_of(message: pb.Dtab) -> Dtab:
    return Dtab(tuple(Dentry(_prefix_of(one.prefix), tree_of(one.dst)) for one in message.dentries))


def _prefix_of(message: pb.Dtab.Dentry.Prefix) -> Prefix:
    return Prefix(tuple(ANY if one.WhichOneof("value") == "wildcard" else one.label for one in message.elems))


def dentry_message(dentry: Dentry) -> pb.Dtab.Dentry:
    return dtab_message(Dtab((dentry,))).dentries[0]


def bound_message(tree: BoundTree) -> pb.BoundNameTree:
    if isinstance(tree, Leaf):
        bound = tree.value
        leaf = pb.BoundNameTree.Leaf(id=path_message(bound.id), residual=path_message(bound.residual))
        return pb.BoundNameTree(leaf=leaf)
    if isinstance(tree, Alt):
        return pb.BoundNameTree(alt=pb.BoundNameTree.Alt(trees=map(bound_message, tree.trees)))
    if isinstance(tree, Union):
        weighted = [
            pb.BoundNameTree.Union.Weighted(weight=one.weight, tree=bound_message(one.tree)) for one in tree.branches
        ]
        return pb.BoundNameTree(union=pb.BoundNameTree.Union(trees=weighted))
    if isinstance(tree, Fail):
        return pb.BoundNameTree(fail=pb.BoundNameTree.Fail())
    if isinstance(tree, Empty):
        return pb.BoundNameTree(empty=pb.BoundNameTree.Empty())
    return pb.BoundNameTree(neg=pb.BoundNameTree.Neg())


def replicas_message(state: State) -> pb.Replicas:
    if isinstance(state, Replicas):
        endpoints = []
        for one in state.addresses:
            try:
                address = ipaddress.ip_address(one.host)
            except ValueError:
                continue
            metadata = dict(one.metadata)
            if one.weight != 1.0:
                metadata["endpoint_addr_weight"] = repr(one.weight)
            endpoints.append(
                pb.Endpoint(
                    inet_af=pb.Endpoint.INET4 if address.version == 4 else pb.Endpoint.INET6,
                    address=address.packed,
                    port=one.port,
                    meta=pb.Endpoint.Meta(nodeName=metadata.get("nodeName", "")),
                    metadata=metadata,
                )
            )
        return pb.Replicas(bound=pb.Replicas.Bound(endpoints=endpoints, metadata=dict(state.metadata)))
    if isinstance(state, Failed):
        return pb.Replicas(failed=pb.Replicas.Failed(message=state.message))
    if isinstance(state, Neg):
        return pb.Replicas(neg=pb.Replicas.Neg())
    return pb.Replicas(pending=pb.Replicas.Pending())


def delegation_message(node: Delegation) -> pb.BoundDelegateTree:
    kinds: Any = pb.BoundDelegateTree
    told = kinds(path=path_message(node.path))
    if node.dentry is not None:
        told.dentry.CopyFrom(dentry_message(node.dentry))
    children = [delegation_message(child) for child in node.children]
    if node.kind == "leaf" and node.bound is not None:
        told.leaf.CopyFrom(kinds.Leaf(id=path_message(node.bound.id), residual=path_message(node.bound.residual)))
    elif node.kind == "delegate":
        told.delegate.CopyFrom(children[0])
    elif node.kind == "alt":
        told.alt.CopyFrom(kinds.Alt(trees=children))
    elif node.kind == "union":
        weighted = [kinds.Union.Weighted(weight=weight, tree=tree) for weight, tree in zip(node.weights, children, strict=True)]
        told.union.CopyFrom(kinds.Union(trees=weighted))
    elif node.kind == "exception":
        told.exception = node.message
    else:
        getattr(told, node.kind).SetInParent()
    return told
