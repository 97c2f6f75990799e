"""The certificates of one comparison: P-256, one root, valid for a day. Configures nobody: see bench.peers."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from bench.shapes import MTLS, TLS

SERVER_NAME = "proxy.test"  # what clients ask proxies for: also in instruments/tls.h
BACKEND_NAME = "backend.test"
CLIENT_NAME = "client.test"


@dataclass(frozen=True)
class Credentials:
    """Paths below `directory`. `stranger` has the backend's name and a root that nobody trusts."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def cert(self, who: str) -> Path:
        return self.directory / f"{who}.pem"

    def key(self, who: str) -> Path:
        return self.directory / f"{who}.key"

    def both(self, who: str) -> Path:
        """Certificate and key in one file, as HAProxy wants them."""
        return self.directory / f"{who}-both.pem"

    def load_arguments(self, wire: str) -> list[str]:
        """What the load instrument is told: whom to trust, what to show, and how to be the backend."""
        if wire not in (TLS, MTLS):
            return []
        trusts = [f"--tls-ca={self.ca}"]
        if wire == TLS:
            return trusts
        client = [f"--tls-cert={self.cert('client')}", f"--tls-key={self.key('client')}"]
        return [*trusts, *client, f"--backend-cert={self.cert('backend')}", f"--backend-key={self.key('backend')}"]

    def make(self) -> None:
        """Writes everything, once; needs the library cryptography."""
        if self.ca.exists():
            return
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        now = datetime.datetime.now(datetime.UTC)

        def issue(
            name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
        ) -> tuple[x509.Name, ec.EllipticCurvePrivateKey, bytes]:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            above, signer = issuer or (subject, key)
            is_ca = issuer is None
            builder = (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(above)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(minutes=5))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
                .add_extension(
                    x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True
                )
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
                )
            )
            if not is_ca:
                purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                builder = builder.add_extension(
                    x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
                ).add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            signed = builder.sign(signer, hashes.SHA256())
            return subject, key, signed.public_bytes(serialization.Encoding.PEM)

        self.directory.mkdir(parents=True, exist_ok=True)
        root_name, root_key, root = issue("bench root", None)
        other_name, other_key, _ = issue("another root", None)
        for who, name, issuer in (
            ("server", SERVER_NAME, (root_name, root_key)),
            ("backend", BACKEND_NAME, (root_name, root_key)),
            ("client", CLIENT_NAME, (root_name, root_key)),
            ("stranger", BACKEND_NAME, (other_name, other_key)),
        ):
            _, key, cert = issue(name, issuer)
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            self.cert(who).write_bytes(cert)
            self.key(who).write_bytes(private)
            self.both(who).write_bytes(cert + private)
        self.ca.write_bytes(root)
