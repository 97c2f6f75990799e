"""The way from a request to a certificate: every check, in order. Judges no proof itself.

The order is: limit, request, proof, policy, signature, spending the proof, audit.

Nothing leaves before it is in the audit, and a proof is spent only by a certificate that was made: a request that
fails for another reason does not cost a machine its only token. Two that use one token at the same time get one
certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from ..audit import Audit
from ..errors import Denied, Throttled
from ..spiffe import SpiffeId
from .authority import LEAF_S, Leaf
from .certificates import fingerprint
from .limits import Attempts
from .proofs import Proof, Verifier
from .requests import key_of
from .trust import Trust


class IssuingPolicy(msgspec.Struct, frozen=True):
    """What is issued at all, whatever was proved."""

    lifetime_s: int = LEAF_S
    namespaces: frozenset[str] | None = None
    """None: every namespace."""

    def check(self, identity: SpiffeId) -> None:
        """Denied when it is not issued."""
        if self.namespaces is not None and identity.namespace not in self.namespaces:
            raise Denied("not_yours", f"no certificates are issued for namespace {identity.namespace!r}")


class Issued(msgspec.Struct, frozen=True):
    """A certificate, and whom its owner is to trust."""

    leaf: Leaf
    bundle_pem: str


class Issuer:
    """Issues certificates for one trust domain."""

    def __init__(
        self,
        trust: Trust,
        verifiers: Mapping[type, Verifier],
        audit: Audit,
        *,
        policy: IssuingPolicy | None = None,
        attempts: Attempts | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trust = trust
        self._verifiers = dict(verifiers)
        self._audit = audit
        self._policy = policy or IssuingPolicy()
        self._attempts = attempts or Attempts()
        self._clock = clock
        self._ticks = ticks

    async def certify(self, request: bytes, proof: Proof, *, peer: str, wanted: str = "") -> Issued:
        """A certificate for the key of a request. `wanted` is the identity asked for, when one was asked for by name.

        Denied tells the peer one word and the audit why; Throttled when it comes too often; StoreUnavailable when
        whoever should have judged the proof gave no answer.
        """
        try:
            issued, by = await self._certify(request, proof, peer, wanted)
        except Denied as denied:
            self._audit.record(
                "certificate_issue",
                outcome="denied",
                actor=peer,
                reason=denied.reason,
                why=denied.why,
                wanted=wanted,
                proof=type(proof).__name__,
            )
            raise
        except Exception as error:
            self._audit.record("certificate_issue", outcome="failed", actor=peer, why=str(error), wanted=wanted)
            raise
        leaf = issued.leaf
        self._audit.record(
            "certificate_issue",
            outcome="done",
            actor=peer,
            identity=str(leaf.identity),
            by=by,
            serial=f"{leaf.serial:x}",
            not_after_s=leaf.not_after_s,
            root=fingerprint(self._trust.authority().root),
            wanted=wanted,
        )
        return issued

    async def _certify(self, request: bytes, proof: Proof, peer: str, wanted: str) -> tuple[Issued, str]:
        wait_s = self._attempts.wait_s(peer, self._ticks())
        if wait_s > 0.0:
            raise Throttled(wait_s)
        key, wishes = key_of(request)
        verifier = self._verifiers.get(type(proof))
        if verifier is None:
            raise Denied("bad_proof", f"proofs of kind {type(proof).__name__} are not accepted here")
        now_s = self._clock()
        proved = await verifier.prove(proof, now_s)
        for wish in {wanted, *wishes} - {""}:
            if wish != str(proved.identity):
                raise Denied("not_yours", f"asked for {wish[:200]!r}, proved {proved.identity}")
        self._policy.check(proved.identity)
        leaf = self._trust.authority().issue(key, proved.identity, now_s, self._policy.lifetime_s)
        await proved.spend()
        return Issued(leaf, self._trust.state.bundle_pem), proved.by
