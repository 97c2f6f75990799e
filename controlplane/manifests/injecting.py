"""Sidecars put into the manifests of a text, and taken out: which pods get one and why not, and what is changed for it.

Only what belongs to a sidecar changes; all else keeps its bytes. What had to be made to hold it (a `volumes` that was not
there, a null in its place) is noted in an annotation, so that taking it out gives back what was. That is not hoped for:
each text that leaves here was taken back first, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from meshcore.errors import ConfigError

from . import rendering, sidecar
from .edits import Text
from .nodes import Document, Node, documents
from .options import INJECT, INJECTED, Options, checked, overridden
from .pods import Resource, resources

OURS = frozenset({sidecar.PROXY, sidecar.INTERCEPT})
OUR_VOLUMES = frozenset({sidecar.STATE, sidecar.IDENTITY})
OTHERS = frozenset({"linkerd-proxy", "istio-proxy", "conduit-proxy", "consul-dataplane"})
SHARED = "an alias repeats this elsewhere, where a change would count too; write it out"


class Report(msgspec.Struct, frozen=True):
    """What was done with one object."""

    source: str
    kind: str
    namespace: str
    name: str
    done: str
    """injected, removed or skipped."""
    why: str = ""


def inject(text: str, options: Options, source: str) -> tuple[str, list[Report]]:
    """The text with sidecars, and what was done with each object. ConfigError, and nothing done, where it cannot be."""
    checked(options)
    edit, reports, done = Text(text, source), [], set()
    for number, (document, resource) in enumerate(_all(text, source)):
        why = _why_not(resource)
        if not why:
            _put_in(edit, document, resource, options)
            done.add(number)
        reports.append(_report(source, resource, "skipped" if why else "injected", why))
    if not done:
        return text, reports
    fresh = edit.changed()
    back, _ = _taken_out(fresh, source, done)
    if back != text:
        raise ConfigError(f"{source}: its form is one that would not be the same after uninject; nothing was injected")
    return fresh, reports


def uninject(text: str, source: str) -> tuple[str, list[Report]]:
    """The text without sidecars, and what was done with each object."""
    return _taken_out(text, source, None)


def _taken_out(text: str, source: str, only: Collection[int] | None) -> tuple[str, list[Report]]:
    edit, reports = Text(text, source), []
    for number, (_, resource) in enumerate(_all(text, source)):
        is_gone = (only is None or number in only) and bool(resource.path) and _take_out(edit, resource)
        why = "" if is_gone else "has no sidecar" if resource.path else _no_pods(resource)
        reports.append(_report(source, resource, "removed" if is_gone else "skipped", why))
    return edit.changed(), reports


def _all(text: str, source: str) -> list[tuple[Document, Resource]]:
    return [(document, one) for document in documents(text, source) for one in resources(document)]


def _report(source: str, resource: Resource, done: str, why: str) -> Report:
    return Report(source, resource.kind, resource.namespace, resource.name, done, why)


# -- whether ------------------------------------------------------------------------------------------------------------


def _no_pods(resource: Resource) -> str:
    return f"a {resource.kind} has no pods that a sidecar could stand in" if resource.kind else "no object of Kubernetes"


def _why_not(resource: Resource) -> str:
    if not resource.path:
        return _no_pods(resource)
    spec = resource.pod.get("spec")
    if spec is None or spec.kind != "mapping" or not spec.children("containers"):
        return "no containers"
    names = {one.string("name") for key in ("containers", "initContainers") for one in spec.children(key)}
    if names & OURS:
        return "has a sidecar already"
    if others := sorted(names & OTHERS):
        return f"has a sidecar of another mesh: {others[0]}"
    host_network = spec.get("hostNetwork")
    if host_network is not None and host_network.is_true:
        return "hostNetwork: the rules would be its machine's"
    system = spec.get("os")
    if system is not None and system.string("name") == "windows":
        return "runs on Windows"
    if _annotations(resource).get(INJECT) in ("disabled", "false"):
        return f"annotation {INJECT}: disabled"
    return ""


def _annotations(resource: Resource) -> dict[str, str]:
    metadata = resource.pod.get("metadata")
    found = metadata.get("annotations") if metadata is not None else None
    return {key.text: found.string(key.text) for key, _ in found.entries} if found is not None else {}


def _check_user(edit: Text, resource: Resource, options: Options) -> None:
    """What the proxy's user sends is not intercepted: an application of the same user would go past it unseen."""
    spec = resource.pod.get("spec")
    assert spec is not None
    for one in (spec, *spec.children("containers"), *spec.children("initContainers")):
        context = one.get("securityContext")
        user = context.get("runAsUser") if context is not None else None
        if user is not None and user.text == str(options.proxy_uid):
            raise edit.unusual(
                f"{resource.title}: runs as user {user.text}, the proxy's own, and would go past it; choose another --proxy-uid",
                user.start,
            )


