"""Which documents have pods, and where in them: the kinds of Kubernetes that start pods, and lists of them. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from .nodes import Document, Node

# kind: API groups, path to what has the pod's metadata and spec, the kind as `meshproxy sidecar --workload` names it.
KINDS: dict[str, tuple[frozenset[str], tuple[str, ...], str]] = {
    "Deployment": (frozenset({"apps", "extensions"}), ("spec", "template"), "deploy"),
    "DaemonSet": (frozenset({"apps", "extensions"}), ("spec", "template"), "ds"),
    "ReplicaSet": (frozenset({"apps", "extensions"}), ("spec", "template"), "rs"),
    "StatefulSet": (frozenset({"apps"}), ("spec", "template"), "sts"),
    "ReplicationController": (frozenset({""}), ("spec", "template"), "rc"),
    "Job": (frozenset({"batch"}), ("spec", "template"), "job"),
    "CronJob": (frozenset({"batch"}), ("spec", "jobTemplate", "spec", "template"), "job"),
    "Pod": (frozenset({""}), (), "po"),
}
MAX_LISTS = 16  # lists in lists
MAX_NAME = 63


class Resource(msgspec.Struct, frozen=True):
    """One object of a text."""

    kind: str
    name: str
    namespace: str
    node: Node
    path: tuple[tuple[Node | None, Node], ...] = ()
    """Key and value of each step down to what has the pod's metadata and spec; empty when it has no pods."""
    word: str = ""

    @property
    def title(self) -> str:
        """`deployment/web`."""
        return f"{(self.kind or 'object').lower()}/{self.name or '(no name)'}"

    @property
    def owner(self) -> Node | None:
        """The key whose value `pod` is; None where that is the object itself."""
        return self.path[-1][0]

    @property
    def pod(self) -> Node:
        """The mapping with the pod's metadata and spec."""
        return self.path[-1][1]

    @property
    def workload(self) -> str:
        """Its name as a workload's: one label of DNS. Empty where each pod gets a name of its own."""
        return re.sub(r"[^a-z0-9-]", "-", self.name.lower())[:MAX_NAME].strip("-")


def resources(document: Document) -> Iterator[Resource]:
    """Every object of a document, those of lists each."""
    if document.root is not None:
        yield from _of(document.root, 0)


def _of(node: Node, depth: int) -> Iterator[Resource]:
    here = node.resolved()
    if here.kind != "mapping":
        if not here.is_null:
            yield Resource("", "", "", here)
        return
    kind, version = here.string("kind"), here.string("apiVersion")
    if kind == "List" and version == "v1" and depth < MAX_LISTS:
        items = here.get("items")
        for one in items.items if items is not None else []:
            yield from _of(one, depth + 1)
        return
    metadata = here.get("metadata")
    name, generated, namespace = (metadata.string(key) if metadata is not None else "" for key in ("name", "generateName", "namespace"))
    made = KINDS.get(kind)
    path: list[tuple[Node | None, Node]] = [(None, node)]
    if made is None or (version.rpartition("/")[0] if "/" in version else "") not in made[0]:
        yield Resource(kind, name or generated, namespace, here)
        return
    for step in made[1]:
        found = path[-1][1].resolved().entry(step)
        if found is None or found[1].resolved().kind != "mapping":
            yield Resource(kind, name or generated, namespace, here)
            return
        path.append(found)
    word = made[2]
    yield Resource(kind, name or generated.rstrip("-"), namespace, here, tuple(path), word)
