"""One signing authority: a root of our own, or an intermediate that was handed in. Signs; judges nobody.

What we sign is the same for everybody: P-256 or what the request brings, one URI SAN and no other name, client and
server use, 24 hours. Authorities we make may not vouch for host names or addresses at all (name constraints), so a
stolen key of the mesh imitates no web site, even where someone put its root into a system's store. They are not
limited to URIs of the trust domain: half of today's verifiers (webpki, cryptography) refuse every chain with a URI
constraint. Trust domains are compared by whoever verifies.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import Denied
from ..spiffe import TRUST_DOMAIN_WHAT, SpiffeId, is_trust_domain
from . import certificates
from .keys import PrivateKey

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

DAY_S = 86_400
LEAF_S = DAY_S  # short enough that a stolen key is of little use, long enough to survive a night without control plane
MIN_LEAF_S = 300
MAX_LEAF_S = 7 * DAY_S
ROOT_S = 3_650 * DAY_S
INTERMEDIATE_S = 365 * DAY_S
BACKDATE_S = 60  # clocks of a fleet differ by seconds; without it a fresh certificate is "not yet valid" somewhere
RENEW_AFTER = 0.7  # of the lifetime: seven hours are left to survive an outage of the control plane


class AuthorityError(Exception):
    """A certificate and key that cannot be an authority of this trust domain."""


class Leaf(msgspec.Struct, frozen=True):
    """What was issued: the chain, leaf first, without the root."""

    identity: SpiffeId
    chain: tuple[x509.Certificate, ...]
    serial: int
    not_before_s: float
    not_after_s: float

    @property
    def renew_at_s(self) -> float:
        """When its owner should ask for the next one."""
        return self.not_before_s + BACKDATE_S + (self.not_after_s - self.not_before_s - BACKDATE_S) * RENEW_AFTER


class Authority:
    """A key, and the certificates from it up to its root."""

    def __init__(self, trust_domain: str, key: PrivateKey, chain: Sequence[x509.Certificate], now_s: float) -> None:
        """`chain` begins with the authority's own certificate and ends with its root.

        AuthorityError when what it would sign could not be verified.
        """
        self.trust_domain = _checked(trust_domain)
        self.chain = tuple(chain)
        self._key = key
        if not self.chain or self.chain[0].public_key() != key.public:
            raise AuthorityError("the key does not belong to the first certificate of the chain")
        if self.root.issuer != self.root.subject:
            raise AuthorityError("the chain does not end with a root: append it, it is what proxies will trust")
        # What matters is whether leaves hold: so one is made, and judged by the verifier that will judge all others.
        try:
            probe = self.issue(
                PrivateKey.generate().public, SpiffeId(trust_domain, "probe", "probe"), now_s, MIN_LEAF_S
            )
            certificates.verified_identity(probe.chain, [self.root], trust_domain, now_s)
        except Denied as denied:
            raise AuthorityError(f"what this authority signs would not be trusted: {denied.why}") from None

    @classmethod
    def new_root(cls, trust_domain: str, now_s: float, lifetime_s: int = ROOT_S) -> Authority:
        """A new root with a new key. It may sign intermediates that sign leaves, no deeper."""
        key = PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"meshcore root of {_checked(trust_domain)}"[:64])])
        builder = _authority(name, name, key.public, trust_domain, now_s, lifetime_s, path_length=1)
        return cls(trust_domain, key, [builder.sign(key.signer, hashes.SHA256())], now_s)

    def new_intermediate(self, now_s: float, lifetime_s: int = INTERMEDIATE_S) -> Authority:
        """An authority below this one, which signs leaves only: for one replica, so that the root's key can stay
        away."""
        key = PrivateKey.generate()
        serial = f"{x509.random_serial_number() >> 96:x}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"meshcore {serial} of {self.trust_domain}"[:64])])
        end_s = min(now_s + lifetime_s, self.not_after_s)
        builder = _authority(
            name, self.chain[0].subject, key.public, self.trust_domain, now_s, end_s - now_s, path_length=0
        ).add_extension(self._issuer(), critical=False)
        return Authority(self.trust_domain, key, [builder.sign(self._key.signer, hashes.SHA256()), *self.chain], now_s)

    @property
    def root(self) -> x509.Certificate:
        return self.chain[-1]

    @property
    def key(self) -> PrivateKey:
        """To be kept in its file."""
        return self._key

    @property
    def not_after_s(self) -> float:
        """When the first certificate of the chain ends, and with it everything signed."""
        return min(one.not_valid_after_utc.timestamp() for one in self.chain)

    def issue(
        self,
        public_key: PublicKey,
        identity: SpiffeId,
        now_s: float,
        lifetime_s: int = LEAF_S,
        *,
        common_name: str = "",
    ) -> Leaf:
        """A leaf for a key whose owner was proved to be `identity`. Denied when it would not live long enough to be
        renewed.

        `common_name` is for the control plane alone: gRPC's clients compare a name with what they dialled, know no URIs,
        and fall back to it. It has no dot, so nobody takes it for a host name.
        """
        if identity.trust_domain != self.trust_domain:
            raise Denied("not_yours", f"{identity} is not of {self.trust_domain}")
        lifetime_s = max(MIN_LEAF_S, min(lifetime_s, MAX_LEAF_S))
        start_s = float(int(now_s)) - BACKDATE_S
        end_s = min(float(int(now_s)) + lifetime_s, self.not_after_s)
        if end_s < int(now_s) + MIN_LEAF_S:
            raise Denied("unavailable", "the authority itself ends within minutes: rotate it")
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        serial = x509.random_serial_number()  # 159 random bits, CA/B 7.1 asks for 64
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.chain[0].subject)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(_time(start_s))
            .not_valid_after(_time(end_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            # RFC 5280 4.2.1.6: critical, because there is no other name.
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._issuer(), critical=False)
            .sign(self._key.signer, hashes.SHA256())
        )
        return Leaf(identity, (leaf, *self.chain[:-1]), serial, start_s, end_s)

    def _issuer(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.chain[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public)

    def __repr__(self) -> str:
        return f"<Authority of {self.trust_domain}, root {certificates.fingerprint(self.root)[:16]}>"


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    trust_domain: str,
    now_s: float,
    lifetime_s: float,
    path_length: int,
) -> x509.CertificateBuilder:
    everywhere = [x509.IPAddress(ipaddress.ip_network(network)) for network in ("0.0.0.0/0", "::/0")]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_s - BACKDATE_S))
        .not_valid_after(_time(now_s + lifetime_s))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(None, [x509.DNSName(""), *everywhere]), critical=True)
        # X509-SVID 3.1: a signing certificate names its trust domain, without a path.
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _time(at_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(at_s), datetime.UTC)


def _checked(trust_domain: str) -> str:
    if not is_trust_domain(trust_domain):
        raise AuthorityError(f"{trust_domain[:80]!r} cannot name a trust domain; expected {TRUST_DOMAIN_WHAT}")
    return trust_domain