# -- in -----------------------------------------------------------------------------------------------------------------


def _put_in(edit: Text, document: Document, resource: Resource, options: Options) -> None:
    options = overridden(options, _annotations(resource), f"{edit.source}: {resource.title}")
    _check_user(edit, resource, options)
    for _, node in resource.path:
        _check_own(edit, document, node)
    place = _Place(edit, document)
    record: dict[str, str] = {}
    label = {sidecar.LABEL: sidecar.LABEL_VALUE}
    metadata = resource.pod.entry("metadata")
    if metadata is None or metadata[1].is_null:
        place.put(resource.owner, resource.pod, {"metadata": {"labels": label, "annotations": record}})
    else:
        _check_own(edit, document, metadata[1])
        place.put(*metadata, {"labels": label, "annotations": record})
    found = resource.pod.entry("spec")
    if found is None:
        raise edit.unusual(f"{resource.title}: its spec comes by a merge (<<) from elsewhere; write it out", resource.pod.start)
    _check_own(edit, document, found[1])
    containers = found[1].entry("containers")
    dash = 0
    if containers is not None and containers[1].items and not containers[1].is_flow and containers[1].kind == "sequence":
        dash = max(0, edit.column(edit.dash_of(containers[1].items[0])) - edit.column(containers[0].start))
    words = {"initContainers": sidecar.containers(resource, options), "volumes": sidecar.volumes(options)}
    place.put(*found, words, dash=min(dash, 8))
    record[INJECTED] = " ".join(place.made)
    for change in place.waiting:
        change()


def _check_own(edit: Text, document: Document, node: Node) -> None:
    if node.kind == "alias" or document.is_shared(node):
        raise edit.unusual(SHARED, node.start)


class _Place:
    """What is to be put in, and what must be made for it. Nothing changes before all of it is known: it is noted, too."""

    def __init__(self, edit: Text, document: Document) -> None:
        self.made: list[str] = []
        self.waiting: list[Callable[[], None]] = []
        self._edit = edit
        self._document = document

    def put(self, owner: Node | None, mapping: Node, values: Mapping[str, Any], dash: int = 0) -> None:
        """Each of the values joins what stands under its key, or comes to be there."""
        fresh: dict[str, Any] = {}
        for key, value in values.items():
            found = mapping.entry(key)
            if found is None:
                if mapping.get(key) is not None:
                    raise self._edit.unusual(f"'{key}' comes by a merge (<<) from elsewhere; write it out", mapping.start)
                fresh[key] = value
                self.made.append(key)
            elif found[1].is_null or found[1].kind == "alias":
                self._in_place_of(key, found[1], value)
            else:
                self._join(found[0], found[1], value)
        if fresh:
            self.waiting.append(lambda: self._edit.add_entries(owner, mapping, fresh, dash))

    def _in_place_of(self, key: str, node: Node, value: Any) -> None:
        """A null becomes what we need; an alias of a mapping a mapping that begins with it."""
        literal = self._edit.text[node.start : node.end]
        if node.kind == "alias":
            if not isinstance(value, dict) or node.resolved().kind != "mapping":
                raise self._edit.unusual(SHARED, node.start)
            # With a blank behind the name: a comma or colon may be part of an anchor.
            lead = f"{{<<: {literal} , "
        else:
            lead = ""
        self.made.append(f"{key}={literal}")

        def change() -> None:
            inside = rendering.flow(value)
            fresh = lead + inside[1:] if lead else inside
            self._edit.replace(node.start, node.end, fresh if literal else " " + fresh)

        self.waiting.append(change)

    def _join(self, owner: Node, node: Node, value: Any) -> None:
        wanted = "mapping" if isinstance(value, dict) else "sequence"
        if node.kind != wanted:
            raise self._edit.unusual(f"'{owner.text}' is no {wanted}", node.start)
        _check_own(self._edit, self._document, node)
        if isinstance(value, dict):
            self.waiting.append(lambda: self._edit.add_entries(owner, node, value))
        else:
            self.waiting.append(lambda: self._edit.add_items(owner, node, value))


