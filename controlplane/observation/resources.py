"""What operators name: `deploy/web`, `ns/shop`, `po/web-1`. Owns the kinds and what belongs to one; fetches nothing.

A kind is a label: members of the mesh carry it, as endpoints do in what proxies are told of them. So one rule chooses
proxies to tap, sources and destinations, and rows of a table. Kinds and their short names are those of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import Invalid
from ..model import names

DEFAULT_NAMESPACE = "default"
# Short name -> label. The first of each label is how it is shown.
KINDS = {
    "deploy": "deployment", "deployment": "deployment", "deployments": "deployment",
    "po": "pod", "pod": "pod", "pods": "pod",
    "ns": "namespace", "namespace": "namespace", "namespaces": "namespace",
    "wl": "workload", "workload": "workload", "workloads": "workload",
    "sts": "statefulset", "statefulset": "statefulset", "statefulsets": "statefulset",
    "ds": "daemonset", "daemonset": "daemonset", "daemonsets": "daemonset",
    "rs": "replicaset", "replicaset": "replicaset", "replicasets": "replicaset",
    "rc": "replicationcontroller", "replicationcontroller": "replicationcontroller",
    "job": "job", "jobs": "job",
    "sa": "serviceaccount", "serviceaccount": "serviceaccount", "serviceaccounts": "serviceaccount",
    "svc": "service", "service": "service", "services": "service",
    "au": "authority", "authority": "authority", "authorities": "authority",
}  # fmt: skip
SHORT = {label: short for short, label in reversed(KINDS.items())}
# A service is what clients call: it runs no proxy of its own.
NOT_RUNNING = frozenset({"service", "authority"})


class Resource(msgspec.Struct, frozen=True):
    """A kind (as a label), perhaps a name and a namespace. Empty means any."""

    label: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        text = SHORT.get(self.label, self.label) + (f"/{self.name}" if self.name else "")
        return f"{text} in {self.namespace}" if self.namespace and self.label != "namespace" else text

    def conditions(self) -> dict[str, str]:
        """The labels, and their values, of what belongs to it."""
        wanted = {self.label: self.name, "namespace": self.namespace} if self.label != "namespace" else {"namespace": self.name}
        return {label: value for label, value in wanted.items() if value}

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether something with these labels belongs to it."""
        return bool(labels.get(self.label)) and all(labels.get(label) == value for label, value in self.conditions().items())


def parse_resource(words: str | tuple[str, ...], namespace: str = "") -> Resource:
    """`deploy/web`, `deploy web`, `deploy`, `ns/shop`. Invalid for anything else, with what was expected."""
    text = words if isinstance(words, str) else "/".join(words)
    kind, slash, name = text.partition("/")
    if kind not in KINDS:
        shown = ", ".join(sorted(set(SHORT.values())))
        raise Invalid(f"unsupported resource type [{kind[:80]}]; expected one of: {shown}", ())
    label = KINDS[kind]
    if "/" in name or (slash and not name) or not (name == "" or names.is_name(name) or label == "authority"):
        raise Invalid(f"{text[:200]!r} names no resource; expected {kind}/NAME", ())
    if namespace and not names.is_label(namespace):
        raise Invalid(f"{namespace[:80]!r} is no namespace; expected {names.LABEL_WHAT}", ())
    if label == "namespace" and not name:
        name = namespace
    return Resource(label, name, "" if label == "namespace" else namespace)


def member_labels(namespace: str, workload: str, account: str, labels: Mapping[str, str], zone: str = "") -> dict[str, str]:
    """All labels by which a workload can be named. Its own come first; what it is cannot be overridden."""
    known = {str(key): value for key, value in labels.items() if value}
    # Workloads outside Kubernetes belong to no deployment: they are their own, or what `app` says.
    known.setdefault("deployment", known.get("app", workload))
    known.setdefault("pod", workload)
    if zone:
        known["zone"] = zone
    return known | {"namespace": namespace, "workload": workload, "serviceaccount": account}
