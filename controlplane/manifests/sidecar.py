"""What stands in a pod for its sidecar: two containers, two volumes, a label. Plain values; decides on no pod.

The proxy is a sidecar container of Kubernetes (an init container that goes on, from 1.29): it runs before the application's
own init containers and ends behind the application, and a Job with it can end. Before it the rules are put in place that
bring connections to it; that container alone has a capability, NET_ADMIN in the pod's own network.
"""

from __future__ import annotations

from typing import Any

from .options import Options
from .pods import Resource

PROXY, INTERCEPT = "meshcore-proxy", "meshcore-intercept"
STATE, IDENTITY = "meshcore-state", "meshcore-identity"
LABEL, LABEL_VALUE = "meshcore.io/proxy", "sidecar"
AUDIENCE = "meshcore"
TOKEN_S = 3_600
FOLDER = "/var/run/meshcore"
READY = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}{path}', timeout=3)"


def volumes(options: Options) -> list[dict[str, Any]]:
    """What the proxy keeps, in memory; its token and the mesh's roots."""
    token = {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": TOKEN_S, "path": "token"}}
    roots = {"configMap": {"name": options.trust_config_map, "items": [{"key": "root.pem", "path": "root.pem"}]}}
    return [
        {"name": STATE, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": IDENTITY, "projected": {"sources": [token, roots]}},
    ]


def containers(resource: Resource, options: Options) -> list[dict[str, Any]]:
    """The rules, then the proxy."""
    rules = ["intercept", "--apply", "--tool", "nft", "--proxy-uid", str(options.proxy_uid)]
    rules += ["--inbound-port", str(options.inbound_port), "--outbound-port", str(options.outbound_port)]
    for flag, given in (
        ("--skip-inbound-ports", options.skip_inbound_ports),
        ("--skip-outbound-ports", options.skip_outbound_ports),
        ("--skip-subnets", options.skip_subnets),
    ):
        rules += [flag, given] if given else []
    above = {"image": options.image, "imagePullPolicy": options.image_pull_policy}
    intercept = {
        "name": INTERCEPT,
        **above,
        "command": ["meshproxy"],
        "args": rules,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {**security(0), "runAsNonRoot": False, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    limits = {key: given for key, given in (("cpu", options.cpu_limit), ("memory", options.memory_limit)) if given}
    requests = {key: given for key, given in (("cpu", options.cpu_request), ("memory", options.memory_request)) if given}
    proxy = {
        "name": PROXY,
        **above,
        "restartPolicy": "Always",
        "command": ["meshproxy"],
        "args": arguments(resource, options),
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            _field("POD_ACCOUNT", "spec.serviceAccountName"),
            _field("NODE_NAME", "spec.nodeName"),
        ],
        "ports": [{"name": "meshcore-in", "containerPort": options.inbound_port}],
        # The application begins when the proxy is ready, and is asked for only while it is.
        "startupProbe": probe(4191, "/ready", period_s=1, failures=120),
        "readinessProbe": probe(4191, "/ready", period_s=10, failures=3),
        "resources": {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})},
        "securityContext": security(options.proxy_uid),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": STATE, "mountPath": f"{FOLDER}/state"},
            {"name": IDENTITY, "mountPath": f"{FOLDER}/identity", "readOnly": True},
        ],
    }
    return [intercept, proxy]


def arguments(resource: Resource, options: Options) -> list[str]:
    """The command line behind `meshproxy`. `$(…)` is Kubernetes' own, from the environment of the container."""
    words = ["sidecar", "--control-plane", options.control_plane]
    words += ["--workload", f"$(POD_NAMESPACE)/{resource.word}/{resource.workload or '$(POD_NAME)'}", "--account", "$(POD_ACCOUNT)"]
    words += ["--trust-bundle", f"{FOLDER}/identity/root.pem", "--join-token", f"{FOLDER}/identity/token"]
    words += ["--state-dir", f"{FOLDER}/state/own", "--interception", "redirect"]
    words += ["--inbound", f":{options.inbound_port}", "--outbound", f"127.0.0.1:{options.outbound_port}"]
    words += ["--label", "pod=$(POD_NAME)", "--node", "$(NODE_NAME)", "--drain", options.drain]
    words += ["--workers", str(options.workers)] if options.workers > 1 else []
    words += ["--opaque-ports", options.opaque_ports] if options.opaque_ports else []
    words += ["--require-mtls"] if options.require_mtls else []
    return words


def security(user: int) -> dict[str, Any]:
    """Nothing that is not needed."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": user,
        "runAsNonRoot": True,
        "runAsUser": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def probe(port: int, path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    """Asked from inside: these pages are served on loopback only."""
    asked = {"command": ["python3", "-c", READY.format(port=port, path=path)]}
    return {"exec": asked, "timeoutSeconds": 5, "periodSeconds": period_s, "failureThreshold": failures}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
