"""Reading certificates: chains from bounded PEM and DER, the one identity in each, chains checked. Issues nothing."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import verification

from ..errors import Denied
from ..spiffe import SpiffeId

MAX_CHAIN = 5  # leaf, three intermediates, root: deeper ones are mistakes or attacks on the verifier
MAX_CHAIN_BYTES = 65_536
MAX_BUNDLE = 16

# Malformed extensions surface late in this library, each in its own way.
READING_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    OverflowError,
)


def chain_of_pem(data: bytes, most: int = MAX_CHAIN) -> tuple[x509.Certificate, ...]:
    """One to `most` certificates; ValueError for anything else."""
    if len(data) > MAX_CHAIN_BYTES * 4:
        raise ValueError(f"{len(data)} bytes of certificates; expected at most {MAX_CHAIN_BYTES * 4}")
    try:
        chain = x509.load_pem_x509_certificates(data)
    except READING_ERRORS as error:
        raise ValueError(f"not certificates in PEM: {str(error)[:100]}") from None
    if not 1 <= len(chain) <= most:
        raise ValueError(f"{len(chain)} certificates; expected 1 to {most}")
    return tuple(chain)


def chain_of_der(parts: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """A chain as TLS or a request hands it over, leaf first; ValueError for anything else."""
    if not 1 <= len(parts) <= MAX_CHAIN or sum(map(len, parts)) > MAX_CHAIN_BYTES:
        raise ValueError(f"{len(parts)} certificates; expected 1 to {MAX_CHAIN}, at most {MAX_CHAIN_BYTES} bytes")
    try:
        return tuple(x509.load_der_x509_certificate(part) for part in parts)
    except READING_ERRORS as error:
        raise ValueError(f"not a certificate: {str(error)[:100]}") from None


def pem_of(chain: Iterable[x509.Certificate]) -> bytes:
    """Certificates as PEM text, in order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, in hex: the name of a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def identity_of(certificate: x509.Certificate) -> SpiffeId:
    """The identity it carries: exactly one URI SAN, which is one of ours (X509-SVID 2); ValueError otherwise."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (*READING_ERRORS, x509.ExtensionNotFound):
        raise ValueError("the certificate carries no identity") from None
    if len(uris) != 1:
        raise ValueError(f"the certificate carries {len(uris)} URIs; expected exactly one")
    return SpiffeId.parse(uris[0])


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign others."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (*READING_ERRORS, x509.ExtensionNotFound):
        return False
    return constraints.ca and usage.key_cert_sign


def verified_identity(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], trust_domain: str, now_s: float
) -> SpiffeId:
    """Who the owner of a leaf is, when its chain holds at this time against one of the roots; Denied otherwise."""
    if not roots:
        raise Denied("bad_proof", "there is no root to trust")
    try:
        # The profile of web clients: times, signatures, path lengths, name constraints, EKU, key kinds and sizes.
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store(list(roots)))
            .time(datetime.datetime.fromtimestamp(now_s, datetime.UTC))
            .max_chain_depth(MAX_CHAIN)
            .build_client_verifier()
        )
        verifier.verify(chain[0], list(chain[1:]))
        identity = identity_of(chain[0])
    except verification.VerificationError as error:
        raise Denied("bad_proof", f"the certificate does not hold: {str(error)[:200]}") from None
    except READING_ERRORS as error:
        raise Denied("bad_proof", f"the certificate cannot be judged: {str(error)[:200]}") from None
    if is_authority(chain[0]):
        raise Denied("bad_proof", "an authority's certificate is no workload's")
    if identity.trust_domain != trust_domain:
        raise Denied("bad_proof", f"{identity} is of another trust domain")
    return identity
