"""Who calls: taken from what the door says, or from the socket a call came through. Judges no permission.

Behind the door `l5d-client-id` is what the engine verified in the handshake; on the socket for operators it means
nothing, and is not looked at.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import Denied
from ..spiffe import SpiffeId

IDENTITY_FIELD = "l5d-client-id"
ADDRESS_FIELD = "x-forwarded-for"


class Peer(msgspec.Struct, frozen=True):
    """One caller."""

    identity: SpiffeId | None
    """None: it showed no certificate, or is an operator on this machine."""
    is_local: bool
    """It came through the socket that only the owner of this control plane can open."""
    address: str

    @property
    def name(self) -> str:
        """For audit and log."""
        if self.is_local:
            return "local operator"
        return str(self.identity) if self.identity is not None else f"nobody at {self.address}"


LOCAL = Peer(None, True, "local")


class Peers:
    """Tells callers of one server apart."""

    def __init__(self, trust_domain: str, *, is_local: bool) -> None:
        self._trust_domain = trust_domain
        self._is_local = is_local

    def of(self, context: Any) -> Peer:
        """Who called; nobody (no identity) unless the door vouches for more."""
        if self._is_local:
            return LOCAL
        fields: dict[str, str] = {}
        for name, value in context.invocation_metadata():
            if name in (IDENTITY_FIELD, ADDRESS_FIELD):
                # Twice is not what our door does.
                fields[name] = "" if name in fields else str(value)
        address = fields.get(ADDRESS_FIELD, "")[:64]
        try:
            identity = SpiffeId.parse(fields.get(IDENTITY_FIELD, ""))
        except ValueError:
            return Peer(None, False, address)
        return Peer(identity if identity.trust_domain == self._trust_domain else None, False, address)

    def member(self, context: Any) -> Peer:
        """The caller, who must be a member of the mesh; Denied otherwise."""
        peer = self.of(context)
        if peer.identity is None and not peer.is_local:
            raise Denied("no_identity", f"{peer.name} showed no certificate of the mesh")
        return peer
