"""Who this proxy is: the first certificate by a token, each next one by the certificate before, in time. Judges it on arrival."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from meshcore.api import identity_pb2, identity_pb2_grpc
from meshcore.errors import MeshError

from .backoff import Backoff
from .certificate import Certificate, CertificateError, Request, load, save
from .dialing import Shown, Unreachable, dial
from .state_directory import StateDirectory
from .trust import Trust

CERTIFY_S = 10.0
LOOK_S = 30.0  # the wall clock may jump, and a machine may sleep: the time to renew is looked at so often
LEAST_WAIT_S, MOST_WAIT_S = 0.2, 30.0
MAX_TOKEN_BYTES = 16_384
_FINAL = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
_log = logging.getLogger("meshcore.agent")


class JoinError(MeshError):
    """The control plane refuses this workload: trying again with the same token will not help."""

    default_source = "config"


class Identity:
    """The certificate in force. on_change is called with each new one, on the agent's loop."""

    def __init__(self, identity: str, token_file: Path | None, trust: Trust, state: StateDirectory) -> None:
        self.identity = identity
        self._token_file = token_file
        self._trust = trust
        self._state = state
        self.certificate = load(identity, trust.roots, state, time.time())
        self.on_change: Callable[[Certificate], None] = lambda _: None
        self.renewals = 0
        self.failures = 0
        self.last_error = ""
        self._asked = asyncio.Event()

    def renew(self) -> None:
        """Ask for the next certificate now. On the agent's loop."""
        self._asked.set()

    @property
    def is_usable(self) -> bool:
        return self.certificate is not None and self.certificate.is_usable(time.time())

    def shown(self) -> Shown:
        """For a handshake: with the certificate when there is one that still holds."""
        roots = self._trust.bundle.roots_pem
        if self.certificate is None or not self.is_usable:
            return Shown(roots)
        return Shown(roots, self.certificate.key_pem, self.certificate.chain_pem)

    async def join(self, addresses: list[str]) -> None:
        """Get a certificate by token, from whichever control plane answers. Returns at once when there is one already.

        JoinError when all that answer refuse; otherwise it goes on trying.
        """
        backoff = Backoff(LEAST_WAIT_S, MOST_WAIT_S)
        turn = 0
        while not self.is_usable:
            token = self._token()
            address = addresses[turn % len(addresses)]
            turn += 1
            try:
                channel = await dial(address, Shown(self._trust.bundle.roots_pem))
                try:
                    await self._certify(channel, token)
                    return
                finally:
                    await channel.close()
            except grpc.aio.AioRpcError as error:
                if error.code() in _FINAL:
                    raise JoinError(f"{address} refuses to certify {self.identity}: {error.details()}") from None
                self._failed(f"{address}: {error.code().name}: {error.details()}")
            except (Unreachable, CertificateError) as error:
                self._failed(str(error))
            await asyncio.sleep(backoff.next_s())

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Renew in time, on this channel."""
        while True:
            assert self.certificate is not None
            renew_at_s = self.certificate.renew_at_s()
            while time.time() < renew_at_s and not self._asked.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_S, max(0.05, renew_at_s - time.time()))):
                        await self._asked.wait()
            try:
                await self._certify(channel, b"")
            except (grpc.aio.AioRpcError, CertificateError) as error:
                self._failed(f"renewal: {error.details() if isinstance(error, grpc.aio.AioRpcError) else error}")
                raise
            return  # a connection with the new certificate runs this again

    async def _certify(self, channel: grpc.aio.Channel, token: bytes) -> None:
        request = Request(self.identity)
        asked = identity_pb2.CertifyRequest(identity=self.identity, token=token, certificate_signing_request=request.der)
        got = await identity_pb2_grpc.IdentityStub(channel).Certify(asked, timeout=CERTIFY_S)
        parts = [got.leaf_certificate, *got.intermediate_certificates]
        fresh = request.accept(parts, self._trust.roots, time.time())
        try:
            save(fresh, self._state)
        except OSError as error:
            _log.error("the certificate could not be saved, and is lost with this process: %s", error)
        self.certificate = fresh
        self._asked.clear()
        self.renewals += 1
        self.last_error = ""
        _log.info("certificate of %s until %s", fresh.identity, time.strftime("%FT%TZ", time.gmtime(fresh.not_after_s)))
        self.on_change(fresh)

    def _token(self) -> bytes:
        if self._token_file is None:
            raise JoinError(f"no certificate of {self.identity} in {self._state.path}, and no --join-token to ask for one")
        try:
            # Read each time: Kubernetes renews the file.
            with self._token_file.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except OSError as error:
            raise JoinError(f"--join-token {self._token_file}: {error.strerror}") from None
        if not 1 <= len(token) <= MAX_TOKEN_BYTES:
            raise JoinError(f"--join-token {self._token_file}: {len(token)} bytes; expected a token")
        return token

    def _failed(self, why: str) -> None:
        self.failures += 1
        if why != self.last_error:
            _log.warning("no certificate yet: %s", why)
        self.last_error = why
