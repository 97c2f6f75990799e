"""The roots of the mesh as operators see and change them, one step at a time. Plans nothing: the plan is the rotation's.

A step that could cut somebody off is refused by the plan. Who is connected here has confirmed or not; who is elsewhere is
not known here, so a switch waits until no leaf can be left that somebody without the new root still shows, unless the
operator vouches for that (`is_hurried`) and everybody here has confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from meshcore.errors import Problem

from ..errors import Denied, Invalid
from ..identity import Authority, AuthorityError, KeyFileError, RotationError, Trust, TrustState, certificates, rotation
from .trust import Bundles

STEPS = ("begin", "switch", "retire", "abort")


class Roots:
    """Of one replica."""

    def __init__(
        self, trust: Trust, bundles: Bundles, read: Callable[[], Mapping[str, Authority]], make: Callable[[], Authority] | None
    ) -> None:
        """`read` gives the authorities that lie in this replica's folder now; `make` makes a new root there, where it may."""
        self._trust = trust
        self._bundles = bundles
        self._read = read
        self._make = make

    def found(self) -> dict[str, Any]:
        """How it stands."""
        state = self._trust.state
        here = {certificates.fingerprint(one.root) for one in self._here().values()}
        by_print = {certificates.fingerprint(one): one for one in self._trust.roots}
        roots = [
            {
                "fingerprint": root.fingerprint,
                "signs": root.fingerprint == state.signing,
                "has_authority_here": root.fingerprint in here,
                "added_at_s": root.added_at_s,
                "ends_at_s": by_print[root.fingerprint].not_valid_after_utc.timestamp(),
            }
            for root in state.roots
        ]
        found = {"trust_domain": state.trust_domain, "phase": state.phase, "since_s": state.since_s, "roots": roots}
        found |= {"members_here": self._bundles.watching, "unconfirmed_here": self._bundles.unconfirmed, "bundle_pem": state.bundle_pem}
        if state.phase == rotation.DISTRIBUTING:
            found["may_switch_at_s"] = rotation.may_switch_at_s(state)
        if state.phase == rotation.RETIRING:
            found["may_retire_at_s"] = rotation.may_retire_at_s(state)
        return found

    async def step(self, step: str, *, authority: str, makes_root: bool, is_hurried: bool, by: str) -> None:
        """One step; RotationError when its time has not come."""
        now_s = time.time()
        if step not in STEPS:
            raise Invalid("call", [Problem(message=f"got step {step[:40]!r}", expected="one of " + ", ".join(STEPS))])
        for one in self._here().values():
            self._trust.add(one)
        if step == "begin":
            await self._trust.begin(self._chosen(authority, makes_root), now_s, by=by)
        elif step == "switch":
            unconfirmed = self._bundles.unconfirmed
            await self._trust.switch(now_s, unconfirmed=unconfirmed if is_hurried else max(1, unconfirmed), by=by)
        elif step == "retire":
            await self._trust.retire(now_s, by=by)
        else:
            await self._trust.abort(now_s, by=by)

    def _here(self) -> Mapping[str, Authority]:
        try:
            return self._read()
        except (AuthorityError, KeyFileError, Denied) as error:
            raise RotationError(f"this replica's folder of authorities: {error}") from None

    def _chosen(self, name: str, makes_root: bool) -> Authority:
        state: TrustState = self._trust.state
        if state.phase != rotation.STEADY:
            raise RotationError(f"a rotation is under way ({state.phase}): finish it first")
        if makes_root:
            if self._make is None:
                raise RotationError(
                    "several replicas share this mesh, and a new root's key should be on none of them: make it elsewhere "
                    "(meshctl authority new-root), and put an authority below it into the folder of each"
                )
            return self._make()
        trusted = {root.fingerprint for root in state.roots}
        fresh = {known: one for known, one in self._here().items() if certificates.fingerprint(one.root) not in trusted}
        if name:
            if name not in fresh:
                raise RotationError(f"no authority {name!r} below a new root in this replica's folder; there are {_list(fresh)}")
            return fresh[name]
        if len(fresh) != 1:
            raise RotationError(f"one authority below a new root must lie in this replica's folder; there are {_list(fresh)}")
        return next(iter(fresh.values()))


def _list(known: Mapping[str, Authority]) -> str:
    return ", ".join(sorted(known)) or "none"
