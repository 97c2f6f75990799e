"""One check of one endpoint over TCP or HTTP/1.1, encrypted or not, within its time. Judges the answer; counts and remembers nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl

from ..config import Duration
from .secure import CheckTls
from .targets import Target

HEAD_BYTES = 16_384  # of an answer: what is longer is not worth reading to learn a status
MOST_INTERIM = 8  # answers 1xx before the one that counts
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
# What this machine lacks is not the endpoint's fault.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}

PASSED = "passed"
UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
BAD_ANSWER = "bad_answer"
UNASKED = "unasked"  # says nothing of the endpoint
RESULTS = (PASSED, UNREACHABLE, TIMEOUT, BAD_ANSWER, UNASKED)


class CheckFailed(Exception):
    """A check that did not pass: one of RESULTS, and why in words."""

    def __init__(self, result: str, words: str) -> None:
        super().__init__(words)
        self.result = result
        # Endpoints choose some of these bytes, and they end up in logs and on terminals.
        self.words = "".join(letter if letter.isprintable() else "?" for letter in words[:200])


async def ask(target: Target) -> None:
    """Raises CheckFailed unless the endpoint is well."""
    within = Duration(target.check.timeout)
    deadline = asyncio.get_running_loop().time() + target.timeout_s
    try:
        if target.check.type == "grpc":
            from .grpc_probe import ask_grpc

            async with asyncio.timeout_at(deadline):
                await ask_grpc(target)
            return
        try:
            async with asyncio.timeout_at(deadline):
                reader, writer = await connect(target)
        except TimeoutError:
            raise CheckFailed(TIMEOUT, f"no connection within {within}") from None
        except OSError as error:
            raise CheckFailed(UNASKED if error.errno in _OURS else UNREACHABLE, words_of(error)) from None
        try:
            async with asyncio.timeout_at(deadline):
                writer.write(target.prefix)
                if target.tls is not None:
                    await encrypt(target.tls, writer)
                if target.check.type == "http":
                    await _ask_http(target, reader, writer)
        finally:
            writer.close()
    except TimeoutError:
        raise CheckFailed(TIMEOUT, f"no answer within {within}") from None
    except ssl.SSLError as error:
        raise CheckFailed(BAD_ANSWER, tls_words(error)) from None
    except OSError as error:
        raise CheckFailed(BAD_ANSWER, words_of(error)) from None


async def encrypt(tls: CheckTls, writer: asyncio.StreamWriter) -> None:
    """A handshake, and the look at who answered. Raises CheckFailed for somebody else, ssl.SSLError for nobody to trust."""
    await writer.start_tls(tls.context, server_hostname=tls.server_name)
    words = tls.refuses(writer.get_extra_info("ssl_object").getpeercert() or {})
    if words:
        raise CheckFailed(BAD_ANSWER, words)


def tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"


async def connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target.place, str):
        return await asyncio.open_unix_connection(target.place, limit=HEAD_BYTES)
    return await asyncio.open_connection(*target.place, limit=HEAD_BYTES)


async def _ask_http(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        f"GET {target.check.path} HTTP/1.1\r\nhost: {target.authority}\r\n"
        "user-agent: meshcore-health-check\r\naccept: */*\r\nconnection: close\r\n\r\n".encode("ascii")
    )
    for _ in range(MOST_INTERIM + 1):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise CheckFailed(BAD_ANSWER, f"the head of its answer is larger than {HEAD_BYTES} bytes") from None
        except asyncio.IncompleteReadError as error:
            ended = "within the head of its answer" if error.partial else "without an answer"
            raise CheckFailed(BAD_ANSWER, f"it closed {ended}") from None
        match = _STATUS_LINE.match(head)
        if match is None:
            raise CheckFailed(BAD_ANSWER, f"its answer is no HTTP/1.1: {head[:40].decode('latin-1')!r}")
        status = int(match[1])
        if status >= 200 or status == 101:
            break
    if not target.accepts(status):
        expected = ", ".join(str(text) for text in target.check.expect)  # type: ignore[union-attr]
        raise CheckFailed(BAD_ANSWER, f"it answered {status}, expected {expected}")


def words_of(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error) or "it closed within the handshake"
