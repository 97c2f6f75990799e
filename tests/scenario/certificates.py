"""Certificates for tests: authorities, leaves with any name and any fault, written as PEM files. Knows no proxy."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

HOUR = datetime.timedelta(hours=1)
BOTH = (Usage.SERVER_AUTH, Usage.CLIENT_AUTH)


def pem(*parts) -> bytes:
    return b"".join(
        part.public_bytes(serialization.Encoding.PEM)
        if isinstance(part, (x509.Certificate, x509.CertificateRevocationList))
        else part.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for part in parts
    )


class Leaf:
    """A certificate with its chain and key, as octets and, once asked for, as files."""

    def __init__(self, certificate: x509.Certificate, key, above: list[x509.Certificate]):
        self.certificate = certificate
        self.key = key
        self.above = above

    @property
    def cert_pem(self) -> bytes:
        return pem(self.certificate, *self.above)

    @property
    def key_pem(self) -> bytes:
        return pem(self.key)

    def write(self, folder: Path, name: str = "leaf") -> dict[str, str]:
        """{"cert": path, "key": path}"""
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self.cert_pem)
        key.write_bytes(self.key_pem)
        return {"cert": str(cert), "key": str(key)}


class Authority:
    """A root, or an intermediate below another authority."""

    def __init__(self, name: str = "root", above: Authority | None = None, lasts=24 * HOUR, begins=-HOUR):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = _build(
            self.name, self.key, above.name if above else self.name, above.key if above else self.key,
            [(x509.BasicConstraints(ca=True, path_length=None), True),
             (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)],
            begins, lasts,
        )  # fmt: skip

    @property
    def chain(self) -> list[x509.Certificate]:
        """Itself and what is above it, without the root."""
        return [] if self.above is None else [self.certificate, *self.above.chain]

    def leaf(self, *names: str, usage=BOTH, lasts=12 * HOUR, begins=-HOUR, key=None, ca=False, chain=True,
             key_usage=True) -> Leaf:
        """names: DNS names, `spiffe://…` or other URIs, IP addresses."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        extensions = [(x509.BasicConstraints(ca=ca, path_length=None), True)]
        if names:
            extensions.append((x509.SubjectAlternativeName([_general(name) for name in names]), False))
        if key_usage:
            extensions.append((x509.KeyUsage(True, False, False, False, False, ca, ca, False, False), True))
        if usage:
            extensions.append((x509.ExtendedKeyUsage(usage), False))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        certificate = _build(subject, key, self.name, self.key, extensions, begins, lasts)
        return Leaf(certificate, key, self.chain if chain else [])

    def write(self, folder: Path, name: str = "ca") -> str:
        path = folder / f"{name}.pem"
        path.write_bytes(pem(self.certificate))
        return str(path)

    def crl(self, *revoked: Leaf, lasts=HOUR) -> bytes:
        now = _now()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - 2 * HOUR).next_update(now + lasts)
        for leaf in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number)
            builder = builder.add_revoked_certificate(one.revocation_date(now - HOUR).build())
        return pem(builder.sign(self.key, hashes.SHA256()))


def self_signed(*names: str) -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    san = x509.SubjectAlternativeName([_general(one) for one in names])
    usage = x509.ExtendedKeyUsage(BOTH)
    return Leaf(_build(name, key, name, key, [(san, False), (usage, False)], -HOUR, HOUR), key, [])


def rsa_key(bits: int):
    return rsa.generate_private_key(65537, bits)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _build(subject, key, issuer, issuer_key, extensions, begins, lasts) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_now() + begins).not_valid_after(_now() + lasts)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
