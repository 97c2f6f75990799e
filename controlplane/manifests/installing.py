"""The control plane's own manifests: namespace, account and its rights, roots, configuration, service, replicas. Reads no cluster.

Rights are what the code calls: TokenReview, and list and watch of three collections, in one namespace where it is told
one. Nothing runs as root, writes outside of its volumes or has a capability. Pages for machines stay on loopback, so
probes ask from inside.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from meshcore.errors import ConfigError, Problem

from ..spiffe import TRUST_DOMAIN_WHAT, is_trust_domain
from . import sidecar

NAME = "meshcore-control-plane"
AUTHORITY_SECRET = "meshcore-authority"
TRUST = "meshcore-trust"
PORT, PAGES_PORT = 8086, 9996
USER = 2103  # not the sidecars' 2102: their user's traffic is not intercepted
DATA = "/var/lib/meshcore/data"
CONFIGURATION = "/etc/meshcore"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "meshcore"}
SOURCE = "kubernetes"


class Install(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between installations."""

    trust_domain: str
    trust_bundle: str
    """PEM: what members trust."""
    image: str
    namespace: str = "meshcore"
    authority: tuple[tuple[str, bytes], ...] = ()
    """Files of the authority, to be printed as a Secret; none: the Secret is there already."""
    trust_in: tuple[str, ...] = ()
    """More namespaces that get the roots: those of members."""
    watch_namespace: str = ""
    """The one namespace whose services are followed; empty: all."""
    image_pull_policy: str = "IfNotPresent"
    replicas: int = 1
    etcd: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    roles: str = ""
    storage: str = "1Gi"
    storage_class: str = ""
    cpu_request: str = "100m"
    memory_request: str = "128Mi"
    memory_limit: str = "1Gi"


def manifests(install: Install) -> list[dict[str, Any]]:
    """In the order in which they can be applied. ConfigError for what could not run."""
    _check(install)
    made = [_namespace(install), _one(install, "v1", "ServiceAccount", automountServiceAccountToken=False)]
    made += _rights(install)
    made += [_roots(install, namespace) for namespace in dict.fromkeys((install.namespace, *install.trust_in))]
    made.append(_one(install, "v1", "ConfigMap", data=_configuration(install)))
    if install.authority:
        files = {name: base64.b64encode(data).decode() for name, data in install.authority}
        made.append(_one(install, "v1", "Secret", AUTHORITY_SECRET, type="Opaque", data=files))
    made += [_service(install), _network(install), _replicas(install)]
    if install.replicas > 1:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selected()}}
        made.append(_one(install, "policy/v1", "PodDisruptionBudget", spec=spec))
    return made


def _check(install: Install) -> None:
    problems = []
    if not is_trust_domain(install.trust_domain):
        problems.append(f"--trust-domain: got {install.trust_domain[:80]!r}; expected {TRUST_DOMAIN_WHAT}")
    if install.replicas > 1 and not install.etcd:
        problems.append(f"--replicas {install.replicas}: they must share an etcd; name it with --etcd")
    if "BEGIN CERTIFICATE" not in install.trust_bundle or "PRIVATE KEY" in install.trust_bundle:
        problems.append("--trust-bundle: expected certificates in PEM, and no key: everybody may read it")
    if problems:
        raise ConfigError([Problem(message=one) for one in problems])


def _one(install: Install, version: str, kind: str, name: str = NAME, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": install.namespace, "labels": dict(LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _selected() -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME}


def _namespace(install: Install) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "meshcore", "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": install.namespace, "labels": labels}}


