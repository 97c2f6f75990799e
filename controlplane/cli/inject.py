"""`meshctl inject`: sidecars into manifests of Kubernetes. Reads and writes text; asks no cluster."""

from __future__ import annotations

from typing import Any

import click

from controlplane.manifests import injecting
from controlplane.manifests.options import FIELDS, INJECT, PREFIX, Options, flag_of

from .manifest_files import each_changed
from .version import package_version

EPILOG = f"""
\b
Examples:
  meshctl inject deployment.yaml | kubectl apply -f -
  kubectl get -n shop deploy -o yaml | meshctl inject - | kubectl apply -f -
  meshctl inject --skip-outbound-ports 3306 manifests/

\b
Pods of Deployments, DaemonSets, StatefulSets, ReplicaSets, ReplicationControllers, Jobs, CronJobs, alone and in Lists.
Everything else passes as it is, byte for byte; what was done is told on stderr. Injecting twice is injecting once.
Each flag is an annotation of a pod, too, which counts more: {PREFIX}skip-outbound-ports: "3306"; {INJECT}: disabled
leaves a pod alone. Pods need Kubernetes 1.29, and a ConfigMap with the roots in their namespace (meshctl install --trust-in).
"""

HELP = {
    "image": "What proxies run from.  [default: meshcore:VERSION]",
    "image_pull_policy": "When it is fetched: Always, IfNotPresent, Never.",
    "control_plane": "Where it is: HOST:PORT.",
    "trust_config_map": "ConfigMap with the roots of the mesh as root.pem.",
    "proxy_uid": "User of the proxy; no application's.",
    "inbound_port": "Where the proxy takes inbound connections.",
    "outbound_port": "Where it takes outbound ones.",
    "skip_inbound_ports": "Not intercepted: 22,9000-9010",
    "skip_outbound_ports": "Not intercepted: 25,3306",
    "skip_subnets": "Neither to nor from these: 10.9.0.0/16,fd09::/16",
    "opaque_ports": "Ports not looked at.  [default: the usual ones where servers speak first]",
    "require_mtls": "Refuse callers that are no members.",
    "workers": "Engine threads of each proxy.",
    "drain": "How long running requests may take at the end.",
    "cpu_request": "What a proxy asks for; '' for nothing.",
    "cpu_limit": "What it may have at most.",
    "memory_request": "What it asks for.",
    "memory_limit": "What it may have at most.",
}


def _flags(command: Any) -> Any:
    for name, field in reversed(FIELDS.items()):
        shown = field.default not in ("", False)
        if field.type is bool:
            option = click.option(f"--{flag_of(name)}", name, is_flag=True, help=HELP[name])
        else:
            default = f"meshcore:{package_version()}" if name == "image" else field.default
            option = click.option(f"--{flag_of(name)}", name, default=default, show_default=shown, type=field.type, help=HELP[name])
        command = option(command)
    return command


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|-|DIR…")
@_flags
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object, on stderr.")
def inject(paths: tuple[str, ...], as_json: bool, **words: Any) -> None:
    """Put a sidecar into each pod of manifests."""
    options = Options(**words)
    each_changed(paths, lambda text, source: injecting.inject(text, options, source), as_json)
