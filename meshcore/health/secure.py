"""TLS of checks: who is asked must prove what the cluster's endpoints must, and is shown the same certificate. Asks nobody.

Python's ssl carries it: a few handshakes a second need no speed. It verifies the chain; whom a certificate means is told by
the rules of the engine itself, so that a check never trusts an endpoint that requests would not be sent to.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from meshcore._fastpath import tls_identity_means


@dataclass(frozen=True, slots=True)
class CheckTls:
    """How a check's connection is encrypted. Equal ones are made of the same octets."""

    digest: str
    server_name: str | None
    rules: tuple[str, ...]  # who an endpoint may be, one of
    context: ssl.SSLContext = field(compare=False, repr=False)

    def refuses(self, certificate: dict[str, Any]) -> str:
        """Why the bearer of a verified certificate is not one of those meant; empty when it is."""
        names = certificate.get("subjectAltName", ())
        uris = [text.encode() for kind, text in names if kind == "URI"]
        # X509-SVID 2: a certificate with a SPIFFE id has no other URI.
        if len(uris) > 1 and any(uri.lower().startswith(b"spiffe://") for uri in uris):
            return "its certificate has several URIs"
        for kind, text in names:
            if kind in ("URI", "DNS") and any(tls_identity_means(rule, text.encode(), kind == "DNS") for rule in self.rules):
                return ""
        shown = ", ".join(f"{kind}:{text}" for kind, text in names[:4]) or "nobody"
        return f"its certificate is of {shown}, expected {' or '.join(self.rules[:4])}"


def check_tls(plan: dict[str, Any], protocol: str) -> CheckTls:
    """From a cluster's plan of TLS: certificate, key, roots and lists as octets. `protocol`: for ALPN.

    Python reads keys and lists from files alone: they get ones in memory that have no name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # by the rules: see refuses
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if plan["only_13"] else ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    if plan["roots"] is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        with _nameless(plan["roots"]) as path:
            context.load_verify_locations(cafile=path)
    if plan["crl"] is not None:
        with _nameless(plan["crl"]) as path:
            context.load_verify_locations(cafile=path)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    for chain, key in plan["certificates"]:
        with _nameless(chain) as chain_path, _nameless(key) as key_path:
            context.load_cert_chain(chain_path, key_path)
    return CheckTls(f"{plan['digest']}-{protocol}", plan["server_name"], tuple(plan["peers"]), context)


@contextmanager
def _nameless(octets: bytes | bytearray) -> Iterator[str]:
    """A file in memory, gone when it is closed: no key of ours touches a disk."""
    fd = os.memfd_create("meshcore-check", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", buffering=0, closefd=False) as file:
            file.write(octets)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
