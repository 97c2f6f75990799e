"""Certificate signing requests as members make them, good and bad, and a clock that is moved by hand."""

from __future__ import annotations

import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DOMAIN = "mesh.example.org"


class Clock:
    """The time it was told."""

    def __init__(self, now_s: float | None = None) -> None:
        self.now_s = time.time() if now_s is None else now_s

    def __call__(self) -> float:
        return self.now_s


def new_key(curve=ec.SECP256R1):
    return ec.generate_private_key(curve())


def request(
    key=None, uris=(), dns=(), digest=hashes.SHA256, common_name="", encoding=serialization.Encoding.DER
) -> bytes:
    """A request signed with its key."""
    key = key or new_key()
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(name) for name in dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return builder.sign(key, digest() if digest else None).public_bytes(encoding)
