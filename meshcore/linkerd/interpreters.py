"""Interpreters: who binds the names of a router, and the transformers that change what they are bound to."""

from __future__ import annotations

from msgspec.structs import replace

from ..binder.transform import Transformer
from ..config.values import shown
from ..naming import NamingError, read_path
from .clients import read_tls
from .place import Place
from .settings import Daemonset, Interpreter
from .transformers import read_transformer

KINDS = ("default", "io.l5d.fs", "io.l5d.namerd", "io.l5d.namerd.http", "io.l5d.mesh",
         "io.l5d.k8s.configMap", "io.l5d.consul.interpreter", "io.l5d.istio")  # fmt: skip
_RECONNECTS = "a namerd that is away is asked again with growing pauses of its own"


def read_interpreter(router: Place) -> Interpreter:
    if not router.has("interpreter"):
        return Interpreter()
    place = router.section("interpreter", f"interpreter of {router.noun}")
    kind = place.word("kind", KINDS, "default")
    place.flag("experimental")
    transformers: list[Transformer] = []
    daemonset = None
    for one in place.sections("transformers", f"transformer of {place.noun}"):
        changes = read_transformer(one)
        if isinstance(changes, Daemonset):
            daemonset = changes
            if transformers:
                one.problem(f"{one.noun}: io.l5d.k8s.daemonset stands first", "put it before the others")
        elif changes is not None:
            transformers.append(changes)
    found = _interpreter(place, kind)
    place.end()
    return replace(found, transformers=tuple(transformers), daemonset=daemonset)


def _interpreter(place: Place, kind: str) -> Interpreter:
    found = Interpreter()
    if kind == "io.l5d.fs":
        found = Interpreter(kind="fs", dtab_file=place.text("dtabFile"))
        if not found.dtab_file:
            place.problem(f"{place.noun}: the key 'dtabFile' is missing", "it is the path of a dtab")
    elif kind == "io.l5d.namerd":
        hint = "namerd serves the same at io.l5d.mesh (4321) and io.l5d.namerd.http (4180): name one of them"
        place.problem(f"{place.noun}: Thrift is not spoken here", hint, "kind")
        place.forget()
    elif kind in ("io.l5d.namerd.http", "io.l5d.mesh"):
        found = _namerd(place, kind)
    elif kind != "default":
        hint = "io.l5d.mesh, io.l5d.namerd.http and io.l5d.fs watch tables that change"
        place.problem(f"{place.noun}: {kind} is not possible here", hint, "kind")
        place.forget()
    return found


def _namerd(place: Place, kind: str) -> Interpreter:
    host, port = _address(place)
    place.meaningless(_RECONNECTS, "retry")
    tls = read_tls(place.section("tls")) if place.has("tls") else None
    if kind == "io.l5d.namerd.http":
        namespace = place.text("namespace", "default")
        return Interpreter("http", host, port, namespace, tls=tls)
    root = place.text("root", "/default")
    namespace = root.removeprefix("/")
    if not root.startswith("/") or "/" in namespace or not namespace:
        place.problem(f"{place.noun}: a root has exactly one segment, got {shown(root)}", "write /default", "root")
    return Interpreter("mesh", host, port, namespace, tls=tls)


def _address(place: Place) -> tuple[str, int]:
    """Of `/$/inet/host/port`."""
    text = place.text("dst")
    hint = "write dst: /$/inet/namerd.example/4321"
    try:
        elements = read_path(text).texts if text else ()
    except NamingError as error:
        place.problem(f"'dst' of {place.noun}: {error}", hint, "dst")
        return "", 0
    if len(elements) == 4 and elements[:2] == ("$", "inet") and elements[3].isdigit():
        return elements[2], int(elements[3])
    place.problem(f"{place.noun}: where is namerd? dst is {shown(text or None)}", hint, "dst" if text else None)
    return "", 0
