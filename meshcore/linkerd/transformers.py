"""Transformers: what becomes of the addresses of every bound name, say those of the proxies on their nodes."""

from __future__ import annotations

import os

from ..binder.transform import Transformer
from .place import Place
from .settings import Daemonset

KINDS = ("io.l5d.port", "io.l5d.localhost", "io.l5d.specificHost", "io.l5d.replace", "io.l5d.const",
         "io.l5d.k8s.daemonset", "io.l5d.k8s.localnode")  # fmt: skip
# What a pod is told of itself, by the downward API.
NODE_NAME, POD_IP = "NODE_NAME", "POD_IP"


def read_transformer(place: Place) -> Transformer | Daemonset | None:
    kind = place.word("kind", KINDS, "")
    found: Transformer | Daemonset | None = None
    if kind == "io.l5d.port":
        found = Transformer("port", port=place.whole("port", 0, 1, 65_535))
    elif kind == "io.l5d.localhost":
        found = Transformer("localhost")
    elif kind == "io.l5d.specificHost":
        found = Transformer("host", host=place.text("host"))
    elif kind == "io.l5d.k8s.daemonset":
        found = _daemonset(place)
    elif kind == "io.l5d.k8s.localnode":
        found = _localnode(place)
    elif kind:
        place.problem(f"{place.noun}: {kind} is not possible here", "an entry of the dtab renames as well", "kind")
        place.forget()
    place.end()
    return found


def _daemonset(place: Place) -> Daemonset:
    for key in ("namespace", "service", "port"):
        if not place.has(key):
            place.problem(f"{place.noun}: the key '{key}' is missing", "it names the service of the proxies' DaemonSet")
    place.flag("hostNetwork")
    port = place.raw("port")
    return Daemonset(
        namespace=place.text("namespace"),
        service=place.text("service"),
        port=str(port),
        host=place.text("k8sHost"),
        api_port=place.whole("k8sPort", 8001, 1, 65_535),
    )


def _localnode(place: Place) -> Transformer | None:
    """By the node's name where proxies share its network, else by the pod's address."""
    variable = NODE_NAME if place.flag("hostNetwork") else POD_IP
    here = os.environ.get(variable, "")
    if not here:
        hint = "set it from the downward API: fieldRef spec.nodeName, or status.podIP"
        place.problem(f"{place.noun}: which node is this? {variable} is not in the environment", hint)
        return None
    return Transformer("localnode", host=here)