# -- out ----------------------------------------------------------------------------------------------------------------


def _take_out(edit: Text, resource: Resource) -> bool:
    """Takes a sidecar out; False when there is none."""
    spec, metadata = resource.pod.get("spec"), resource.pod.get("metadata")
    record = _annotations(resource).get(INJECTED)
    names = {one.string("name") for key in ("containers", "initContainers") for one in (spec.children(key) if spec else ())}
    if record is None and not names & OURS:
        return False
    made = {key: (literal if is_literal else None) for key, is_literal, literal in (word.partition("=") for word in (record or "").split(" "))}
    if spec is not None:
        gone = {key for key in ("initContainers", "containers") if _drop_items(edit, spec, key, OURS, made)}
        gone |= {"volumes"} if _drop_items(edit, spec, "volumes", OUR_VOLUMES, made) else set()
        edit.drop_entries(spec, gone)
    if metadata is not None:
        if "metadata" in made and _is_only_ours(metadata):
            literal = made["metadata"]
            if literal is None:
                edit.drop_entries(resource.pod.resolved(), {"metadata"})
            else:
                edit.put_back(metadata, literal)
            return True
        gone = {key for key, own in (("labels", sidecar.LABEL), ("annotations", INJECTED)) if _drop_key(edit, metadata, key, own, made)}
        edit.drop_entries(metadata, gone)
    return True


def _is_only_ours(metadata: Node) -> bool:
    keys = {key.text for key, _ in metadata.entries}
    inner = {key.text for _, value in metadata.entries for key, _ in value.entries}
    return keys <= {"labels", "annotations"} and inner <= {sidecar.LABEL, INJECTED}


def _drop_items(edit: Text, spec: Node, key: str, names: Collection[str], made: Mapping[str, str | None]) -> bool:
    """Takes items of these names out of a sequence; True when the whole entry should go."""
    found = spec.entry(key)
    if found is None:
        return False
    sequence = found[1].resolved()
    gone = {number for number, one in enumerate(sequence.items) if one.resolved().string("name") in names}
    if not gone:
        return False
    if len(gone) == len(sequence.items):
        literal = made.get(key)
        if literal is not None and sequence.is_flow:
            edit.put_back(sequence, literal)
            return False
        if key in made or not sequence.is_flow:
            return True
    edit.drop_items(sequence, gone)
    return False


def _drop_key(edit: Text, metadata: Node, key: str, own: str, made: Mapping[str, str | None]) -> bool:
    """Takes an entry out of a mapping of metadata; True when the whole mapping should go."""
    found = metadata.entry(key)
    mapping = found[1].resolved() if found is not None else None
    if mapping is None or mapping.entry(own) is None:
        return False
    rest = {name.text for name, _ in mapping.entries} - {own}
    literal = made.get(key)
    if literal is not None and mapping.is_flow and rest == ({"<<"} if literal.startswith("*") else set()):
        edit.put_back(mapping, literal)
        return False
    if not rest and (key in made or not mapping.is_flow):
        return True
    edit.drop_entries(mapping, {own})
    return False
