"""What names may look like: namespaces, names, labels, zones, addresses. Judges text; knows no struct.

Sources: RFC 1123 2.1 for host names, and the syntax of Kubernetes for labels, so that what is registered there and
what is registered here can be one thing. Every rule is anchored at both ends and bounded in length.
"""

from __future__ import annotations

import ipaddress
import re

LABEL_WHAT = "a DNS label: a-z, 0-9 and '-', first and last not '-', at most 63"
NAME_WHAT = "DNS labels joined by '.', at most 253 in all"
LABEL_KEY_WHAT = "a label key: [prefix/]name, name of letters, digits, '-', '_', '.', at most 63"
LABEL_VALUE_WHAT = "a label value: letters, digits, '-', '_', '.', first and last alphanumeric, at most 63, or empty"
ADDRESS_WHAT = "an IPv4 or IPv6 address without brackets, zone or port"

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")


def is_label(text: str) -> bool:
    """One DNS label: namespaces and services are named so."""
    return _LABEL.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """DNS labels joined by dots: workloads, endpoints, accounts and policies are named so."""
    return len(text) <= 253 and all(is_label(part) for part in text.split("."))


def is_host(text: str, *, wildcard: bool = False) -> bool:
    """A host name in lower case; with `wildcard` also `*.` and a name."""
    return _HOST.fullmatch(text) is not None and (wildcard or not text.startswith("*"))


def is_label_key(text: str) -> bool:
    """`app`, `topology.kubernetes.io/zone`."""
    prefix, slash, name = text.rpartition("/")
    return _PLAIN.fullmatch(name) is not None and (is_name(prefix) if slash else True)


def is_label_value(text: str) -> bool:
    """Empty, or as a label's name."""
    return text == "" or _PLAIN.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """An address as we write it: no scope, no leading zeros, at most 45 characters."""
    if len(text) > 45 or "%" in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_token(text: str) -> bool:
    """RFC 9110 5.6.2: methods and field names."""
    return _TOKEN.fullmatch(text) is not None
