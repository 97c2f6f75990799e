"""Errors as gRPC statuses: one table, and the hint when to come again. Decides nothing.

Peers learn a word and, where it is theirs to mend, what is wrong; the audit has the rest.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from meshcore.errors import MeshError

from ..errors import Conflict, Denied, Invalid, LeaseExpired, StoreUnavailable, Throttled
from ..resolve import Malformed

PUSHBACK_FIELD = "grpc-retry-pushback-ms"  # gRFC A6: clients that retry wait for so long
MAX_DETAIL_CHARS = 1_000  # a trailer that every HTTP/2 stack takes
UNAVAILABLE_PUSHBACK_MS = 1_000

Code = grpc.StatusCode

_OF_REASON = {
    "no_identity": Code.UNAUTHENTICATED,
    "bad_proof": Code.UNAUTHENTICATED,
    "not_yours": Code.PERMISSION_DENIED,
    "bad_request": Code.INVALID_ARGUMENT,
    "unavailable": Code.UNAVAILABLE,
    "too_many_attempts": Code.RESOURCE_EXHAUSTED,
    "not_found": Code.NOT_FOUND,
    "too_many_streams": Code.RESOURCE_EXHAUSTED,
}


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str, int]:
    """Code, text and milliseconds after which it may be tried again (-1: nothing is said about it)."""
    if isinstance(error, Throttled):
        return Code.RESOURCE_EXHAUSTED, str(error), int(error.retry_after_s * 1_000) + 1
    if isinstance(error, Denied):
        if error.reason == "not_allowed":
            return Code.PERMISSION_DENIED, error.why, -1  # which role is missing is the caller's to know
        code = _OF_REASON.get(error.reason, Code.PERMISSION_DENIED)
        return code, str(error), UNAVAILABLE_PUSHBACK_MS if code is Code.UNAVAILABLE else -1
    if isinstance(error, (Malformed, Invalid)):
        return Code.INVALID_ARGUMENT, str(error), -1
    if isinstance(error, Conflict):
        return Code.ABORTED, str(error), -1
    if isinstance(error, LeaseExpired):
        return Code.FAILED_PRECONDITION, str(error), -1
    if isinstance(error, StoreUnavailable):
        # Where the store is, and what it said, is the operators' business.
        return Code.UNAVAILABLE, "the store does not answer", UNAVAILABLE_PUSHBACK_MS
    if isinstance(error, TimeoutError):
        return Code.DEADLINE_EXCEEDED, "nothing was read for too long", -1
    if isinstance(error, MeshError):
        return Code.FAILED_PRECONDITION, str(error), -1
    return Code.INTERNAL, "internal error", -1


async def refuse(context: Any, error: BaseException) -> NoReturn:
    """Ends a call with what `status_of` says. Does not return."""
    code, text, pushback_ms = status_of(error)
    trailer = ((PUSHBACK_FIELD, str(pushback_ms)),) if pushback_ms >= 0 else ()
    await context.abort(code, text[:MAX_DETAIL_CHARS].encode("ascii", "backslashreplace").decode(), trailer)
    raise AssertionError("abort returned")
