"""The plan by which one root follows another. Pure decisions over one record; stores nothing.

    steady        one root: it is trusted, and signs
    distributing  two roots are trusted, the old one signs: proxies learn the new one
    retiring      two roots are trusted, the new one signs: leaves of the old one run out
    steady        one root again, the new one

A leaf is verified wherever it may be shown at every moment of it. Proxies must trust the new root before the first
leaf of it appears, so nothing is signed with it until all have confirmed the bundle, or until those that have not can
have no valid leaf any more. The old root is trusted until its last leaf has run out. Neither wait can be skipped.
"""

from __future__ import annotations

import msgspec

from meshcore.errors import MeshError

from .authority import BACKDATE_S, LEAF_S
from .certificates import chain_of_pem, fingerprint, is_authority

STEADY, DISTRIBUTING, RETIRING = "steady", "distributing", "retiring"
SKEW_S = BACKDATE_S  # a proxy whose clock is behind shows its old leaf that much longer


class RotationError(MeshError):
    """A step whose time has not come, or that does not fit the phase. Nothing was changed."""


class Root(msgspec.Struct, frozen=True):
    """A certificate that is trusted."""

    pem: str
    fingerprint: str
    added_at_s: float


class TrustState(msgspec.Struct, frozen=True):
    """Whom the mesh trusts, and who signs: shared by all replicas."""

    trust_domain: str
    roots: tuple[Root, ...]
    signing: str
    """Fingerprint of the root whose authorities sign."""
    phase: str
    since_s: float
    longest_leaf_s: float = LEAF_S
    """The longest lifetime any leaf was given; waits follow from it."""

    def __post_init__(self) -> None:
        known = [root.fingerprint for root in self.roots]
        if self.signing not in known or len(set(known)) != len(known):
            raise RotationError("the signing root must be trusted, and each root stands there once")
        if self.phase not in (STEADY, DISTRIBUTING, RETIRING) or len(known) != (1 if self.phase == STEADY else 2):
            raise RotationError(f"{len(known)} roots do not fit the phase {self.phase!r}")

    @property
    def bundle_pem(self) -> str:
        """All roots that are trusted now."""
        return "".join(root.pem for root in self.roots)


def root_of(pem: str, now_s: float) -> Root:
    """A root from its PEM text; RotationError when it is none."""
    try:
        (certificate,) = chain_of_pem(pem.encode(), most=1)
    except ValueError as error:
        raise RotationError(f"not one certificate: {error}") from None
    if not is_authority(certificate) or certificate.subject != certificate.issuer:
        raise RotationError("not a root: it may not sign certificates, or is signed by another")
    if not certificate.not_valid_before_utc.timestamp() <= now_s < certificate.not_valid_after_utc.timestamp():
        raise RotationError("the root is not valid now")
    return Root(pem, fingerprint(certificate), now_s)


def first(trust_domain: str, root_pem: str, now_s: float) -> TrustState:
    """The beginning of a mesh."""
    root = root_of(root_pem, now_s)
    return TrustState(trust_domain, (root,), root.fingerprint, STEADY, now_s)


def begin(state: TrustState, new_root_pem: str, now_s: float) -> TrustState:
    """Trusts a second root. The old one goes on signing."""
    if state.phase != STEADY:
        raise RotationError(f"a rotation is under way ({state.phase}): finish it first")
    root = root_of(new_root_pem, now_s)
    if root.fingerprint == state.signing:
        raise RotationError("this root is the one that signs already")
    return msgspec.structs.replace(state, roots=(*state.roots, root), phase=DISTRIBUTING, since_s=now_s)


def may_switch_at_s(state: TrustState) -> float:
    """When even a member that never confirmed the bundle can have no valid leaf any more."""
    return state.since_s + state.longest_leaf_s + SKEW_S


def switch(state: TrustState, now_s: float, *, unconfirmed: int) -> TrustState:
    """Signs with the new root. `unconfirmed` counts members with a valid leaf that have not confirmed the bundle with
    both."""
    if state.phase != DISTRIBUTING:
        raise RotationError(f"no new root is being distributed (phase {state.phase})")
    if unconfirmed > 0 and now_s < may_switch_at_s(state):
        left_s = may_switch_at_s(state) - now_s
        raise RotationError(f"{unconfirmed} members have not confirmed the new root; wait for them, or {left_s:.0f} s")
    return msgspec.structs.replace(state, signing=_other(state), phase=RETIRING, since_s=now_s)


def may_retire_at_s(state: TrustState) -> float:
    """When the last leaf of the old root has run out."""
    return state.since_s + state.longest_leaf_s + SKEW_S


def retire(state: TrustState, now_s: float) -> TrustState:
    """Trusts the old root no longer."""
    if state.phase != RETIRING:
        raise RotationError(f"no old root is to be retired (phase {state.phase})")
    if now_s < may_retire_at_s(state):
        raise RotationError(f"leaves of the old root are valid for another {may_retire_at_s(state) - now_s:.0f} s")
    kept = tuple(root for root in state.roots if root.fingerprint == state.signing)
    return msgspec.structs.replace(state, roots=kept, phase=STEADY, since_s=now_s)


def abort(state: TrustState, now_s: float) -> TrustState:
    """Gives up the new root while nothing was signed with it."""
    if state.phase != DISTRIBUTING:
        raise RotationError(f"only a root that does not sign yet can be given up (phase {state.phase})")
    kept = tuple(root for root in state.roots if root.fingerprint == state.signing)
    return msgspec.structs.replace(state, roots=kept, phase=STEADY, since_s=now_s)


def noted(state: TrustState, leaf_s: float) -> TrustState:
    """Remembers that leaves may live this long: waits of later steps grow with it, and never shrink."""
    return state if leaf_s <= state.longest_leaf_s else msgspec.structs.replace(state, longest_leaf_s=leaf_s)


def _other(state: TrustState) -> str:
    return next(root.fingerprint for root in state.roots if root.fingerprint != state.signing)
