"""What of captured fields and bodies may be shown. Hides secrets; captures and formats nothing.

Fields that carry credentials lose their value, and keep their name: that one was there is what a reader looks for. Bodies
lose the values of members that are named like secrets. That is a rule of thumb and no proof, so bodies are shown only to
who may see them anyway; what is compressed is not shown at all, for it cannot be looked through.
"""

from __future__ import annotations

import re
from collections.abc import Collection

HIDDEN = "[redacted]"
SECRET_FIELDS = frozenset(
    "authorization proxy-authorization cookie set-cookie cookie2 set-cookie2 x-api-key api-key x-auth-token x-csrf-token"
    " x-xsrf-token x-amz-security-token x-goog-iam-authorization-token x-vault-token x-forwarded-client-cert"
    " authentication-info proxy-authentication-info private-token x-gitlab-token x-hub-signature".split()
)
_SECRET_WORDS = re.compile(r"(?i)secret|passw|token|credential|api-?key|session-?id")
_WORD = rb"[\w.-]*(?:passw|passwd|secret|token|api_?key|apikey|credential|authorization|private_?key|session_?id)[\w.-]*"
_SECRET_MEMBER = re.compile(
    rb'(?i)("' + _WORD + rb'"\s*:\s*)("(?:[^"\\]|\\.)*(?:"|\Z)|[^\s,}\]]+)|((?:^|[&?;\s])' + _WORD + rb"=)([^&;\s]+)"
)
Fields = tuple[tuple[str, str], ...]


def shown_fields(raw: bytes, secret: Collection[str] = ()) -> Fields:
    """Field lines of a head as (name, value), names in lower case, secrets hidden. A last line cut short is left out.

    secret: names of further fields, in lower case.
    """
    lines = raw.split(b"\n")[:-1]
    found: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon and name:
            found.append((name.lower(), shown_value(name.lower(), value.strip(" \t\r"), secret)))
    return tuple(found)


def shown_value(name: str, value: str, secret: Collection[str] = ()) -> str:
    """A field's value, or that it is hidden."""
    return HIDDEN if name in SECRET_FIELDS or name in secret or _SECRET_WORDS.search(name) else value


def shown_body(raw: bytes, fields: Fields) -> str:
    """A body as text without secrets; octets that are no text are told by number, and compressed ones only by coding.

    fields: of the same message.
    """
    if not raw:
        return ""
    codings = [value.lower() for name, value in fields if name == "content-encoding" and value.lower() != "identity"]
    if codings:
        return f"[{len(raw)} octets, {', '.join(codings)}]"
    raw = _SECRET_MEMBER.sub(_hidden, raw)
    text = raw.decode("utf-8", "backslashreplace")
    # The last character may be cut in two by the bound; more than a few such octets are no text.
    unreadable = sum(1 for c in text if not c.isprintable() and c not in "\r\n\t") + text.count("\\x")
    return text if unreadable * 10 <= len(text) + 20 else f"[{len(raw)} octets]"


def _hidden(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return match[1] + b'"' + HIDDEN.encode() + b'"'
    return match[3] + HIDDEN.encode()
