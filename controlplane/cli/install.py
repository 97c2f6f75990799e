"""`meshctl install`: the manifests of a control plane for Kubernetes, on stdout. Asks no cluster."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import click

from controlplane.manifests.installing import AUTHORITY_SECRET, Install, manifests
from controlplane.manifests.rendering import block
from meshcore.errors import ConfigError, Problem

from .version import package_version

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

EPILOG = f"""
\b
Examples:
  meshctl authority new-root --trust-domain mesh.example.org --out root
  meshctl authority new-intermediate --trust-domain mesh.example.org --from root --out signing
  meshctl install --trust-domain mesh.example.org --trust-bundle root/bundle.pem --authority signing \\
      --trust-in shop | kubectl apply -f -
  kubectl exec -n meshcore meshcore-control-plane-0 -- meshctl check

\b
--authority prints a private key, as a Secret. Without it none leaves its folder, and the Secret is made beforehand:
  kubectl create secret -n meshcore generic {AUTHORITY_SECRET} --from-file=root.pem --from-file=root.key
"""


def _namespaces(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    for one in value if isinstance(value, tuple) else (value,):
        if one and not _NAMESPACE.fullmatch(one):
            raise click.BadParameter(f"{one!r} cannot name a namespace", ctx, param)
    return value


@click.command(epilog=EPILOG)
@click.option("--trust-domain", required=True, help="Of every identity it gives out.")
@click.option("--trust-bundle", required=True, type=click.Path(path_type=Path), help="Roots in PEM: what members trust.")
@click.option("--authority", type=click.Path(path_type=Path), help="Folder of the authority that signs; printed as a Secret.")
@click.option("--namespace", default="meshcore", show_default=True, callback=_namespaces, help="Where it is put.")
@click.option("--trust-in", multiple=True, metavar="NAMESPACE", callback=_namespaces,
              help="A namespace of members: it gets the roots. May be repeated.")  # fmt: skip
@click.option("--watch-namespace", default="", metavar="NAMESPACE", callback=_namespaces,
              help="Follow services of this one only.  [default: of all]")  # fmt: skip
@click.option("--image", default=f"meshcore:{package_version()}", help="What it runs from.  [default: meshcore:VERSION]")
@click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]), default="IfNotPresent", show_default=True,
              help="When it is fetched.")  # fmt: skip
@click.option("--replicas", type=click.IntRange(1, 100), default=1, show_default=True, help="More than one share an etcd.")
@click.option("--etcd", multiple=True, metavar="URL", help="An etcd to share; repeat it.")
@click.option("--cluster-domain", default="cluster.local", show_default=True, help="What names of services end with.")
@click.option("--roles", type=click.Path(path_type=Path), help="Which identities may view, edit, make tokens, tap, rotate roots.")
@click.option("--storage", default="1Gi", show_default=True, help="For store, audit and authority of each replica.")
@click.option("--storage-class", default="", help="Of that storage.  [default: the cluster's]")
@click.option("--cpu-request", default="100m", show_default=True, help="What a replica asks for.")
@click.option("--memory-request", default="128Mi", show_default=True, help="What it asks for.")
@click.option("--memory-limit", default="1Gi", show_default=True, help="What it may have at most.")
@click.option("--json", "as_json", is_flag=True, help="One List in JSON.")
def install(trust_bundle: Path, authority: Path | None, roles: Path | None, as_json: bool, **words: Any) -> None:
    """Print the manifests of a control plane."""
    files = _authority(authority, words["trust_domain"]) if authority is not None else ()
    made = manifests(
        Install(trust_bundle=trust_bundle.read_text(), authority=files, roles=_roles(roles) if roles else "", **words)
    )
    if as_json:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2))
    else:
        click.echo("\n".join("---\n" + "\n".join(block(one)) for one in made))


def _authority(folder: Path, trust_domain: str) -> tuple[tuple[str, bytes], ...]:
    """Its files, after a look whether they are one."""
    from controlplane.errors import Denied
    from controlplane.identity import AuthorityError, KeyFileError, authority_files

    try:
        found = authority_files.load_all(folder, trust_domain, time.time())
    except (AuthorityError, KeyFileError, Denied) as error:
        raise click.ClickException(str(error)) from None
    if not found:
        raise click.ClickException(f"{folder}: no authority here; expected NAME.pem and NAME.key, as new-intermediate makes them")
    return tuple((f"{name}.{suffix}", (folder / f"{name}.{suffix}").read_bytes()) for name in found for suffix in ("pem", "key"))


def _roles(path: Path) -> str:
    from controlplane.serving.permissions import grants_of

    text = path.read_text()
    if not grants_of(text, str(path)):
        raise ConfigError(Problem(message="grants nothing", source=str(path)))
    return text
