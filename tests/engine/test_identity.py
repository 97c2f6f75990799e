"""The room `identity`: which rule means which name, against a slow reading of the SPIFFE and DNS rules."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import tls_identity_kind, tls_identity_means

ID = re.compile(r"(?i:spiffe)://([A-Za-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*)\Z")


def oracle_id(rule: str, name: str) -> bool:
    """Scheme and trust domain without case, the path with it; `/*` wants a path, any."""
    found = ID.match(name)
    if not found or len(name) > 2048:
        return False
    if rule.endswith("/*"):
        return found[1].lower() == ID.match(rule[:-2])[1].lower() and found[2] != ""
    wanted = ID.match(rule)
    return (wanted[1].lower(), wanted[2]) == (found[1].lower(), found[2])


RULES = ["spiffe://td/a/b", "spiffe://TD/a/b", "spiffe://td/A/b", "spiffe://td/*", "spiffe://t.d-_1/*", "spiffe://td/a"]
pieces = st.sampled_from(["spiffe://", "SPIFFE://", "spiffe:/", "td", "TD", "t.d-_1", "/", "//", "a", "A", "b", ".", "..", "/a/b", "%2e", "?", "#", ":1", "@", "\0", "é", " "])
names = st.one_of(
    st.lists(pieces, max_size=8).map("".join),
    st.sampled_from([rule.replace("*", "x") for rule in RULES]),
    st.text(string.printable, max_size=20).map("spiffe://td/".__add__),
)


@pytest.mark.parametrize("rule", RULES)
@given(name=names)
def test_a_rule_means_the_ids_it_says(rule, name):
    assert tls_identity_means(rule, name.encode("latin-1", "replace")) == oracle_id(rule, name)


@pytest.mark.parametrize("size, valid", [(2048, True), (2049, False)])
def test_an_id_has_a_longest_length(size, valid):
    assert tls_identity_means("spiffe://td/*", b"spiffe://td/".ljust(size, b"a")) is valid


@pytest.mark.parametrize(
    "pattern, name, covered",
    [
        ("a.test", "a.test", True), ("A.Test", "a.test", True), ("a.test", "b.test", False), ("*.test.x", "a.test.x", True),
        ("*.test.x", "test.x", False), ("*.test.x", "b.a.test.x", False), ("*.x", "a.x", False), ("*", "a", False),
        ("a*.test", "ab.test", False), ("a.test.", "a.test", False), ("a..test", "a..test", False), ("a.test\0.evil", "a.test", False),
        ("", "a", False), ("a b", "a b", False), ("*.*.x", "a.b.x", False),
    ],
)  # fmt: skip
def test_a_dns_name_of_a_certificate_covers_what_rfc_6125_says(pattern, name, covered):
    assert (tls_identity_kind(f"dns:{name}") == "dns" and tls_identity_means(f"dns:{name}", pattern.encode("latin-1"), True)) == covered


@pytest.mark.parametrize(
    "text, kind",
    [
        ("spiffe://td/a", "id"), ("spiffe://td/*", "trust_domain"), ("dns:a.test", "dns"), ("spiffe://td", None),
        ("spiffe://td/", None), ("spiffe:///a", None), ("spiffe://td/a/*", None), ("dns:*.test", None), ("dns:", None),
        ("http://td/a", None), ("", None), ("spiffe://té/a", None), ("spiffe://td/a/../b", None),
    ],
)  # fmt: skip
def test_a_rule_is_one_of_three_kinds(text, kind):
    assert tls_identity_kind(text) == kind
