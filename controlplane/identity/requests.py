"""Certificate signing requests: which ones are accepted, and what is taken from them. The key, and nothing else.

A request is signed with the key it asks a certificate for (proof of possession). Names in it are wishes: DNS names,
subjects and extensions are ignored, but a URI it asks for must be the identity that was proved, or someone is
confused about who he is.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ..errors import Denied
from .authority import PublicKey
from .certificates import READING_ERRORS

MAX_REQUEST_BYTES = 16_384
CURVES = ("secp256r1", "secp384r1")
RSA_BITS = (2_048, 4_096)  # shorter ones are weak; longer ones cost us, and every peer, a noticeable time per signature
HASHES = ("sha256", "sha384", "sha512")


def key_of(data: bytes) -> tuple[PublicKey, tuple[str, ...]]:
    """The key of a sound request in DER or PEM, and the URIs it wishes for; Denied otherwise."""
    if not 1 <= len(data) <= MAX_REQUEST_BYTES:
        raise Denied("bad_request", f"a request of {len(data)} bytes; expected 1 to {MAX_REQUEST_BYTES}")
    try:
        is_text = data.lstrip().startswith(b"-----")
        request = x509.load_pem_x509_csr(data) if is_text else x509.load_der_x509_csr(data)
        key = _accepted(request.public_key())  # before the signature: a huge key is not worked with at all
        digest = request.signature_hash_algorithm
        if not isinstance(key, ed25519.Ed25519PublicKey) and (digest is None or digest.name not in HASHES):
            raise Denied("bad_request", f"a signature with {digest.name if digest else 'no hash'}; expected SHA-2")
        if not request.is_signature_valid:
            raise Denied("bad_request", "the request is not signed with its own key")
        return key, _wishes(request)
    except (*READING_ERRORS, InvalidSignature) as error:
        raise Denied("bad_request", f"not a certificate signing request: {str(error)[:100]}") from None


def _accepted(key: object) -> PublicKey:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
            return key
        if isinstance(key, ed25519.Ed25519PublicKey):
            return key
        if isinstance(key, rsa.RSAPublicKey) and RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
            # An exponent of 3 has a history; one of many bits makes every verification slow.
            if key.public_numbers().e == 65_537:
                return key
            raise Denied("bad_request", "an RSA key with an exponent other than 65537")
    except UnsupportedAlgorithm:
        pass
    size = getattr(key, "key_size", "")
    raise Denied(
        "bad_request", f"a key of kind {type(key).__name__} {size}; expected P-256, P-384, Ed25519, RSA 2048 to 4096"
    )


def _wishes(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
