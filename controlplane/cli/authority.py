"""`meshctl authority`: the mesh's root, and authorities below it, one for each replica. Works on files alone."""

from __future__ import annotations

import time
from pathlib import Path

import click

from controlplane.errors import Denied
from controlplane.identity import Authority, AuthorityError, KeyFileError, authority_files
from controlplane.identity.certificates import fingerprint, pem_of

from .output import is_json, output_option, show_json

NAME = "root"  # what a control plane loads from the `authority` folder in its data folder

EPILOG = """
\b
Several replicas, the root's key on none of them:
  meshctl authority new-root --trust-domain mesh.example.org --out ./root
  meshctl authority new-intermediate --from ./root --out ./replica-1     then copy to DATA/authority of a replica
"""


@click.group(epilog=EPILOG)
def authority() -> None:
    """Make the certificates that sign all others."""


@authority.command("new-root")
@click.option("--trust-domain", required=True, help="Of every identity below it.")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="A new folder for key and chain.")
@output_option
def new_root(trust_domain: str, folder: Path, output: str) -> None:
    """Make a root of one's own."""
    try:
        made = Authority.new_root(trust_domain, time.time())
    except AuthorityError as error:
        raise click.ClickException(str(error)) from None
    _save(folder, made, output)


@authority.command("new-intermediate")
@click.option("--from", "root", required=True, type=click.Path(path_type=Path), help="Folder of the root.")
@click.option("--trust-domain", required=True, help="That of the root.")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="A new folder for key and chain.")
@output_option
def new_intermediate(root: Path, trust_domain: str, folder: Path, output: str) -> None:
    """Make an authority below a root, for one replica."""
    try:
        made = authority_files.load(root, NAME, trust_domain, time.time()).new_intermediate(time.time())
    except (AuthorityError, KeyFileError, Denied) as error:
        raise click.ClickException(str(error)) from None
    _save(folder, made, output)


def _save(folder: Path, made: Authority, output: str) -> None:
    if (folder / f"{NAME}.key").exists():
        raise click.ClickException(f"{folder} holds an authority already; a key is never written over")
    authority_files.save(folder, NAME, made)
    (folder / "bundle.pem").write_bytes(pem_of([made.root]))
    found = {"folder": str(folder), "root": fingerprint(made.root), "ends_at_s": made.not_after_s}
    if is_json(output):
        show_json(found)
    else:
        ends = time.strftime("%Y-%m-%d", time.gmtime(made.not_after_s))
        click.echo(f"{folder}/{NAME}.pem and .key, until {ends}; members trust {folder}/bundle.pem")
