"""Asks a running proxy over its admin address. Prints nothing; failures are `click` exceptions with the way out."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import click

from meshcore.cli.addresses import running_proxies

# The longest a reply may take beyond the window it was asked to measure.
PATIENCE_SECONDS = 10.0


class AdminUnavailable(click.ClickException):
    """No proxy could be asked. Exit code 1."""


def choose_admin(address: str | None) -> str:
    """The address given, else that of the only proxy running here."""
    if address:
        return address
    found = running_proxies()
    if len(found) == 1:
        return found[0]
    if not found:
        raise AdminUnavailable(
            "no running meshproxy found here; start one, or name its admin address with --admin ADDR"
        )
    listed = "\n".join(f"  --admin {candidate}" for candidate in found)
    raise AdminUnavailable(f"{len(found)} proxies run here; choose one:\n{listed}")


class AdminClient:
    """One proxy's admin endpoints. address: "unix:/path" or "HOST:PORT"."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_json(self, path: str, query: Mapping[str, Any] | None = None, *, wait_s: float = 0.0) -> Any:
        """wait_s: how long the endpoint is meant to take before it answers."""
        return json.loads(self._ask("GET", path, query or {}, PATIENCE_SECONDS + wait_s)[1])

    def get_text(self, path: str) -> tuple[int, str]:
        return self._ask("GET", path, {}, PATIENCE_SECONDS, any_status=True)

    def stream(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """Lines of a stream that has no end of its own; it ends when the proxy does."""
        connection = self._open(None)
        try:
            response = self._request(connection, "GET", path, query)
            if response.status != 200:
                raise click.ClickException(response.read().decode(errors="replace").strip())
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise AdminUnavailable(f"{self.address}: the proxy went away: {error}") from error
        finally:
            connection.close()

    def _ask(
        self, method: str, path: str, query: Mapping[str, Any], timeout_s: float, *, any_status: bool = False
    ) -> tuple[int, str]:
        connection = self._open(timeout_s)
        try:
            response = self._request(connection, method, path, query)
            body = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise AdminUnavailable(f"{self.address}: no answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200 and not any_status:
            raise click.ClickException(f"{self.address}: {body.strip() or response.reason}")
        return response.status, body

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: str, query: Mapping[str, Any]
    ) -> http.client.HTTPResponse:
        given = {name: value for name, value in query.items() if value not in (None, "")}
        connection.request(method, f"{path}?{urlencode(given)}" if given else path)
        return connection.getresponse()

    def _open(self, timeout_s: float | None) -> http.client.HTTPConnection:
        try:
            if self.address.startswith("unix:"):
                return _UnixConnection(self.address.removeprefix("unix:"), timeout_s)
            host, colon, port = self.address.rpartition(":")
            if not colon or not port.isdigit():
                raise click.BadParameter(
                    f"{self.address!r}: expected unix:/path or 127.0.0.1:PORT", param_hint="--admin"
                )
            connection = http.client.HTTPConnection(host.strip("[]") or "127.0.0.1", int(port), timeout=timeout_s)
            connection.connect()
            return connection
        except OSError as error:
            reason = error.strerror or error
            raise AdminUnavailable(f"{self.address}: {reason}; does the proxy run, and under this address?") from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise
