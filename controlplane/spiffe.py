"""SPIFFE ids of the mesh: `spiffe://<trust-domain>/ns/<namespace>/sa/<account>`. Text only: no certificate, no policy.

Exactly this shape is an identity here. A path with more segments is refused rather than understood in part: a policy
that matches `*/ns/admin/*` would otherwise accept `spiffe://d/ns/dev/sa/ns/admin/x`.
"""

from __future__ import annotations

import re

import msgspec

# SPIFFE-ID 2.1: lower case letters, digits, dots, dashes, underscores; at most 255 bytes.
_TRUST_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ID = re.compile(rf"spiffe://([a-z0-9._-]{{1,255}})/ns/({_LABEL})/sa/({_LABEL}(?:\.{_LABEL})*)")

SPIFFE_WHAT = "spiffe://<trust-domain>/ns/<namespace>/sa/<account>"
TRUST_DOMAIN_WHAT = "a trust domain: a-z, 0-9, '.', '-' and '_', at most 255, like 'mesh.example.org'"


class SpiffeId(msgspec.Struct, frozen=True):
    """Who a workload is."""

    trust_domain: str
    namespace: str
    account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}"

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """The parts of an id; ValueError for anything that is not exactly one."""
        match = _ID.fullmatch(text) if len(text) <= 2048 else None
        if match is None or not is_trust_domain(match[1]) or len(match[3]) > 253:
            shown = text if len(text) <= 80 else text[:79] + "…"
            raise ValueError(f"{shown!r} is no identity of the mesh; expected {SPIFFE_WHAT}")
        return cls(match[1], match[2], match[3])

    @classmethod
    def of(cls, trust_domain: str, namespace: str, account: str) -> SpiffeId:
        """Put together and checked."""
        return cls.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}")


def is_spiffe_id(text: str) -> bool:
    """Whether `parse` accepts it."""
    try:
        SpiffeId.parse(text)
    except ValueError:
        return False
    return True


def is_trust_domain(text: str) -> bool:
    """Whether it can name a trust domain."""
    return len(text) <= 255 and _TRUST_DOMAIN.fullmatch(text) is not None
