"""Join tokens: made once, kept as hashes, good for one certificate. Owns their records; not who may make them.

A token is `mesh1.<id>.<secret>`: the id finds the record and may be logged, the secret (256 random bits) is kept only
as SHA-256; a slow hash would protect nothing, for there is nothing to guess. A spent record stays until its lease
ends, so that the audit can tell a token that was used twice, which somebody should know about, from one that never
was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

import msgspec

from meshcore.errors import Problem

from ..audit import Audit
from ..errors import Conflict, Denied, Invalid
from ..spiffe import SpiffeId
from ..store import Store
from .proofs import JoinToken, Proof, Proved

KIND = "join_token"
DEFAULT_TOKEN_S = 3_600  # made, carried to a machine, used
MAX_TOKEN_S = 82_800
REMEMBERED_S = 3_600  # how long after its end a token is still told from one that never was
_TOKEN = re.compile(r"mesh1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")
_NO_HASH = "0" * 64


class TokenRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a token."""

    secret_sha256: str
    identity: str
    expires_at_s: float
    made_by: str
    used_at_s: float = 0.0


class JoinTokens:
    """The tokens of one mesh."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def make(self, identity: SpiffeId, now_s: float, *, by: str, ttl_s: int = DEFAULT_TOKEN_S) -> JoinToken:
        """A token for one identity. Its text is shown to the caller and to nobody else, now and never again."""
        if not 1 <= ttl_s <= MAX_TOKEN_S:
            raise Invalid(
                "join token", [Problem(message=f"got {ttl_s} s", path=("ttl_s",), expected=f"1 to {MAX_TOKEN_S}")]
            )
        number, secret = secrets.token_hex(8), secrets.token_bytes(32)
        record = TokenRecord(hashlib.sha256(secret).hexdigest(), str(identity), now_s + ttl_s, by)
        lease = await self._store.grant(ttl_s + REMEMBERED_S)
        await self._store.put(KIND, number, msgspec.json.encode(record), expected=0, lease=lease.id)
        self._audit.record("join_token_make", outcome="done", actor=by, id=number, identity=str(identity), ttl_s=ttl_s)
        return JoinToken(f"mesh1.{number}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}")

    async def known(self) -> list[tuple[str, TokenRecord]]:
        """Every token that is remembered, by its id."""
        entries = (await self._store.list([KIND])).entries
        return [(entry.key, msgspec.json.decode(entry.value, type=TokenRecord)) for entry in entries]

    async def revoke(self, number: str, *, by: str) -> None:
        """Makes a token useless, by its id."""
        await self._store.delete(KIND, number)
        self._audit.record("join_token_revoke", outcome="done", actor=by, id=number)

    async def prove(self, proof: Proof, now_s: float) -> Proved:
        """Checks a token without spending it: a request that fails later for another reason may be sent again."""
        match = _TOKEN.fullmatch(proof.text) if isinstance(proof, JoinToken) else None
        if match is None:
            raise Denied("bad_proof", "not a join token")
        number, secret = match[1], base64.urlsafe_b64decode(match[2] + "=")
        entry = await self._store.get(KIND, number)
        record = msgspec.json.decode(entry.value, type=TokenRecord) if entry else None
        digest = hashlib.sha256(secret).hexdigest()
        # The same work whether the id is known or not, and a comparison that takes as long wherever it differs.
        is_right = hmac.compare_digest(digest, record.secret_sha256 if record else _NO_HASH)
        if entry is None or record is None or not is_right:
            raise Denied("bad_proof", f"join token {number} is unknown, or its secret is wrong")
        if record.used_at_s:
            raise Denied("bad_proof", f"join token {number} was used already: somebody has a copy of it")
        if now_s >= record.expires_at_s:
            raise Denied("bad_proof", f"join token {number} has expired")
        spent = msgspec.json.encode(msgspec.structs.replace(record, used_at_s=now_s))
        revision, lease = entry.revision, entry.lease

        async def spend() -> None:
            try:
                await self._store.put(KIND, number, spent, expected=revision, lease=lease)
            except Conflict:
                raise Denied("bad_proof", f"join token {number} was used at the same time elsewhere") from None

        return Proved(SpiffeId.parse(record.identity), f"join token {number}", spend)
