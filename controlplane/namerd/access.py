"""Who may write tables: tokens, client certificates, or this machine alone. Decides; answers nobody.

namerd asks nobody who he is: whoever reaches its port may change where all traffic goes. Here a write needs a token or the
certificate of a writer. Where neither is configured, it must come from this machine, to a listener that others cannot reach, and
not out of a browser.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from meshcore.errors import MeshError

from ..errors import Denied

MAX_TOKENS = 1_000
SHORTEST_TOKEN = 16


class Access:
    """The writers of one interface."""

    def __init__(self, *, tokens: Mapping[str, str] | None = None, writers: Sequence[str] = (), is_local: bool = True) -> None:
        self._tokens = {_digest(token): name for name, token in (tokens or {}).items()}
        self._writers = frozenset(writers)
        self._is_local = is_local

    @property
    def is_open(self) -> bool:
        """Whether everybody on this machine may write."""
        return self._is_local and not self._tokens and not self._writers

    @property
    def is_closed(self) -> bool:
        """Whether nobody may."""
        return not self._is_local and not self._tokens and not self._writers

    def writer(self, caller: Caller) -> str:
        """The name of who may write, for history and audit. Denied for everybody else."""
        if caller.token:
            name = next((one for digest, one in self._tokens.items() if hmac.compare_digest(digest, _digest(caller.token))), None)
            if name is None:
                raise Denied("bad_token", f"{caller.address}: a token that nobody has")
            return f"token:{name}"
        for name in caller.names:
            if name in self._writers:
                return f"certificate:{name}"
        if self.is_open and is_loopback(caller.address):
            if caller.origin:
                raise Denied("from_a_browser", f"a page of {caller.origin[:100]} tries to write")
            return f"local:{caller.address}"
        if self.is_closed:
            raise Denied("read_only", "no token and no writer is configured, and the listener is not of this machine alone")
        raise Denied("not_a_writer", f"{caller.address} {' '.join(caller.names)[:200]}")


class Caller(msgspec.Struct, frozen=True):
    """What is known of who asks."""

    address: str
    token: str = ""
    names: tuple[str, ...] = ()
    """Of the verified certificate: URIs, DNS names and the common name."""
    origin: str = ""


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names in a certificate, as Python's ssl tells it."""
    if not certificate:
        return ()
    found = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("URI", "DNS")]
    for part in certificate.get("subject", ()):
        found += [value for key, value in part if key == "commonName"]
    return tuple(found)


def read_tokens(file: str | Path) -> dict[str, str]:
    """Lines of `name token`; a file that others may read is refused."""
    path = Path(file)
    mode = os.stat(path).st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise MeshError(f"{path}: others may read it (mode {stat.S_IMODE(mode):03o}); expected 600")
    tokens: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < SHORTEST_TOKEN or words[0] in tokens:
            raise MeshError(
                f"{path}:{number}: expected a name that stands there once and a token of at least {SHORTEST_TOKEN} characters"
            )
        tokens[words[0]] = words[1]
    if len(tokens) > MAX_TOKENS:
        raise MeshError(f"{path}: {len(tokens)} tokens; expected at most {MAX_TOKENS}")
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
