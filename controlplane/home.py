"""Where a control plane lives: the folder with its store, authority, audit and public bundle. Opens; serves nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import stat
import time
from pathlib import Path

from .errors import StoreUnavailable
from .identity import Authority, KubernetesTokens, authority_files
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


def authority_of(settings: Settings, now_s: float | None = None) -> Authority:
    """The authority of the folder: what lies there, else a new root that is kept there."""
    now_s = time.time() if now_s is None else now_s
    folder = Path(settings.data) / "authority"
    if (folder / f"{AUTHORITY}.pem").exists() or (folder / f"{AUTHORITY}.key").exists():
        return authority_files.load(folder, AUTHORITY, settings.trust_domain, now_s)
    authority = Authority.new_root(settings.trust_domain, now_s)
    authority_files.save(folder, AUTHORITY, authority)
    return authority


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
