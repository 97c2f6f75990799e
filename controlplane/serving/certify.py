"""Identity: a signing request and a proof come in, a certificate goes out. Owns the wire, not the judgement."""

from __future__ import annotations

from typing import Any

import grpc
from cryptography.hazmat.primitives import serialization

from meshcore.api import identity_pb2, identity_pb2_grpc

from ..errors import Denied
from ..identity import HandshakeIdentity, Issuer, JoinToken, Proof, ServiceAccountToken
from .answers import refuse
from .peers import Peer, Peers

MAX_TOKEN_BYTES = 16_384


class Certify(identity_pb2_grpc.IdentityServicer):  # type: ignore[misc]
    """linkerd's Identity service. Certificates travel as DER; requests may be PEM too."""

    def __init__(self, issuer: Issuer, peers: Peers) -> None:
        self._issuer = issuer
        self._peers = peers

    async def Certify(self, request: Any, context: Any) -> Any:
        peer = self._peers.of(context)
        try:
            issued = await self._issuer.certify(
                request.certificate_signing_request,
                _proof(request.token, peer),
                peer=str(peer.identity) if peer.identity is not None else peer.address,
                wanted=request.identity,
            )
        except Exception as error:
            if isinstance(error, grpc.RpcError):
                raise
            await refuse(context, error)
        chain = [one.public_bytes(serialization.Encoding.DER) for one in issued.leaf.chain]
        answer = identity_pb2.CertifyResponse(leaf_certificate=chain[0], intermediate_certificates=chain[1:])
        answer.valid_until.FromSeconds(int(issued.leaf.not_after_s))
        return answer


def _proof(token: bytes, peer: Peer) -> Proof:
    """A token counts more than the certificate: a machine may join anew under another identity."""
    if not token:
        if peer.identity is None:
            raise Denied("bad_proof", "neither a token nor a certificate")
        return HandshakeIdentity(str(peer.identity))
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise Denied("bad_proof", f"a token of {len(token)} octets, or not ASCII")
    text = token.decode().strip()
    return JoinToken(text) if text.startswith("mesh1.") else ServiceAccountToken(text)
