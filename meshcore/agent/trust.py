"""Whom this proxy trusts: the roots it was started with, then each bundle of the control plane, confirmed when in force.

The file that the user gave begins it. What came later is kept on disk, and is used again for as long as that file is the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import grpc.aio
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from meshcore.api import trust_pb2, trust_pb2_grpc
from meshcore.errors import ConfigError

from .certificate import CertificateError, roots_of_pem
from .state_directory import StateDirectory, StateError

FILE = "trust"
ROOTS_FILE = "roots.pem"  # as listeners read it
MAX_ROOTS = 16
MAX_BUNDLE_BYTES = 1 << 20
_log = logging.getLogger("meshcore.agent")


class Bundle(msgspec.Struct, frozen=True):
    """Roots in PEM, the trust domain they vouch for, and where in the control plane's history they stand."""

    trust_domain: str
    roots_pem: bytes
    position: str = ""


class _Saved(msgspec.Struct, frozen=True):
    began_with_sha256: bytes
    bundle: Bundle


class Trust:
    """The bundle in force. on_change is called when another one is, before it is confirmed."""

    def __init__(self, given_pem: bytes, trust_domain: str, state: StateDirectory) -> None:
        self._state = state
        self._began_with = hashlib.sha256(given_pem).digest()
        self.on_change: Callable[[Bundle], None] = lambda _: None
        try:
            roots = roots_of_pem(given_pem)
        except CertificateError as error:
            raise ConfigError(f"the trust bundle cannot be used: {error}") from None
        self.bundle = Bundle(trust_domain or trust_domain_of(roots), given_pem)
        if (saved := self._load()) is not None and saved.trust_domain == self.bundle.trust_domain:
            self.bundle = saved
        self._state.write(ROOTS_FILE, self.bundle.roots_pem)

    @property
    def roots(self) -> list[x509.Certificate]:
        return roots_of_pem(self.bundle.roots_pem)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Follow the control plane's bundle on this channel."""
        call = trust_pb2_grpc.TrustStub(channel).Watch()
        try:
            await call.write(trust_pb2.Confirmed(position=self.bundle.position))
            while (told := await call.read()) is not grpc.aio.EOF:
                self._take(told)
                await call.write(trust_pb2.Confirmed(position=told.position))
        finally:
            call.cancel()

    def _take(self, told: trust_pb2.Bundle) -> None:
        if told.trust_domain != self.bundle.trust_domain:
            raise CertificateError(f"a bundle of {told.trust_domain!r} came; this proxy is of {self.bundle.trust_domain!r}")
        if not 1 <= len(told.roots) <= MAX_ROOTS or sum(map(len, told.roots)) > MAX_BUNDLE_BYTES:
            raise CertificateError(f"a bundle of {len(told.roots)} roots came; expected 1 to {MAX_ROOTS}")
        try:
            pem = b"".join(x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM) for root in told.roots)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"a root that came cannot be read: {str(error)[:100]}") from None
        is_other = set(told.roots) != {root.public_bytes(Encoding.DER) for root in self.roots}
        self.bundle = Bundle(told.trust_domain, pem if is_other else self.bundle.roots_pem, told.position)
        self._save()
        if is_other:
            _log.info("the mesh now has %d roots", len(told.roots))
            self.on_change(self.bundle)

    def _save(self) -> None:
        try:
            self._state.write(FILE, msgspec.msgpack.encode(_Saved(self._began_with, self.bundle)))
            self._state.write(ROOTS_FILE, self.bundle.roots_pem)
        except OSError as error:
            _log.error("the trust bundle could not be saved: %s", error)

    def _load(self) -> Bundle | None:
        try:
            data = self._state.read(FILE, MAX_BUNDLE_BYTES * 2)
            saved = msgspec.msgpack.decode(data, type=_Saved) if data is not None else None
            if saved is None or saved.began_with_sha256 != self._began_with:
                return None
            roots_of_pem(saved.bundle.roots_pem)
        except (StateError, msgspec.MsgspecError, CertificateError) as error:
            _log.warning("the saved trust bundle is passed over: %s", error)
            return None
        return saved.bundle


def trust_domain_of(roots: list[x509.Certificate]) -> str:
    """The trust domain that a root names, as roots made by the control plane do (X509-SVID 3.1). ConfigError without one."""
    for root in roots:
        try:
            names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            continue
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            if uri.startswith("spiffe://"):
                return uri.removeprefix("spiffe://").partition("/")[0]
    raise ConfigError("the trust bundle does not name its trust domain; say it with --trust-domain")
