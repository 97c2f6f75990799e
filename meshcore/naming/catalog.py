"""Where catalogues cut a name: how much of the path a namer of Linkerd takes into the id, and what is left. Pure.

Source: linkerd namer docs with K8sNamerTest, ConsulNamerTest, ServersetNamerTest, AppIdNamerTest. `known` is what the
catalogue holds at the moment; a watcher of the real one passes it in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from .answers import Bound
from .namers import Namer, binds
from .path import Path
from .tree import Leaf, NameTree, Neg

_NEG: NameTree[Bound] = Neg()


def _bound(prefix: Path, rest: Path, count: int) -> NameTree[Bound]:
    return Leaf(Bound(prefix + rest.take(count), rest.drop(count)))


def kubernetes(prefix: Path, *, has_namespace: bool = True, has_label: bool = False) -> Namer:
    """`/ns/port/svc[/label]`; `io.l5d.k8s.ns` has its namespace in the configuration."""
    return binds(prefix, 2 + has_namespace + has_label)


def consul(prefix: Path, *, has_tag: bool = False, knows: Callable[[Path], bool] = lambda key: True) -> Namer:
    """`/dc[/tag]/service`, in lower case. `knows` is asked for `/dc[/tag]/service`."""
    count = 3 if has_tag else 2

    def namer(rest: Path) -> NameTree[Bound]:
        if len(rest) < count:
            return _NEG
        key = Path(tuple(elem.lower() for elem in rest.elems[:count]))
        return Leaf(Bound(prefix + key, rest.drop(count))) if knows(key) else _NEG

    return namer


def longest_known(prefix: Path, known: Collection[Path]) -> Namer:
    """ServerSets in ZooKeeper: the longest path that exists. `/foo:http#3` is endpoint http, shard 3, of set `/foo`."""

    def namer(rest: Path) -> NameTree[Bound]:
        for count in range(len(rest), -1, -1):
            if rest.take(count) in known or _set_of(rest.take(count)) in known:
                return _bound(prefix, rest, count)
        return _NEG

    return namer


def _set_of(path: Path) -> Path:
    """The path of a server set, without endpoint and shard."""
    if not path or not (name := re.split(b"[:#]", path.elems[-1], maxsplit=1)[0]):
        return path
    return Path((*path.elems[:-1], name))


def shortest_known(prefix: Path, known: Collection[Path]) -> Namer:
    """Marathon: the shortest app id that exists, in lower case."""

    def namer(rest: Path) -> NameTree[Bound]:
        for count in range(1, len(rest) + 1):
            app = Path(tuple(elem.lower() for elem in rest.elems[:count]))
            if app in known:
                return Leaf(Bound(prefix + app, rest.drop(count)))
        return _NEG

    return namer
