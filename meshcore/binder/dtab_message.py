"""A dtab as a message of `io.linkerd.mesh`, with weights as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..naming import ANY, Alt, Dtab, Empty, Fail, Leaf, NameTree, Path, Prefix, Union

if TYPE_CHECKING:
    from ..api import mesh_pb2 as mesh


def dtab_message(dtab: Dtab) -> mesh.Dtab:
    from ..api import mesh_pb2

    dentries = (mesh_pb2.Dtab.Dentry(prefix=_prefix(one.prefix), dst=_tree(one.dst)) for one in dtab.entries)
    return mesh_pb2.Dtab(dentries=dentries)


def _prefix(prefix: Prefix) -> mesh.Dtab.Dentry.Prefix:
    from ..api import mesh_pb2

    made = mesh_pb2.Dtab.Dentry.Prefix
    return made(
        elems=[
            made.Elem(wildcard=made.Elem.Wildcard()) if elem is ANY else made.Elem(label=elem) for elem in prefix.elems
        ]
    )


def _tree(tree: NameTree[Path]) -> mesh.PathNameTree:
    from ..api import mesh_pb2

    made = mesh_pb2.PathNameTree
    if isinstance(tree, Leaf):
        return made(leaf=made.Leaf(id=mesh_pb2.Path(elems=tree.value.elems)))
    if isinstance(tree, Alt):
        return made(alt=made.Alt(trees=map(_tree, tree.trees)))
    if isinstance(tree, Union):
        weighted = (made.Union.Weighted(weight=one.weight, tree=_tree(one.tree)) for one in tree.branches)
        return made(union=made.Union(trees=weighted))
    return made(nop=made.FAIL if isinstance(tree, Fail) else made.EMPTY if isinstance(tree, Empty) else made.NEG)
