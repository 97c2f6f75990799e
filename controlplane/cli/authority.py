"""`meshctl authority`: the mesh's root, and authorities below it, one for each replica, in files. Its rotation is next door."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from controlplane.errors import Denied
from controlplane.identity import Authority, AuthorityError, KeyFileError, authority_files
from controlplane.identity.certificates import fingerprint, pem_of

from .authority_rotate import roots, rotate
from .output import is_json, output_option, show_json

NAME = "root"

EPILOG = """
\b
Several replicas, the root's key on none of them:
  meshctl authority new-root --trust-domain mesh.example.org --out ./root
  meshctl authority new-intermediate --trust-domain mesh.example.org --from ./root --out ./replica-1
                                                             then copy to DATA/authority of a replica
\b
A new root, while all goes on:
  meshctl authority roots                   how it stands, and what may come next
  meshctl authority rotate begin|switch|retire
"""


name_option = click.option("--name", default=NAME, show_default=True, help="Of the two files; a folder may hold several authorities.")


@click.group(epilog=EPILOG)
def authority() -> None:
    """Make the certificates that sign all others."""


@authority.command("new-root")
@click.option("--trust-domain", required=True, help="Of every identity below it.")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="A folder for key and chain.")
@name_option
@output_option
def new_root(trust_domain: str, folder: Path, name: str, output: str) -> None:
    """Make a root of one's own."""
    try:
        made = Authority.new_root(trust_domain, time.time())
    except AuthorityError as error:
        raise click.ClickException(str(error)) from None
    _save(folder, name, made, output)


@authority.command("new-intermediate")
@click.option("--from", "root", required=True, type=click.Path(path_type=Path), help="Folder of the root.")
@click.option("--trust-domain", required=True, help="That of the root.")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="A folder for key and chain.")
@name_option
@output_option
def new_intermediate(root: Path, trust_domain: str, folder: Path, name: str, output: str) -> None:
    """Make an authority below a root, for one replica."""
    try:
        made = authority_files.load(root, NAME, trust_domain, time.time()).new_intermediate(time.time())
    except (AuthorityError, KeyFileError, Denied) as error:
        raise click.ClickException(str(error)) from None
    _save(folder, name, made, output)


@authority.command("import")
@click.option("--from", "source", required=True, type=click.Path(path_type=Path), help="A folder with NAME.pem and NAME.key of each.")
@click.option("--trust-domain", required=True, help="Theirs.")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="DATA/authority of a control plane.")
@output_option
def import_(source: Path, trust_domain: str, folder: Path, output: str) -> None:
    """Copy authorities to where nobody else can read them.

    For folders whose modes are not ours to choose, as a Secret of Kubernetes is mounted. What has the same name is replaced;
    nothing is written unless all of them can sign.
    """
    before = os.umask(0o077)
    try:
        found = authority_files.handed_in(source, trust_domain, time.time())
        for name, one in found.items():
            authority_files.save(folder, name, one)
    except (AuthorityError, KeyFileError, Denied) as error:
        raise click.ClickException(str(error)) from None
    finally:
        os.umask(before)
    shown = [{"name": name, "root": fingerprint(one.root), "ends_at_s": one.not_after_s} for name, one in found.items()]
    if is_json(output):
        show_json({"folder": str(folder), "authorities": shown})
    else:
        for name, one in found.items():
            click.echo(f"{folder}/{name}.pem and .key, below root {fingerprint(one.root)[:16]}")


def _save(folder: Path, name: str, made: Authority, output: str) -> None:
    if (folder / f"{name}.key").exists():
        raise click.ClickException(f"{folder} holds an authority {name!r} already; a key is never written over")
    authority_files.save(folder, name, made)
    (folder / "bundle.pem").write_bytes(pem_of([made.root]))
    found = {"folder": str(folder), "root": fingerprint(made.root), "ends_at_s": made.not_after_s}
    if is_json(output):
        show_json(found)
    else:
        ends = time.strftime("%Y-%m-%d", time.gmtime(made.not_after_s))
        click.echo(f"{folder}/{name}.pem and .key, until {ends}; members trust {folder}/bundle.pem")


authority.add_command(roots)
authority.add_command(rotate)
