"""Where an authority lives on disk: a folder of mode 0700 with `<name>.key` (0600) and `<name>.pem`. Signs nothing."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .authority import Authority, AuthorityError
from .certificates import chain_of_pem, pem_of
from .keys import KeyFileError, PrivateKey


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
        chain = chain_of_pem((folder / f"{name}.pem").read_bytes())
    except OSError as error:
        raise AuthorityError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise AuthorityError(f"{folder / name}.pem: {error}") from None
    return Authority(trust_domain, PrivateKey.load(folder / f"{name}.key"), chain, now_s)
