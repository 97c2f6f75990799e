"""Requests: the names that identifiers give them, the tables they carry, and the shares that branches get."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshcore.naming import (
    DtabSyntaxError,
    Leaf,
    NamingError,
    Path,
    choose,
    evaluate,
    read_dtab,
    read_path,
    read_tree,
    shares,
    show_dtab,
    show_tree,
    simplify,
)
from meshcore.naming.headers import context_headers, take_request_dtab
from meshcore.naming.identifiers import (
    Identified,
    RequestHead,
    Unidentified,
    first_of,
    header,
    header_path,
    header_token,
    method_and_host,
    path,
    static,
)

from tests.naming.tables import tree_of, trees_to

trees = trees_to(st.sampled_from([("x",), ("y",), ("z",)])).map(tree_of)

# As a head is decoded whose octets are no UTF-8.
HOSTILE = st.binary(max_size=20).map(lambda octets: octets.decode(errors="surrogateescape")) | st.text(max_size=20)


def name_of(found) -> str:
    return str(found.name) if isinstance(found, Identified) else f"? {found.reason}"


@pytest.mark.parametrize(
    ("identifier", "head", "name"),
    [
        (header_token(), RequestHead(headers=(("HOST", "Web.example:80"),)), "/svc/Web.example:80"),
        (header_token(), RequestHead(), "? Host header is absent"),
        (header_token(header="x-svc"), RequestHead(headers=(("x-svc", "a/b"),)), "/svc/\\x61\\x2f\\x62"),
        (header(), RequestHead(headers=(("l5d-name", "/web/v1"),)), "/svc/web/v1"),
        (header(), RequestHead(headers=(("l5d-name", "web"),)), "? '/' expected but 'w' found at '[w]eb'"),
        (method_and_host(), RequestHead("PUT", headers=(("host", "A.Test"),)), "/svc/1.1/PUT/a.test"),
        (method_and_host(), RequestHead(version="1.0", method="POST"), "/svc/1.0/POST"),
        (method_and_host(), RequestHead(), "? HTTP/1.1 request missing hostname"),
        (
            method_and_host(with_uri=True),
            RequestHead("GET", "/a//b", headers=(("host", "h"),)),
            "? empty segment in path",
        ),
        (method_and_host(with_uri=True), RequestHead("GET", "/", headers=(("host", "h"),)), "/svc/1.1/GET/h"),
        (path(), RequestHead(target="/?x=/y"), "? not enough segments in path"),
        (path(segments=2), RequestHead(target="//b/c"), "? empty segment in path"),
        (path(segments=1), RequestHead(target="/caf\xe9%20/x"), "/svc/\\x63\\x61\\x66\\xc3\\xa9\\x25\\x32\\x30"),
        (static(read_path("/all")), RequestHead(), "/svc/all"),
        (header_path(segments=1), RequestHead(headers=((":path", "/one/two/?q=/x"),)), "/svc/one"),
        (header_path(), RequestHead(headers=((":path", "/"),)), "? Missing destination path"),
        (first_of([header(), path()]), RequestHead(target="/users/7"), "/svc/users"),
        (first_of([header(), path()]), RequestHead(), "? l5d-name header is absent; not enough segments in path"),
        (first_of([]), RequestHead(), "? no identifier"),
    ],
)
def test_identifier_names_a_request(identifier, head, name):
    assert name_of(identifier(head)) == name


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("/a/b/c/d?x=1/2", "/c/d?x=1/2"),
        ("/a/b", "/"),
        ("/a/b/", "/"),
        ("/a/b?x=1", "/?x=1"),
        ("/a/b/c/", "/c/"),
        ("/a/b/c//d", "/c//d"),
    ],
)
def test_consumed_segments_leave_the_rest_with_slash_and_query(target, rest):
    assert path(segments=2, consume=True)(RequestHead(target=target)) == Identified(read_path("/svc/a/b"), rest)


@settings(max_examples=200, deadline=None, database=None)
@given(HOSTILE, HOSTILE)
def test_no_request_makes_an_identifier_raise(target, value):
    fields = (("Host", value), ("l5d-name", value), (":path", target))
    for identifier in (
        header_token(),
        header(),
        method_and_host(with_uri=True),
        path(consume=True),
        header_path(segments=2),
    ):
        assert isinstance(identifier(RequestHead(target=target, headers=fields)), Identified | Unidentified)


def test_segments_below_one_are_refused():
    for make in (path, header_path):
        with pytest.raises(NamingError):
            make(segments=0)


def test_table_of_a_request_is_taken_and_sent_on():
    given_headers = [("L5D-Dtab", "/u=>/1"), ("accept", "*/*"), ("l5d-ctx-dtab", "/c=>/2"), ("l5d-dtab", "/v=>/3")]
    merged, others = take_request_dtab(read_dtab("/e=>/0"), given_headers)
    assert show_dtab(merged) == "/e=>/0;/c=>/2;/u=>/1;/v=>/3"
    assert others == [("accept", "*/*")]
    assert take_request_dtab(read_dtab(""), context_headers(read_dtab("/a=>0.001*/b & /c")))[0] == read_dtab(
        "/a=>0.001*/b & /c"
    )
    assert context_headers(read_dtab("")) == []
    with pytest.raises(DtabSyntaxError):
        take_request_dtab(read_dtab(""), [("l5d-dtab", "nonsense")])


@settings(max_examples=300, deadline=None, database=None)
@given(trees)
def test_simplifying_is_a_fixpoint_and_keeps_the_value(tree):
    simple = simplify(tree)
    assert simplify(simple) == simple
    assert evaluate(simple) == evaluate(tree)


@settings(max_examples=300, deadline=None, database=None)
@given(trees, st.floats(0, 1, exclude_max=True))
def test_shares_add_up_and_choose_takes_only_what_has_one(tree, at):
    dealt = shares(tree)
    assert sum(share for _, share in dealt) == pytest.approx(1)
    assert all(share >= 0 for _, share in dealt)
    assert choose(tree, at) in [end for end, share in dealt if share > 0]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("3*/a & 1*$", {"/a": 0.75, "$": 0.25}),
        ("3*/a & 1*~ & 5*!", {"/a": 1}),
        ("~ | /a & /b", {"/a": 0.5, "/b": 0.5}),
        ("0*/a & 2*/b", {"/a": 0, "/b": 1}),
        ("!", {"!": 1}),
        ("9" * 300 + "*/a & " + "9" * 300 + "*/b", {"/a": 0.5, "/b": 0.5}),
    ],
)
def test_shares(tree, expected):
    assert {show_tree(end): share for end, share in shares(read_tree(tree))} == pytest.approx(expected)


def test_choice_goes_by_share_in_order():
    tree = read_tree("1*/a & 3*/b")
    assert [choose(tree, at) for at in (0.0, 0.24, 0.26, 0.999999)] == [Leaf(Path.of(one)) for one in "aabb"]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("~", None),
        ("/ok", {"/ok"}),
        ("/ok & ~ & /blah & $", {"/ok", "/blah"}),
        ("$ & $ & $", set()),
        ("~ & ~ & (~ | ~)", None),
        ("~ | /foo | /bar", {"/foo"}),
        ("~ | (~ | $) | /blah", set()),
        ("(~ | $ | /foo) & (/bar | /blah) & ~ & /FOO", {"/bar", "/FOO"}),
        ("! | /ok", None),
        ("/ok & !", {"/ok"}),
        ("! & ! & !", None),
        ("(! & !) | /ok", {"/ok"}),
        ("~ | /ok | !", {"/ok"}),
    ],
)
def test_values_are_those_of_finagle_since_19_6(tree, expected):
    found = evaluate(read_tree(tree))
    assert (found if found is None else {str(leaf) for leaf in found}) == expected


def test_branch_of_no_weight_is_not_chosen_where_shares_do_not_quite_add_up():
    for count in range(1, 60):
        tree = read_tree("1*/a & " * count + "0*/none")
        assert choose(tree, math.nextafter(1, 0)) == Leaf(Path.of("a"))


def test_base_table_is_taken_off_only_where_a_table_begins_with_it():
    table = read_dtab("/a=>/b;/c=>/d")
    assert table.without(read_dtab("/a=>/b")) == read_dtab("/c=>/d")
    for other in ("/c=>/d", "/a=>/x", "/a=>/b;/c=>/d;/e=>/f"):
        assert table.without(read_dtab(other)) == table
