"""Kubernetes service-account tokens, judged by the API server itself (TokenReview). Keeps no token, and reads none.

The audience matters: without one, any token that a pod ever sent to some service would open the mesh to that service.
The API server must confirm ours; one that ignores audiences confirms none, and is refused.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from ..errors import Denied, StoreUnavailable
from ..spiffe import SpiffeId
from .proofs import Proof, Proved, ServiceAccountToken

AUDIENCE = "meshcore"
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
MAX_TOKEN_CHARS = 16_384
MAX_ANSWER_BYTES = 262_144
TIMEOUT_S = 5.0


class KubernetesTokens:
    """Asks one API server. `own_token_file` is read again each time: Kubernetes renews it in place."""

    def __init__(
        self,
        api_url: str,
        trust_domain: str,
        *,
        own_token_file: str | Path,
        tls: ssl.SSLContext | None = None,
        audience: str = AUDIENCE,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = api_url.rstrip("/") + PATH
        self._trust_domain = trust_domain
        self._own_token_file = Path(own_token_file)
        self._tls = tls
        self._audience = audience
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def prove(self, proof: Proof, now_s: float) -> Proved:
        """Whose token it is; Denied when it is nobody's. StoreUnavailable when the API server did not say."""
        if not isinstance(proof, ServiceAccountToken):
            raise Denied("bad_proof", "not a service-account token")
        token = proof.text
        if not 1 <= len(token) <= MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
            raise Denied("bad_proof", "not a service-account token")
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        return self._judge(await self._ask(review))

    def _judge(self, status: dict[str, Any]) -> Proved:
        if status.get("authenticated") is not True:
            raise Denied(
                "bad_proof",
                f"the API server does not accept the token: {str(status.get('error') or 'no reason')[:200]}",
            )
        audiences = status.get("audiences")
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise Denied("bad_proof", f"the token is not meant for {self._audience!r}")
        user = status.get("user")
        name = user.get("username") if isinstance(user, dict) else None
        parts = name.split(":") if isinstance(name, str) else []
        if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"]:
            raise Denied("bad_proof", f"{str(name)[:100]!r} is not a service account")
        try:
            identity = SpiffeId.of(self._trust_domain, parts[2], parts[3])
        except ValueError as error:
            raise Denied("bad_proof", str(error)) from None
        return Proved(identity, f"Kubernetes service account {parts[2]}/{parts[3]}")

    async def _ask(self, review: dict[str, Any]) -> dict[str, Any]:
        try:
            own_token = self._own_token_file.read_text().strip()
            tls: ssl.SSLContext | bool = self._tls if self._tls is not None else True
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(
                    self._url,
                    data=msgspec.json.encode(review),
                    ssl=tls,
                    allow_redirects=False,
                    headers={
                        "Authorization": f"Bearer {own_token}",
                        "Content-Type": "application/json",
                        "Accept": "application/json",
                    },
                ) as answer,
            ):
                data = await answer.content.read(MAX_ANSWER_BYTES + 1)
                while len(data) <= MAX_ANSWER_BYTES and (part := await answer.content.read(MAX_ANSWER_BYTES)):
                    data += part
                if answer.status not in (200, 201):
                    raise StoreUnavailable(
                        f"the API server answered a TokenReview with {answer.status}", is_unsent=True
                    )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The type alone: the text may hold the URL's credentials or a header.
            raise StoreUnavailable(f"no answer from the API server: {type(error).__name__}", is_unsent=True) from None
        try:
            decoded = msgspec.json.decode(data) if len(data) <= MAX_ANSWER_BYTES else None
        except msgspec.DecodeError:
            decoded = None
        status = decoded.get("status") if isinstance(decoded, dict) else None
        if not isinstance(status, dict):
            raise StoreUnavailable("the API server's answer is no TokenReview", is_unsent=True)
        return status
