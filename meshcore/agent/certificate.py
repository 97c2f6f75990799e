"""One certificate with its key: asked for, judged when it comes, kept on disk. Talks to nobody.

What the control plane sends is checked like a stranger's: our key, our identity, a chain to a root we trust, and time
left. A certificate that fails replaces nothing.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from meshcore.errors import MeshError

from .state_directory import StateDirectory, StateError

KEY_FILE = "key.pem"
CHAIN_FILE = "chain.pem"
MAX_CHAIN = 5
MAX_CHAIN_BYTES = 65_536
RENEW_AFTER = 0.7  # of the lifetime: with 24 hours, seven are left to survive an outage
RENEW_JITTER = 0.1  # of the lifetime, earlier: a fleet that started together must not renew together
_READING_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, OverflowError)


class CertificateError(MeshError):
    """A certificate that is not what was asked for."""


class Certificate(msgspec.Struct, frozen=True):
    """What we show to others. The key is in no text form of this value."""

    identity: str
    key_pem: bytes
    chain_pem: bytes
    not_before_s: float
    not_after_s: float

    def __repr__(self) -> str:
        return f"Certificate({self.identity!r}, until {self.not_after_s:.0f})"

    def is_usable(self, now_s: float) -> bool:
        return now_s < self.not_after_s

    def renew_at_s(self, random_share: float | None = None) -> float:
        """When to ask for the next one: at 70 % of its life, or up to a tenth of it before."""
        share = random.random() if random_share is None else random_share
        return self.not_before_s + (self.not_after_s - self.not_before_s) * (RENEW_AFTER - RENEW_JITTER * share)


class Request:
    """A new P-256 key, and the request that it signs."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
        self.der = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def accept(self, parts: Sequence[bytes], roots: Sequence[x509.Certificate], now_s: float) -> Certificate:
        """The certificate for this request from the DER of a chain, leaf first; CertificateError when it is another's."""
        if not 1 <= len(parts) <= MAX_CHAIN or sum(map(len, parts)) > MAX_CHAIN_BYTES:
            raise CertificateError(f"{len(parts)} certificates came; expected 1 to {MAX_CHAIN}")
        try:
            chain = [x509.load_der_x509_certificate(part) for part in parts]
            same_key = chain[0].public_key() == self._key.public_key()
        except _READING_ERRORS as error:
            raise CertificateError(f"what came is no certificate: {str(error)[:100]}") from None
        if not same_key:
            raise CertificateError("the certificate that came is for another key")
        if (identity := judged(chain, roots, now_s)) != self.identity:
            raise CertificateError(f"asked for {self.identity}, got {identity}")
        return _certificate(self._key, chain)


def judged(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now_s: float) -> str:
    """The one URI in a leaf whose chain holds now; CertificateError otherwise."""
    try:
        at = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        store = verification.Store(list(roots))
        policy = verification.PolicyBuilder().store(store).time(at).max_chain_depth(MAX_CHAIN)
        policy.build_client_verifier().verify(chain[0], list(chain[1:]))
        names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (verification.VerificationError, x509.ExtensionNotFound, *_READING_ERRORS) as error:
        raise CertificateError(f"the certificate does not hold: {str(error)[:200]}") from None
    if len(uris) != 1:
        raise CertificateError(f"the certificate names {len(uris)} URIs; expected one")
    return uris[0]


def roots_of_pem(data: bytes, most: int = 16) -> list[x509.Certificate]:
    """The roots in a bundle; CertificateError when there is none, or what stands there is none."""
    try:
        roots = x509.load_pem_x509_certificates(data)
    except _READING_ERRORS as error:
        raise CertificateError(f"not certificates in PEM: {str(error)[:100]}") from None
    if not 1 <= len(roots) <= most:
        raise CertificateError(f"{len(roots)} roots; expected 1 to {most}")
    return roots


def pem_of(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)


def save(certificate: Certificate, state: StateDirectory) -> None:
    """To disk, in one file and in two: one cannot be half of an old pair and half of a new one, two are what TLS reads."""
    state.write("pair.pem", certificate.key_pem + certificate.chain_pem)
    state.write(KEY_FILE, certificate.key_pem)
    state.write(CHAIN_FILE, certificate.chain_pem)


def load(identity: str, roots: Sequence[x509.Certificate], state: StateDirectory, now_s: float) -> Certificate | None:
    """What was saved, when it is still good for this identity under these roots; None when there is nothing of use."""
    pair = state.read("pair.pem", MAX_CHAIN_BYTES * 2)
    if pair is None:
        return None
    try:
        key = serialization.load_pem_private_key(pair, None)
        chain = x509.load_pem_x509_certificates(pair)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or chain[0].public_key() != key.public_key():
            raise StateError(f"{state.place_of('pair.pem')}: the key is not that of the certificate; remove the file")
    except _READING_ERRORS:
        raise StateError(f"{state.place_of('pair.pem')} cannot be read; remove it, and join again") from None
    try:
        if judged(chain, roots, now_s) != identity:
            return None
    except CertificateError:
        return None  # expired, or of a mesh that we do not trust any more
    found = _certificate(key, chain)
    save(found, state)  # the two files, when a crash came between them
    return found


def _certificate(key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> Certificate:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    uris = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Certificate(
        uris.get_values_for_type(x509.UniformResourceIdentifier)[0],
        key.private_bytes(*form),
        pem_of(chain),
        chain[0].not_valid_before_utc.timestamp(),
        min(one.not_valid_after_utc.timestamp() for one in chain),
    )
