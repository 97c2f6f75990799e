"""Identifiers of a router: the one way in which its requests get their names."""

from __future__ import annotations

from .place import Place
from .settings import Identifier

HTTP = ("io.l5d.header.token", "io.l5d.methodAndHost", "io.l5d.path", "io.l5d.header", "io.l5d.static",
        "io.l5d.ingress", "io.l5d.k8s.istio")  # fmt: skip
H2 = ("io.l5d.header.token", "io.l5d.header.path", "io.l5d.ingress", "io.l5d.k8s.istio")
DEFAULT = Identifier()


def read_identifier(router: Place, protocol: str) -> Identifier:
    found = [
        _one(place, protocol) for place in router.sections("identifier", f"identifier of {router.noun}", one_is_enough=True)
    ]
    if len(found) > 1:
        hint = "keep the one that names your requests; those it does not know are answered 400"
        router.problem(f"{router.noun}: several identifiers, one after the other, are not possible here", hint, "identifier")
    return found[0] if found else DEFAULT


def _one(place: Place, protocol: str) -> Identifier:
    kind = place.word("kind", HTTP if protocol == "http" else H2, "")
    found = DEFAULT
    if kind == "io.l5d.header.token":
        header = place.text("header", "Host").lower()
        found = Identifier(by="header_token", header=None if header in ("host", ":authority") else header)
    elif kind == "io.l5d.methodAndHost":
        if place.flag("httpUriInDst"):
            hint = "io.l5d.path names requests by path"
            place.problem(f"{place.noun}: names with the whole path are not possible here", hint, "httpUriInDst")
        found = Identifier(by="method_and_host")
    elif kind == "io.l5d.path":
        found = Identifier(by="path", segments=place.whole("segments", 1, 1, 64), consume=place.flag("consume"))
    elif kind == "io.l5d.header":
        found = Identifier(by="header", header=place.text("header", "l5d-name").lower())
    elif kind == "io.l5d.static":
        found = Identifier(by="constant", name=place.text("path"))
        if not found.name:
            place.problem(f"{place.noun}: the key 'path' is missing", "it is the name of every request, as /web")
        elif not found.name.startswith("/"):
            found = Identifier(by="constant", name=f"/{found.name}")
    elif kind == "io.l5d.header.path":
        found = _header_path(place)
    elif kind:
        place.problem(f"{place.noun}: {kind} asks Kubernetes for rules, which is not possible here", "", "kind")
        return DEFAULT
    place.end()
    return found


def _header_path(place: Place) -> Identifier:
    header = place.text("header", ":path").lower()
    segments = place.whole("segments", 0, 0, 64)
    if header != ":path":
        place.meaningless("all of the header is the name", "segments")
        return Identifier(by="header", header=header)
    if not segments:
        hint = "say segments: 1 for a name per gRPC service, 2 for one per method"
        place.problem(f"{place.noun}: how much of the path is the name?", hint, "kind")
    return Identifier(by="path", segments=segments or 1)