def rules() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the account may do in the whole cluster, and in namespaces that are followed."""
    review = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    services = {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["list", "watch"]}
    slices = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    return [review], [services, slices]


def _rights(install: Install) -> list[dict[str, Any]]:
    everywhere, followed = rules()
    subject = [{"kind": "ServiceAccount", "name": NAME, "namespace": install.namespace}]
    above = f"{NAME}-{install.namespace}" if install.namespace != "meshcore" else NAME  # two meshes share a cluster
    metadata: dict[str, Any] = {"name": above, "labels": dict(LABELS)}
    group, version = "rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1"
    made: list[dict[str, Any]] = []

    def bound(scope: str, metadata: dict[str, Any], given: list[dict[str, Any]]) -> None:
        made.append({"apiVersion": version, "kind": f"{scope}Role", "metadata": metadata, "rules": given})
        role = {"apiGroup": group, "kind": f"{scope}Role", "name": metadata["name"]}
        made.append({"apiVersion": version, "kind": f"{scope}RoleBinding", "metadata": metadata, "roleRef": role, "subjects": subject})

    if install.watch_namespace:
        bound("Cluster", metadata, everywhere)
        bound("", {**metadata, "namespace": install.watch_namespace}, followed)
    else:
        bound("Cluster", metadata, everywhere + followed)
    return made


def _roots(install: Install, namespace: str) -> dict[str, Any]:
    made = _one(install, "v1", "ConfigMap", TRUST, data={"root.pem": install.trust_bundle})
    made["metadata"]["namespace"] = namespace
    return made


def _configuration(install: Install) -> dict[str, str]:
    where = f", namespace: {install.watch_namespace}" if install.watch_namespace else ""
    data = {"sources.yaml": f"- {{kind: {SOURCE}{where}}}\n"}
    return {**data, "roles.yaml": install.roles} if install.roles else data


def _service(install: Install) -> dict[str, Any]:
    # Members speak TLS to one replica each; what is in their way must not end it for them.
    port = {"name": "proxies", "port": PORT, "targetPort": "proxies", "appProtocol": "tls"}
    return _one(install, "v1", "Service", spec={"type": "ClusterIP", "selector": _selected(), "ports": [port]})


def _network(install: Install) -> dict[str, Any]:
    ingress = [{"ports": [{"protocol": "TCP", "port": PORT}]}]
    spec = {"podSelector": {"matchLabels": _selected()}, "policyTypes": ["Ingress"], "ingress": ingress}
    return _one(install, "networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def arguments(install: Install) -> list[str]:
    """The command line behind `meshctl`."""
    words = ["control-plane", "run", "--data", DATA, "--trust-domain", install.trust_domain, "--listen", f"0.0.0.0:{PORT}"]
    words += ["--metrics", f"127.0.0.1:{PAGES_PORT}", "--kubernetes", "in-cluster", "--cluster-domain", install.cluster_domain]
    words += ["--sources", f"{CONFIGURATION}/sources.yaml"]
    words += ["--roles", f"{CONFIGURATION}/roles.yaml"] if install.roles else []
    for url in install.etcd:
        words += ["--etcd", url]
    return words


def authority_arguments(install: Install) -> list[str]:
    """What brings the authority from its Secret to where the control plane keeps it, for its eyes only."""
    return ["authority", "import", "--trust-domain", install.trust_domain, "--from", "/var/run/meshcore/authority", "--out", f"{DATA}/authority"]


def _replicas(install: Install) -> dict[str, Any]:
    shared = {
        "image": install.image,
        "imagePullPolicy": install.image_pull_policy,
        "command": ["meshctl"],
        "securityContext": sidecar.security(USER),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    data = {"name": "data", "mountPath": "/var/lib/meshcore"}
    serving = {
        "name": "control-plane",
        **shared,
        "args": arguments(install),
        # For `kubectl exec … -- meshctl`.
        "env": [{"name": "MESHCTL_CONTROL_PLANE", "value": f"unix:{DATA}/admin.sock"}],
        "ports": [{"name": "proxies", "containerPort": PORT}],
        "startupProbe": sidecar.probe(PAGES_PORT, "/live", period_s=2, failures=60),
        "livenessProbe": sidecar.probe(PAGES_PORT, "/live", period_s=20, failures=3),
        "readinessProbe": sidecar.probe(PAGES_PORT, "/ready", period_s=10, failures=3),
        "resources": {
            "requests": {"cpu": install.cpu_request, "memory": install.memory_request},
            "limits": {"memory": install.memory_limit},
        },
        "volumeMounts": [
            data,
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "configuration", "mountPath": CONFIGURATION, "readOnly": True},
            {"name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
        ],
    }
    importing = {
        "name": "authority",
        **shared,
        "args": authority_arguments(install),
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [data, {"name": "authority", "mountPath": "/var/run/meshcore/authority", "readOnly": True}],
    }
    api = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3_607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    pod = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,  # ours is mounted below, where one container sees it
        "securityContext": {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch", "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 30,
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_apart()]}},
        "initContainers": [importing],
        "containers": [serving],
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "configuration", "configMap": {"name": NAME}},
            {"name": "authority", "secret": {"secretName": AUTHORITY_SECRET, "defaultMode": 0o440}},
            {"name": "api", "projected": {"sources": api}},
        ],
    }
    claim: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": install.storage}}}
    if install.storage_class:
        claim["storageClassName"] = install.storage_class
    spec = {
        "serviceName": NAME,
        "replicas": install.replicas,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": _selected()},
        "template": {"metadata": {"labels": dict(LABELS), "annotations": {"meshcore.io/inject": "disabled"}}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    return _one(install, "apps/v1", "StatefulSet", spec=spec)


def _apart() -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": _selected()}, "topologyKey": "kubernetes.io/hostname"}
    return {"weight": 100, "podAffinityTerm": term}
