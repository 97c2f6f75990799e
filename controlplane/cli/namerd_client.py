"""How meshctl reaches a namerd: its HTTP interface, with a token or a certificate. Prints nothing.

Any namerd will do: what only ours has (history, resume tokens) is asked for where a command needs it.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import click

DEFAULT_URL = "http://127.0.0.1:4180"
TIMEOUT_S = 20.0
DTAB = "application/dtab"


class Refused(click.ClickException):
    """namerd answered, and not as wished."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class NamerdClient:
    """One namerd, or what stands in front of several."""

    def __init__(self, url: str, token_file: str = "", roots: str = "", cert: str = "", key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise click.UsageError(f"--namerd {url!r}: expected http://host:port or https://host:port")
        self.url = url.rstrip("/")
        self._headers: dict[str, str] = {}
        if token_file:
            with open(token_file, encoding="utf-8") as file:
                self._headers["Authorization"] = f"Bearer {file.read().strip()}"
        self._context: ssl.SSLContext | None = None
        if self.url.startswith("https://"):
            self._context = ssl.create_default_context(cafile=roots or None)
            if cert:
                self._context.load_cert_chain(cert, key or None)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[bytes, str]:
        """(body, version). What goes wrong is told in words."""
        with self.open(method, path, body, TIMEOUT_S, **headers) as answer:
            data: bytes = answer.read()
            return data, str(answer.headers.get("ETag") or "")

    def json(self, path: str) -> Any:
        return json.loads(self.ask("GET", path, accept="application/json")[0])

    def lines(self, path: str, timeout_s: float) -> Iterator[bytes]:
        """A stream, until it ends, breaks or is silent for too long."""
        with self.open("GET", path, None, timeout_s) as answer:
            yield from answer

    def open(self, method: str, path: str, body: bytes | None, timeout_s: float, **headers: str) -> Any:
        names = {"kind": "Content-Type", "accept": "Accept", "match": "If-Match"}
        wanted = {**self._headers, **{names[key]: value for key, value in headers.items() if value}}
        request = urllib.request.Request(f"{self.url}/api/1{path}", body, wanted, method=method)
        try:
            return urllib.request.urlopen(request, timeout=timeout_s, context=self._context)
        except urllib.error.HTTPError as error:
            told = error.read(4096).decode(errors="replace").strip() or error.reason
            raise Refused(error.code, _meaning(error.code, told)) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise click.ClickException(f"no namerd answers at {self.url}: {why} (--namerd, or MESHCTL_NAMERD)") from None


def _meaning(status: int, told: str) -> str:
    if status == 403:
        return f"{told}\nA write needs the right to: --token-file, or --cert and --key of a writer."
    if status == 412:
        return f"{told}\nSomebody was faster: look at it with `meshctl dtab get`, and try again."
    return told


def with_namerd(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where namerd is, and hands the command a client first."""

    @click.option(
        "--namerd",
        "url",
        metavar="URL",
        default=lambda: os.environ.get("MESHCTL_NAMERD") or os.environ.get("NAMERCTL_BASE_URL") or DEFAULT_URL,
        show_default=DEFAULT_URL,
        help="Its HTTP interface; also MESHCTL_NAMERD or NAMERCTL_BASE_URL.",
    )
    @click.option("--token-file", default="", envvar="MESHCTL_NAMERD_TOKEN_FILE", metavar="FILE", help="Holds a token that may write.")
    @click.option("--roots", default="", metavar="FILE", help="Whom to trust, for https.  [default: as the system]")
    @click.option("--cert", default="", metavar="FILE", help="A certificate of ours, for https.")
    @click.option("--key", default="", metavar="FILE", help="Its key.")
    @functools.wraps(command)
    def called(url: str, token_file: str, roots: str, cert: str, key: str, **words: Any) -> Any:
        return command(NamerdClient(url, token_file, roots, cert, key), **words)

    return called


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
