"""Dtabs as JSON, `[{"prefix": "/svc", "dst": "/srv"}]`: the form of namerd's HTTP API and of its Kubernetes objects.

Source: namerd DtabCodec.scala with HttpControlServiceTest. Weights survive, as `show` prints them exactly.
"""

from __future__ import annotations

import msgspec

from .delegator_json import dentry_json
from .dtab import Dentry, Dtab
from .errors import NamingError
from .parse import read_prefix, read_tree


class _Entry(msgspec.Struct):
    prefix: str
    dst: str


def dtab_to_json(dtab: Dtab) -> bytes:
    return msgspec.json.encode([dentry_json(dentry) for dentry in dtab.entries])


def dtab_from_json(text: bytes | str) -> Dtab:
    """Raises NamingError, of which DtabSyntaxError is a kind; the message names the entry."""
    try:
        entries = msgspec.json.decode(text, type=list[_Entry])
    except msgspec.MsgspecError as error:
        raise NamingError(f"not a dtab in JSON: {error}") from None
    return Dtab(tuple(Dentry(read_prefix(entry.prefix), read_tree(entry.dst)) for entry in entries))
