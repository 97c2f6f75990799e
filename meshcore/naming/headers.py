"""Tables that travel in request headers: `l5d-dtab`, `l5d-ctx-dtab`, `dtab-local`. Does not decide whom to trust.

Source: linkerd Headers.scala with HeadersTest; finagle HttpDtab.scala with HttpDtabTest. Nobody but a trusted caller
should be heard: whoever may send `l5d-dtab` routes as he likes. A header that is no table raises DtabSyntaxError, to be
answered 400.
"""

from __future__ import annotations

from collections.abc import Iterable

from .dtab import EMPTY_DTAB, Dtab
from .parse import read_dtab
from .show import show_dtab

USER = "l5d-dtab"
CONTEXT = "l5d-ctx-dtab"
LOCAL = "dtab-local"

Header = tuple[str, str]


def take_request_dtab(existing: Dtab, headers: Iterable[Header]) -> tuple[Dtab, list[Header]]:
    """The table of a request, and the headers without those it was taken from.

    What is there already, then `l5d-ctx-dtab`, then `l5d-dtab`: the user's own is last, and so decides first.
    """
    context = user = EMPTY_DTAB
    others = []
    for name, value in headers:
        if name.lower() == CONTEXT:
            context += read_dtab(value)
        elif name.lower() == USER:
            user += read_dtab(value)
        else:
            others.append((name, value))
    return existing + context + user, others


def context_headers(dtab: Dtab) -> list[Header]:
    """What to send on, so that a table given at the edge counts for the whole call graph."""
    return [(CONTEXT, show_dtab(dtab))] if dtab else []


def read_dtab_local(headers: Iterable[Header]) -> Dtab:
    """`Dtab-Local` of plain Finagle, all in order; a comma parts entries like a semicolon. Linkerd passes it unread."""
    found = EMPTY_DTAB
    for name, value in headers:
        if name.lower() == LOCAL:
            found += read_dtab(value.replace(",", ";"))
    return found
