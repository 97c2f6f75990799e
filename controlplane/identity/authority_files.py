"""Where authorities live on disk: a folder of mode 0700 with `<name>.key` (0600) and `<name>.pem` of each. Signs nothing."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography import x509

from .authority import Authority, AuthorityError
from .certificates import chain_of_pem, pem_of
from .keys import KeyFileError, PrivateKey

RETIRED = "retired"


def save(folder: str | Path, name: str, authority: Authority) -> None:
    """Writes both files, the key first: a chain without its key would be taken for an authority that is broken."""
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority.key.save(folder / f"{name}.key")
    fresh = folder / f".{name}.pem.{secrets.token_hex(4)}"
    fresh.write_bytes(pem_of(authority.chain))
    os.replace(fresh, folder / f"{name}.pem")


def load(folder: str | Path, name: str, trust_domain: str, now_s: float) -> Authority:
    """Reads both, ours or handed in; AuthorityError or KeyFileError says what is wrong with which file."""
    folder = Path(folder)
    try:
        if stat.S_IMODE(folder.stat().st_mode) & 0o022:
            raise KeyFileError(f"{folder}: others may put files there; chmod 700 {folder}")
    except OSError as error:
        raise AuthorityError(f"{error.filename}: {error.strerror}") from None
    return Authority(trust_domain, PrivateKey.load(folder / f"{name}.key"), _chain(folder / f"{name}.pem"), now_s)


def load_all(folder: str | Path, trust_domain: str, now_s: float) -> dict[str, Authority]:
    """Every authority of a folder by its name; none where there is none."""
    return {name: load(folder, name, trust_domain, now_s) for name in names_in(folder)}


def names_in(folder: str | Path) -> list[str]:
    """Of what has a key; what was there first comes first."""
    keys = [path for path in Path(folder).glob("*.key") if not path.name.startswith(".")]
    return [path.stem for path in sorted(keys, key=lambda path: (path.stat().st_mtime_ns, path.name))]


def handed_in(folder: str | Path, trust_domain: str, now_s: float) -> dict[str, Authority]:
    """The same for a folder that somebody else keeps, whatever its modes: a Secret of Kubernetes, as it is mounted."""
    folder = Path(folder)
    found = {}
    for name in names_in(folder):
        try:
            key = PrivateKey.from_pem((folder / f"{name}.key").read_bytes(), str(folder / f"{name}.key"))
        except OSError as error:
            raise AuthorityError(f"{error.filename}: {error.strerror}") from None
        found[name] = Authority(trust_domain, key, _chain(folder / f"{name}.pem"), now_s)
    if not found:
        raise AuthorityError(f"{folder}: no authority here; expected NAME.pem and NAME.key")
    return found


def retire(folder: str | Path, name: str) -> None:
    """Out of use, and kept."""
    away = Path(folder) / RETIRED
    away.mkdir(mode=0o700, exist_ok=True)
    for suffix in ("pem", "key"):
        os.replace(Path(folder) / f"{name}.{suffix}", away / f"{name}-{secrets.token_hex(4)}.{suffix}")


def _chain(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(chain_of_pem(path.read_bytes()))
    except OSError as error:
        raise AuthorityError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise AuthorityError(f"{path}: {error}") from None
