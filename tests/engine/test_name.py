"""The name of a request, against the identifiers of meshcore.naming: what both say must be the same text."""

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshcore import _fastpath
from meshcore.config import RouteLookup
from meshcore.config.plan import lookup_plan
from meshcore.naming import Path, identifiers, read_path
from meshcore.naming.identifiers import Identified

octets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, blacklist_characters="\x7f"), min_size=1, max_size=30)
hosts = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,10}[A-Za-z0-9])?(\.[A-Za-z0-9]{1,8}){0,3}\.?(:[1-9][0-9]{0,3})?", fullmatch=True)
segment = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@%25", max_size=8).map(lambda text: text.replace("%", "")).filter(
    lambda text: text.partition(";")[0] not in (".", "..")  # dot-segments are refused before anybody asks for a name
)
targets = st.lists(segment, min_size=0, max_size=5).map(lambda parts: "/" + "/".join(parts))
methods = st.sampled_from(["GET", "POST", "DELETE", "BREW"])
prefixes = st.sampled_from(["/svc", "/a/b", "/svc/\\x61\\x20\\x62"])


def head(method="GET", target="/", host="web", minor=1, fields=()):
    lines = [f"{method} {target} HTTP/1.{minor}", *([f"Host: {host}"] if host is not None else []), *(f"{n}: {v}" for n, v in fields)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def name_of(lookup, head, **keys):
    found = _fastpath.name_of(lookup_plan(RouteLookup(**lookup)), head, **keys)
    return None if found is None else found[0].decode("latin-1")


def told(identifier, method="GET", target="/", host="web", minor=1, fields=()):
    """What the identifier says of the same request. Its elements are octets: shown as the engine shows them."""
    headers = (*((("Host", host),) if host is not None else ()), *fields)
    found = identifier(identifiers.RequestHead(method, target, f"1.{minor}", headers))
    return str(found.name) if isinstance(found, Identified) else None


def latin(path):
    """Paths read a text as UTF-8; the octets of a head are none in particular."""
    return Path(tuple(elem.decode().encode("latin-1") for elem in path.elems))


@given(prefixes, methods, hosts, st.sampled_from([0, 1]))
def test_method_and_host_is_what_linkerd_makes_of_it(prefix, method, host, minor):
    mine = name_of({"by": "method_and_host", "prefix": prefix}, head(method, host=host, minor=minor))
    assert mine == told(identifiers.method_and_host(read_path(prefix)), method, host=host, minor=minor)


@given(prefixes, targets, st.integers(1, 3), st.sampled_from(["", "?a=/b"]))
def test_a_path_gives_its_first_segments_and_none_that_is_empty(prefix, target, segments, query):
    mine = name_of({"by": "path", "prefix": prefix, "segments": segments}, head(target=target + query))
    assert mine == told(identifiers.path(read_path(prefix), segments), target=target + query)


@given(prefixes, octets)
def test_a_token_is_one_element_escaped_as_a_path_is_shown(prefix, value):
    assume(value == value.strip())
    mine = name_of({"by": "header_token", "prefix": prefix, "header": "x-name"}, head(fields=[("X-Name", value)]))
    found = identifiers.header_token(read_path(prefix), "x-name")(identifiers.RequestHead(headers=(("X-Name", value),)))
    own = len(read_path(prefix))
    assert mine == str(found.name.take(own) + latin(found.name.drop(own)))


labels = st.one_of(
    st.text(string.ascii_letters + string.digits + "_:.#$%-", min_size=1, max_size=6), st.sampled_from(["\\x2f", "\\x5B", "\\x4", "\\x", "*", "", "é"])
)


@given(prefixes, st.lists(labels, max_size=4).map(lambda parts: "/" + "/".join(parts)))
def test_a_path_in_a_header_is_a_name_where_it_is_one(prefix, value):
    """The engine passes escapes on as they came: the path is the same, and what is told is read by who binds it."""
    mine = name_of({"by": "header", "prefix": prefix}, head(fields=[("l5d-name", value)]))
    theirs = told(identifiers.header(read_path(prefix)), fields=[("l5d-name", value)])
    assert (mine is None) == (theirs is None)
    assert mine is None or str(read_path(mine)) == theirs


@given(hosts)
def test_an_authority_is_the_host_in_lower_case_with_the_port_it_means(host):
    name, _, port = host.partition(":")
    expected = name.lower().removesuffix(".")
    assert name_of({"by": "authority"}, head(host=host)) == f"{expected}:{port or 80}"
    assert name_of({"by": "authority"}, head(host=host), is_secure=True) == f"{expected}:{port or 443}"
    assert name_of({"by": "host"}, head(host=host)) == expected


@pytest.mark.parametrize("by", ["authority", "destination"])
def test_where_a_connection_was_going_is_the_name_of_a_request_without_authority(by):
    assert name_of({"by": by}, head(host=None, minor=0), destination=b"10.0.0.1:80") == "10.0.0.1:80"
    assert name_of({"by": by}, head(host=None, minor=0)) is None


def overridden(fields, is_trusted=True, most=1024):
    lookup = lookup_plan(RouteLookup(by="constant", name="/web", overrides=True))
    return _fastpath.name_of(lookup, head(fields=fields), is_trusted=is_trusted, most_bytes=most)


def test_tables_of_a_trusted_request_stand_behind_its_name_context_first():
    fields = [("L5D-DTAB", "/c=>/d"), ("l5d-ctx-dtab", "/a=>/b"), ("l5d-dtab", ""), ("l5d-dtab", "/e=>/f")]
    assert overridden(fields) == (b"/svc/web", b"\0/a=>/b;/c=>/d;/e=>/f")


def test_tables_of_a_stranger_are_not_heard():
    assert overridden([("l5d-dtab", "/c=>/d")], is_trusted=False) == (b"/svc/web", b"")


@given(st.integers(1, 60), st.text("ab", min_size=1, max_size=40))
def test_a_name_that_does_not_fit_is_none_and_never_a_part_of_one(most, table):
    whole = b"/svc/web\0" + table.encode()
    found = overridden([("l5d-dtab", table)], most=most)
    assert found == ((b"/svc/web", whole[8:]) if len(whole) <= most else None)
