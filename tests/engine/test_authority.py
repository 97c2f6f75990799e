"""host[:port]: what is one, what is not, and the oracle `ipaddress` for the bracketed kind."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshcore._fastpath import parse_authority

ACCEPTED = {
    b"a.test": (b"a.test", None, False, 6),
    b"a.test:80": (b"a.test", 80, False, 9),
    b"a.test:": (b"a.test", None, False, 6),
    b"a.test:00080": (b"a.test", 80, False, 12),
    b"a.test:65535": (b"a.test", 65535, False, 12),
    b"a_b-c~d!$&'()*+;=": (b"a_b-c~d!$&'()*+;=", None, False, 17),
    b"127.0.0.1:0": (b"127.0.0.1", 0, False, 11),
    b"[::1]": (b"[::1]", None, True, 5),
    b"[::]:8080": (b"[::]", 8080, True, 9),
    b"[::1]:": (b"[::1]", None, True, 5),
}
REFUSED = [
    b"", b":80", b"a,b", b"u@a.test", b"a.test:80@evil.test", b"a.test/x", b"a.test?x", b"a.test#x", b"a test", b" a.test",
    b"a.test ", b"a\ttest", b"a%2etest", b"a.test:abc", b"a.test:-1", b"a.test:+1", b"a.test:65536", b"a.test:99999999999",
    b"a.test:8 0", b"a.test:80:80", b"\xe4.test", b"a\x00", b"a\\b", b"[::1", b"::1", b"[]", b"[::1]x", b"[::1]80",
    b"[fe80::1%25eth0]", b"[fe80::1%eth0]", b"[v1.x]", b"[a.test]", b"[1.2.3.4]", b"[[::1]]", b"a]", b"[:]", b"[:::]",
    b"[::1]:80:80", b'"a.test"', b"a<b", b"a|b",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_valid_authority_is_taken_apart(text):
    assert parse_authority(text) == ACCEPTED[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_two_readers_could_read_differently_is_refused(text):
    assert parse_authority(text) is None


def is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


groups = st.text("0123456789abcdefABCDEF", max_size=5)
near_ipv6 = st.lists(groups, max_size=10).map(":".join)
with_ipv4 = st.tuples(near_ipv6, st.lists(st.integers(0, 300).map(str), min_size=3, max_size=5).map(".".join)).map(":".join)


@given(near_ipv6 | with_ipv4 | st.ip_addresses(v=6).map(str) | st.text("0:1.f", max_size=20))
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1::3:4:5:6:7:8")
@example("1:2:3:4:5:6:7:8::")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("::1.2.3.4")
@example("::01.2.3.4")
@example("1.2.3.4::")
def test_brackets_hold_exactly_what_ipaddress_takes_for_ipv6(text):
    parsed = parse_authority(f"[{text}]".encode())
    assert (parsed is not None) == is_ipv6(text)
    if parsed:
        assert parsed == (f"[{text}]".encode(), None, True, len(text) + 2)


@given(st.binary(max_size=40))
def test_nothing_but_the_grammar_is_accepted(text):
    parsed = parse_authority(text)
    if parsed is not None:
        host, port, _, length = parsed
        assert text.startswith(host) and length <= len(text)
        assert text[len(host):] in (b"", b":") or (text[len(host):len(host) + 1] == b":"
                                                   and int(text[len(host) + 1:]) == port <= 65535)
