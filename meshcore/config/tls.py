"""The sections of TLS: what a listener shows and asks for, what a cluster's endpoints must prove. Reads no certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from .section import Section, SectionKind
from .units import Duration, DurationKind, DurationLike
from .values import Bad, IntKind, Key, ListKind, TextKind, WordKind

MAX_CERTIFICATES = 1000
MAX_IDENTITIES = 10_000


class VersionKind(WordKind):
    """`1.2` or `1.3`; YAML reads both as numbers."""

    def read(self, value: Any) -> str:
        return super().read(str(value) if isinstance(value, float) else value)


class IdentityKind(TextKind):
    """Who a peer may be: a SPIFFE id, every id of a trust domain, or a DNS name."""

    def __init__(self) -> None:
        super().__init__(
            "an identity",
            r"(spiffe://[A-Za-z0-9._-]{1,255}(/\*|(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+)|dns:([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+)",
            most=2050,
            hint="spiffe://trust-domain/path for one id, spiffe://trust-domain/* for all of it, dns:name for a DNS name",
        )


_PATH = TextKind("a path", most=4096)
_VERSION = VersionKind("1.2", "1.3")
_ALPN = ListKind(WordKind("h2", "http/1.1"), most=2, unique=True)
_IDENTITIES = ListKind(IdentityKind(), most=MAX_IDENTITIES, unique=True)
_ALPN_DOC = "Application protocols, ours first."


class Certificate(Section, frozen=True, kw_only=True):
    """A certificate with its chain, and its key."""

    noun: ClassVar[str] = "certificate"

    cert: Annotated[str, Key(_PATH, "PEM file: the certificate, then the intermediates above it.")]
    key: Annotated[str, Key(_PATH, "PEM file with the private key, without a passphrase.")]


class ListenerTls(Section, frozen=True, kw_only=True):
    """TLS towards clients. Files are read again at every reload; connections that are open keep what they began with."""

    noun: ClassVar[str] = "tls"

    certificates: Annotated[
        Sequence[Certificate],
        Key(
            ListKind(SectionKind(Certificate), least=1, most=MAX_CERTIFICATES),
            "Chosen by the name a client asks for (SNI), from the DNS names in each; the first serves all other names.",
        ),
    ]
    mode: Annotated[
        str,
        Key(
            WordKind("strict", "permissive"),
            "`permissive` also takes clients without TLS, as nobody: for the time of a migration.",
            "strict: a client without TLS is closed.",
        ),
    ] = "strict"
    min_version: Annotated[
        str, Key(_VERSION, "Oldest version spoken.", "1.2: with forward secrecy and AEAD ciphers only, still sound.")
    ] = "1.2"
    alpn: Annotated[
        Sequence[str] | None,
        Key(_ALPN, _ALPN_DOC, "[h2, http/1.1]; without h2 where `http2` is off, none on a `protocol: tcp` listener."),
    ] = None
    client_ca: Annotated[
        str | None,
        Key(
            _PATH,
            "PEM file with the roots that clients' certificates must lead to; several may stand in it.",
            "None: clients are not asked for a certificate.",
        ),
    ] = None
    client_auth: Annotated[
        str,
        Key(
            WordKind("auto", "off", "optional", "required"),
            "Whether clients must show a certificate. `optional`: one that is shown must be valid.",
            "auto: required with client_ca, else off.",
        ),
    ] = "auto"
    allowed_clients: Annotated[
        Sequence[str],
        Key(
            _IDENTITIES,
            "Who may send requests: `spiffe://td/path`, `spiffe://td/*`, `dns:name`. Others are answered 403.",
            "Empty: whoever client_ca vouches for.",
        ),
    ] = ()
    crl: Annotated[
        str | None,
        Key(_PATH, "PEM file with the revocation lists of the CAs that issue clients' certificates.", "None."),
    ] = None
    forwarded_client_cert: Annotated[
        str,
        Key(
            WordKind("sanitize", "set"),
            "`set` describes the client's certificate to upstreams in `x-forwarded-client-cert` (hash and name).",
            "sanitize: the field is only taken away. `l5d-client-id` names a verified client in any case.",
        ),
    ] = "sanitize"
    session_resumption: Annotated[
        str,
        Key(
            WordKind("auto", "tickets", "stateful", "off"),
            "How a returning client saves the handshake. Who it is, is looked at again.",
            "auto: tickets; stateful where clients show certificates: half the CPU there.",
        ),
    ] = "auto"
    session_lifetime: Annotated[
        DurationLike,
        Key(
            DurationKind("1m", "1d"),
            "How long a session can be resumed, never longer than the client's certificate is valid. Ticket keys change "
            "as often.",
            "1h: a stolen ticket key opens two hours at most.",
        ),
    ] = Duration("1h")
    max_sessions: Annotated[
        int,
        Key(IntKind(1, 10_000_000), "Sessions kept where they are stateful; the oldest go.", "20000: about 40 MiB."),
    ] = 20_000

    def rules(self) -> Iterator[Bad]:
        if self.client_auth in ("optional", "required") and self.client_ca is None:
            yield Bad("there is no bundle to check clients against", "set client_ca: <file>", path=("client_auth",))
        for key in ("allowed_clients", "crl"):
            if getattr(self, key) and (self.client_ca is None or self.client_auth == "off"):
                yield Bad("clients are not asked for a certificate", "set client_ca: <file>", path=(key,))
        if self.allowed_clients and self.client_auth == "optional":
            yield Bad(
                "clients without a certificate would come in unnamed", "set client_auth: required", path=("client_auth",)
            )

    @property
    def asks_clients(self) -> str:
        """client_auth with `auto` resolved."""
        if self.client_auth == "auto":
            return "off" if self.client_ca is None else "required"
        return self.client_auth


class ClusterTls(Section, frozen=True, kw_only=True):
    """TLS towards endpoints. Nothing is sent to one that does not prove who it is; there is no way to switch that off."""

    noun: ClassVar[str] = "tls"

    ca: Annotated[
        str | None,
        Key(
            _PATH,
            "PEM file with the roots that endpoints' certificates must lead to; several may stand in it.",
            "None: the roots of this system.",
        ),
    ] = None
    sni: Annotated[
        str | None,
        Key(
            TextKind("a DNS name", r"([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+", most=253),
            "The name to ask endpoints for. Without expected_identity their certificate must have it.",
            "None: no name is asked for.",
        ),
    ] = None
    expected_identity: Annotated[
        Sequence[str],
        Key(
            _IDENTITIES,
            "Who an endpoint must be, one of: `spiffe://td/path`, `spiffe://td/*`, `dns:name`.",
            "The name in sni.",
        ),
    ] = ()
    cert: Annotated[
        str | None, Key(_PATH, "PEM file: our certificate, for endpoints that ask for one.", "None.")
    ] = None
    key: Annotated[str | None, Key(_PATH, "PEM file with its private key.", "None.")] = None
    crl: Annotated[str | None, Key(_PATH, "PEM file with the revocation lists of the CAs of endpoints.", "None.")] = None
    min_version: Annotated[str, Key(_VERSION, "Oldest version spoken.", "1.2.")] = "1.2"
    alpn: Annotated[
        Sequence[str] | None,
        Key(_ALPN, _ALPN_DOC, "[http/1.1], or [h2] with `protocol: http2`. An empty list asks for none."),
    ] = None

    def rules(self) -> Iterator[Bad]:
        if self.sni is None and not self.expected_identity:
            yield Bad("nothing says who an endpoint must be", "set sni: <name>, or expected_identity: [<identity>]")
        if (self.cert is None) != (self.key is None):
            yield Bad("cert and key go together", "set both, or none", path=("cert" if self.key is None else "key",))
