"""`meshctl uninject`: sidecars out of manifests of Kubernetes again. Reads and writes text; asks no cluster."""

from __future__ import annotations

import click

from controlplane.manifests import injecting

from .manifest_files import each_changed

EPILOG = """
\b
Examples:
  meshctl uninject deployment.yaml | kubectl apply -f -
  kubectl get -n shop deploy -o yaml | meshctl uninject - | kubectl apply -f -

What `meshctl inject` put in is taken out, and the text is what it was before, byte for byte.
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|-|DIR…")
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object, on stderr.")
def uninject(paths: tuple[str, ...], as_json: bool) -> None:
    """Take the sidecar out of each pod of manifests."""
    each_changed(paths, injecting.uninject, as_json)
