"""Identity: an authority, proofs of who one is, certificates that carry it, and roots that follow each other."""

from .authority import Authority, AuthorityError, Leaf
from .issuer import Issued, Issuer, IssuingPolicy
from .join_tokens import JoinTokens
from .keys import KeyFileError, PrivateKey
from .kubernetes_tokens import KubernetesTokens
from .limits import Attempts
from .proofs import HandshakeIdentity, JoinToken, PeerCertificate, Proof, Proved, ServiceAccountToken, Verifier
from .rotation import RotationError, TrustState
from .trust import HandshakeIdentities, PeerCertificates, Trust

__all__ = [
    "Attempts",
    "Authority",
    "AuthorityError",
    "HandshakeIdentities",
    "HandshakeIdentity",
    "Issued",
    "Issuer",
    "IssuingPolicy",
    "JoinToken",
    "JoinTokens",
    "KeyFileError",
    "KubernetesTokens",
    "Leaf",
    "PeerCertificate",
    "PeerCertificates",
    "PrivateKey",
    "Proof",
    "Proved",
    "RotationError",
    "ServiceAccountToken",
    "Trust",
    "TrustState",
    "Verifier",
]
