"""The door of the control plane: a proxy of our own that speaks TLS with everybody and says who called. Serves nothing.

Behind it stands gRPC on a unix socket that only this user can open. The engine brings what a public address needs and
gRPC's Python server has not: client certificates that may be left out (a newcomer has none yet), certificates and roots
that are replaced while connections stay, bounds on handshakes, resets, pings and slow heads, idle connections at a few
hundred bytes. Who a caller is comes in `l5d-client-id`, from a certificate that the engine has verified; the field is
taken from what strangers send.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshcore import Proxy

from .identity import Leaf, PrivateKey
from .identity.certificates import pem_of
from .settings import Settings

LISTENER = "proxies"


class Door:
    """One listener, in front of one unix socket."""

    def __init__(self, settings: Settings, folder: Path, backend: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._backend = backend
        self._proxy: Proxy | None = None

    async def open(self, leaf: Leaf, key: PrivateKey, bundle_pem: bytes) -> None:
        """Accepts connections from now on. OSError when the address cannot be had."""
        # The proxy takes paths where it starts, and octets afterwards: what lies there is replaced by `show`.
        for name, octets in (("door.pem", pem_of(leaf.chain)), ("door.key", key.pem()), ("roots.pem", bundle_pem)):
            with open(os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(octets)
        self._proxy = Proxy(self._config())
        await asyncio.to_thread(self._proxy.start)

    async def show(self, leaf: Leaf, key: PrivateKey, bundle_pem: bytes) -> None:
        """Uses this certificate, and trusts these roots, from the next handshake on."""
        assert self._proxy is not None
        await asyncio.to_thread(self._proxy.set_certificate, LISTENER, pem_of(leaf.chain), bytearray(key.pem()))
        await asyncio.to_thread(self._proxy.set_trust_bundle, LISTENER, bundle_pem)

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        assert self._proxy is not None
        host, port = self._proxy.addresses[LISTENER]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def proxy(self) -> Proxy:
        """For its statistics."""
        assert self._proxy is not None
        return self._proxy

    async def drain(self, timeout_s: float) -> bool:
        """Takes no new connections; True when every call has ended."""
        return self._proxy is None or await asyncio.to_thread(self._proxy.drain, timeout_s)

    async def close(self) -> None:
        """Ends what is left."""
        if self._proxy is not None:
            await asyncio.to_thread(self._proxy.stop)

    def _config(self) -> Mapping[str, Any]:
        bounds = self._settings.bounds
        return {
            "workers": 1,
            "listeners": [
                {
                    "name": LISTENER,
                    "address": self._settings.listen,
                    "routes": ["all"],
                    "tls": {
                        "certificates": [
                            {"cert": str(self._folder / "door.pem"), "key": str(self._folder / "door.key")}
                        ],
                        "client_ca": str(self._folder / "roots.pem"),
                        "client_auth": "optional",
                        "min_version": "1.3",
                        "alpn": ["h2"],
                    },
                }
            ],
            "routes": [
                {
                    "name": "all",
                    "to": "services",
                    # Watches are quiet for hours. Their ends have heartbeats of their own.
                    "timeout": 0,
                    "idle_timeout": 0,
                    "retries": {"max_attempts": 1},
                    "upgrade": False,
                }
            ],
            "clusters": [
                {
                    "name": "services",
                    "endpoints": [f"unix:{self._backend}"],
                    "protocol": "http2",
                    "max_requests": max(bounds.streams, 1_000),
                    "breaker": {"consecutive_failures": 0},
                    "pool": {"idle_timeout": 0},
                }
            ],
            "limits": {
                "http2_max_streams": bounds.streams_per_connection,
                "max_in_flight": bounds.streams,
                "max_requests_per_connection": 0,
                # A stream that only listens sends nothing.
                "body_min_rate": 0,
            },
            "forwarding": {"x_forwarded": "replace", "via": "", "request_id": False, "traceparent": False},
        }
