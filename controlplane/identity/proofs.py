"""What a workload may show to prove who it is, and what a verifier answers. Values only; they show no secret."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from ..spiffe import SpiffeId


class JoinToken(msgspec.Struct, frozen=True):
    """A token that works once."""

    text: str

    def __repr__(self) -> str:
        return "JoinToken(…)"


class ServiceAccountToken(msgspec.Struct, frozen=True):
    """A Kubernetes token, bound to our audience."""

    text: str

    def __repr__(self) -> str:
        return "ServiceAccountToken(…)"


class PeerCertificate(msgspec.Struct, frozen=True):
    """The chain that the peer showed in its TLS handshake, in DER, leaf first.

    Only the TLS layer may make one: the handshake is what proves that the peer has the key.
    """

    chain: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"PeerCertificate({len(self.chain)} certificates)"


class HandshakeIdentity(msgspec.Struct, frozen=True):
    """Who the peer is, as our own door told after it had verified the chain against the roots of the mesh."""

    text: str


Proof = JoinToken | ServiceAccountToken | PeerCertificate | HandshakeIdentity


async def nothing_to_spend() -> None:
    """The proof can be shown again."""


class Proved(msgspec.Struct, frozen=True):
    """An identity that holds. `spend` is called before anything is handed out; Denied there means: used up
    meanwhile."""

    identity: SpiffeId
    by: str
    """For the audit: which token, which certificate. Never the secret itself."""
    spend: Callable[[], Awaitable[None]] = nothing_to_spend


class Verifier(Protocol):
    """Judges one kind of proof."""

    async def prove(self, proof: Proof, now_s: float) -> Proved:
        """Who the owner of the proof is; Denied when it does not hold."""
