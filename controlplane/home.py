"""Where a control plane lives: the folder with its store, authority, audit and public bundle. Opens; serves nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import stat
import time
from collections.abc import Collection
from pathlib import Path

from .errors import StoreUnavailable
from .identity import Authority, KubernetesTokens, authority_files
from .identity.certificates import fingerprint
from .settings import Settings
from .store import SqliteStore, Store

AUTHORITY = "root"
POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def make(settings: Settings) -> Path:
    """The folder, made when it is missing; StoreUnavailable when others may write into it."""
    folder = Path(settings.data)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise StoreUnavailable(f"{folder}: others may put files there; chmod 700 {folder}")
    return folder


def store_of(settings: Settings) -> Store:
    """The store, not open yet."""
    if settings.etcd:
        from .store.etcd import EtcdStore

        return EtcdStore(list(settings.etcd), prefix=settings.etcd_prefix)
    return SqliteStore(Path(settings.data) / "mesh.db")


def authorities_of(settings: Settings) -> dict[str, Authority]:
    """The authorities of the folder by name: what lies there, else a new root that is kept there."""
    folder = Path(settings.data) / "authority"
    if authority_files.names_in(folder):
        return authority_files.load_all(folder, settings.trust_domain, time.time())
    if (folder / f"{AUTHORITY}.pem").exists():  # its key is lost: a new root would cut the mesh off, so that is told
        return {AUTHORITY: authority_files.load(folder, AUTHORITY, settings.trust_domain, time.time())}
    return {AUTHORITY: new_root(settings, AUTHORITY)}


def new_root(settings: Settings, name: str = "") -> Authority:
    """A new root, kept in the folder beside what is there."""
    authority = Authority.new_root(settings.trust_domain, time.time())
    name = name or f"root-{fingerprint(authority.root)[:12]}"
    authority_files.save(Path(settings.data) / "authority", name, authority)
    return authority


def retire_authorities(settings: Settings, trusted: Collection[str]) -> None:
    """Puts away those of roots that are trusted no longer."""
    for name, authority in authorities_of(settings).items():
        if fingerprint(authority.root) not in trusted:
            authority_files.retire(Path(settings.data) / "authority", name)


def kubernetes_tokens_of(settings: Settings) -> KubernetesTokens | None:
    """Who judges service-account tokens; None when nobody does. StoreUnavailable where `in-cluster` is no cluster."""
    if not settings.kubernetes:
        return None
    url, token_file, ca_file = settings.kubernetes, settings.kubernetes_token_file, settings.kubernetes_ca_file
    if url == "in-cluster":
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise StoreUnavailable("kubernetes: in-cluster, and this does not run in a pod; name the API server's URL")
        url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        ca_file = ca_file or str(POD_ACCOUNT / "ca.crt")
    tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
    own = token_file or str(POD_ACCOUNT / "token")
    return KubernetesTokens(url, settings.trust_domain, own_token_file=own, tls=tls)


def publish(path: Path, octets: bytes) -> None:
    """A file for everybody to read; whole, or the one before."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(octets)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        raise
