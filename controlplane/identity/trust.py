"""The trust of one mesh as its replicas share it: the record of the rotation. Decides no step.

A replica signs only with an authority whose root the record names; one that lacks it signs nothing and says so. Every
step is a write that expects the record as it was read, so two operators cannot rotate at once, and every replica
follows by its watch: no restart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
from cryptography import x509

from ..audit import Audit
from ..errors import Conflict, Denied
from ..model.change import Changes, Snapshot
from ..spiffe import SpiffeId
from ..store import Store
from . import certificates, rotation
from .authority import Authority
from .proofs import HandshakeIdentity, PeerCertificate, Proof, Proved
from .rotation import RotationError, TrustState

KIND = "trust"


class Trust:
    """Whom we trust, and with what we sign, now."""

    def __init__(self, store: Store, audit: Audit, trust_domain: str, authorities: Collection[Authority]) -> None:
        self.trust_domain = trust_domain
        self._store = store
        self._audit = audit
        self._authorities = {certificates.fingerprint(one.root): one for one in authorities}
        self._state: TrustState | None = None
        self._revision = 0
        self._roots: tuple[x509.Certificate, ...] = ()
        self.on_change: list[Callable[[], None]] = []
        """Called, in the event loop, after the record was taken over and differs from the one before."""

    async def open(self, now_s: float, *, leaf_s: float = 0.0) -> None:
        """Reads the record; a mesh without one begins with the first of our authorities. `leaf_s`: how long leaves
        will live."""
        entry = await self._store.get(KIND, self.trust_domain)
        if entry is None:
            authority = next(iter(self._authorities.values()), None)
            if authority is None:
                raise RotationError(f"no authority for {self.trust_domain}: make a root, or hand one in")
            state = rotation.first(self.trust_domain, certificates.pem_of([authority.root]).decode(), now_s)
            try:
                await self._store.put(KIND, self.trust_domain, msgspec.json.encode(state), expected=0)
            except Conflict:
                pass  # another replica was faster: what it wrote counts
            else:
                self._audit.record("trust_begin", outcome="done", actor="control plane", root=state.signing)
        await self.reload()
        if rotation.noted(self.state, leaf_s) is not self.state:
            await self.step("trust_longer_leaves", lambda state: rotation.noted(state, leaf_s), by="control plane")

    async def reload(self) -> None:
        """The record as it stands in the store."""
        entry = await self._store.get(KIND, self.trust_domain)
        if entry is None:
            raise RotationError(f"the trust record of {self.trust_domain} is gone")
        self._take(entry.value, entry.revision)

    async def follow(self) -> None:
        """Takes over every change until cancelled, or until the store is closed."""
        async with await self._store.watch(None, [KIND]) as watch:
            async for event in watch:
                if isinstance(event, Snapshot):
                    found = [(one.value, one.revision) for one in event.entries if one.key == self.trust_domain]
                else:
                    assert isinstance(event, Changes)
                    found = [
                        (one.value, one.revision)
                        for one in event.changes
                        if one.key == self.trust_domain and one.value is not None
                    ]
                # A record that was deleted changes nothing: who trusts nobody is cut off.
                for value, revision in found[-1:]:
                    try:
                        self._take(value, revision)
                    except (msgspec.MsgspecError, ValueError, RotationError) as error:
                        # What was trusted before stays: a broken record must not cut the mesh apart.
                        self._audit.record(
                            "trust_follow", outcome="failed", actor="control plane", why=str(error)[:300]
                        )

    def _take(self, value: bytes, revision: int) -> None:
        state = msgspec.json.decode(value, type=TrustState)
        self._roots = certificates.chain_of_pem(state.bundle_pem.encode(), certificates.MAX_BUNDLE)
        is_new = self._state != state
        self._state, self._revision = state, revision
        if is_new:
            for told in self.on_change:
                told()

    @property
    def state(self) -> TrustState:
        if self._state is None:
            raise RotationError("the trust record is not read yet")
        return self._state

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """What is trusted now."""
        return self._roots

    def add(self, authority: Authority) -> None:
        """One more authority of ours; it signs once its root does."""
        self._authorities[certificates.fingerprint(authority.root)] = authority

    def authority(self) -> Authority:
        """The one that signs now; Denied when this replica does not have it."""
        found = self._authorities.get(self.state.signing)
        if found is None:
            raise Denied(
                "unavailable", f"this replica has no authority below the signing root {self.state.signing[:16]}"
            )
        return found

    # -- rotation ---------------------------------------------------------------------------------------------------

    async def begin(self, authority: Authority, now_s: float, *, by: str) -> None:
        """Starts to distribute the root of an authority of ours."""
        self.add(authority)
        pem = certificates.pem_of([authority.root]).decode()
        await self.step("rotation_begin", lambda state: rotation.begin(state, pem, now_s), by=by)

    async def switch(self, now_s: float, *, unconfirmed: int, by: str) -> None:
        """Signs with the new root from now on. Refused where this replica could not."""
        waiting = [one.fingerprint for one in self.state.roots if one.fingerprint not in self._authorities]
        if waiting:
            raise RotationError(f"this replica has no authority below the root {waiting[0][:16]}")
        await self.step("rotation_switch", lambda state: rotation.switch(state, now_s, unconfirmed=unconfirmed), by=by)

    async def retire(self, now_s: float, *, by: str) -> None:
        """Trusts the old root no longer."""
        await self.step("rotation_retire", lambda state: rotation.retire(state, now_s), by=by)

    async def abort(self, now_s: float, *, by: str) -> None:
        """Gives the new root up."""
        await self.step("rotation_abort", lambda state: rotation.abort(state, now_s), by=by)

    async def step(self, event: str, decide: Callable[[TrustState], TrustState], *, by: str) -> None:
        """One decision over the record as it stands, written only if nobody else wrote meanwhile."""
        await self.reload()
        try:
            state = decide(self.state)
            await self._store.put(KIND, self.trust_domain, msgspec.json.encode(state), expected=self._revision)
        except (RotationError, Conflict) as error:
            self._audit.record(event, outcome="denied", actor=by, why=str(error))
            raise
        self._audit.record(event, outcome="done", actor=by, phase=state.phase, signing=state.signing)
        await self.reload()


class PeerCertificates:
    """A certificate that is still valid proves who its owner is: for the next one, and for machines of a PKI one
    trusts.

    `also` are roots besides those of the mesh whose certificates are accepted, if they carry an identity of our trust
    domain.
    """

    def __init__(self, trust: Trust, also: Collection[x509.Certificate] = ()) -> None:
        self._trust = trust
        self._also = tuple(also)

    async def prove(self, proof: Proof, now_s: float) -> Proved:
        if not isinstance(proof, PeerCertificate):
            raise Denied("bad_proof", "not a certificate")
        try:
            chain = certificates.chain_of_der(proof.chain)
        except ValueError as error:
            raise Denied("bad_proof", str(error)) from None
        roots = [*self._trust.roots, *self._also]
        identity = certificates.verified_identity(chain, roots, self._trust.trust_domain, now_s)
        return Proved(identity, f"certificate {chain[0].serial_number:x}")


class HandshakeIdentities:
    """The owner of a connection through our door asks for his next certificate: the handshake proved who he is."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def prove(self, proof: Proof, now_s: float) -> Proved:
        if not isinstance(proof, HandshakeIdentity):
            raise Denied("bad_proof", "not an identity of a handshake")
        try:
            identity = SpiffeId.parse(proof.text)
        except ValueError as error:
            raise Denied("bad_proof", str(error)) from None
        if identity.trust_domain != self._trust.trust_domain:
            raise Denied("bad_proof", f"{identity} is of another trust domain")
        return Proved(identity, "the certificate of the connection")
