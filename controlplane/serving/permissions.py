"""Who may do what: operators on this machine everything, identities what a file grants them, everybody else nothing.

    - identity: spiffe://mesh.example.org/ns/ops/sa/alice
      may: [view, tap]
      namespaces: [shop]          # left out: every namespace

`/*` after a namespace's `sa` means all accounts in it. A file that is changed is read again; one that cannot be read
changes nothing, and that is told.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from meshcore.errors import ConfigError, Problem

from ..audit import Audit
from ..errors import Denied, Invalid
from ..model.codec import problem_of
from ..model.files import parsed
from ..spiffe import is_spiffe_id
from .peers import Peer

WORDS = ("view", "edit", "tokens", "tap", "trust")
MAX_GRANTS = 1_000
_log = logging.getLogger("controlplane.permissions")


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one identity may do."""

    identity: str
    may: tuple[str, ...]
    namespaces: tuple[str, ...] = ()

    def holds_for(self, identity: str, word: str, namespace: str) -> bool:
        """Whether it lets this identity do it there; an empty namespace means in all of them."""
        if self.identity.endswith("/*"):
            if identity.rpartition("/")[0] != self.identity[:-2]:
                return False
        elif identity != self.identity:
            return False
        return word in self.may and (not self.namespaces or namespace in self.namespaces)


class Permissions:
    """The grants of one file."""

    def __init__(self, path: str, audit: Audit) -> None:
        self._path = Path(path) if path else None
        self._audit = audit
        self._seen: tuple[int, int, int] | None = None
        self._grants: tuple[Grant, ...] = ()
        if self._path is not None:
            self._seen = self._stamp()
            self._grants = grants_of(self._path.read_text(), str(self._path))

    def check(self, peer: Peer, word: str, namespace: str) -> None:
        """Denied, and on the audit, unless the peer may do it in this namespace (empty: in every one)."""
        if peer.is_local or self._holds(peer, word, namespace):
            return
        where = f"namespace {namespace!r}" if namespace else "every namespace"
        why = f"{peer.name} lacks the permission '{word}' in {where}"
        self._audit.record("permission", outcome="denied", actor=peer.name, word=word, namespace=namespace)
        raise Denied("not_allowed", why)

    def allows(self, peer: Peer, word: str, namespace: str) -> bool:
        """The same as a question, off the audit: to leave out what may not be seen."""
        return peer.is_local or self._holds(peer, word, namespace)

    def _holds(self, peer: Peer, word: str, namespace: str) -> bool:
        self._read_again()
        if peer.identity is None:
            return False
        identity = str(peer.identity)
        return any(grant.holds_for(identity, word, namespace) for grant in self._grants)

    def _stamp(self) -> tuple[int, int, int] | None:
        assert self._path is not None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read_again(self) -> None:
        if self._path is None or (stamp := self._stamp()) == self._seen or stamp is None:
            return
        self._seen = stamp
        try:
            self._grants = grants_of(self._path.read_text(), str(self._path))
        except (OSError, ConfigError, Invalid, UnicodeDecodeError) as error:
            _log.error("roles stay as they were: %s", error)


def grants_of(text: str, source: str) -> tuple[Grant, ...]:
    """The grants in a file; Invalid or ConfigError tells what is wrong, and where."""
    plain: Any = parsed(text, source)
    try:
        grants = msgspec.convert(plain or [], tuple[Grant, ...])
    except msgspec.ValidationError as error:
        raise Invalid(source, [problem_of(str(error))]) from None
    problems = list(_problems(grants))
    if len(grants) > MAX_GRANTS:
        problems.append(Problem(message=f"got {len(grants)} grants", expected=f"at most {MAX_GRANTS}"))
    if problems:
        raise Invalid(source, problems)
    return grants


def _problems(grants: Sequence[Grant]) -> list[Problem]:
    found = []
    for index, grant in enumerate(grants):
        exact = grant.identity.removesuffix("/*") + "/any" if grant.identity.endswith("/*") else grant.identity
        if not is_spiffe_id(exact):
            expected = "spiffe://<trust-domain>/ns/<namespace>/sa/<account>, or /* in the account's place"
            found.append(Problem(message=f"got {grant.identity[:80]!r}", path=(index, "identity"), expected=expected))
        for place, word in enumerate(grant.may):
            if word not in WORDS:
                expected = "one of " + ", ".join(WORDS)
                found.append(Problem(message=f"got {word[:40]!r}", path=(index, "may", place), expected=expected))
    return found
