"""Reading and printing: what is read prints as itself, and what is wrong is told with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshcore.naming import (
    Alt,
    Dentry,
    Dtab,
    DtabSyntaxError,
    Empty,
    Fail,
    Leaf,
    NamingError,
    Neg,
    Path,
    Prefix,
    Union,
    Weighted,
    alt,
    dtab_from_json,
    dtab_to_json,
    read_dentry,
    read_dtab,
    read_path,
    read_prefix,
    read_tree,
    show_dentry,
    show_dtab,
    show_pretty,
    show_tree,
    union,
)
from meshcore.naming.show import show_weight
from meshcore.naming.tree import MAX_NESTING

MANY = settings(max_examples=150, deadline=None, database=None)

elements = st.binary(min_size=1, max_size=6) | st.text("ab-_:.#$%*/ ", min_size=1, max_size=5).map(str.encode)
paths = st.lists(elements, max_size=4).map(lambda some: Path(tuple(some)))
prefixes = st.lists(elements | st.none(), max_size=4).map(lambda some: Prefix(tuple(some)))
weights = st.floats(min_value=0, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, 0.001, 0.999, 1 / 3, 1e300]
)
ends = st.sampled_from([Neg(), Fail(), Empty()]) | paths.map(Leaf)
trees = st.recursive(
    ends,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda some: Alt(tuple(some))),
        st.lists(st.builds(Weighted, weights, inner), min_size=2, max_size=3).map(lambda some: Union(tuple(some))),
    ),
    max_leaves=8,
)
dtabs = st.lists(st.builds(Dentry, prefixes, trees), max_size=4).map(lambda some: Dtab(tuple(some)))


@MANY
@given(dtabs)
def test_a_dtab_prints_as_text_that_reads_back_the_same(dtab):
    text = show_dtab(dtab)
    assert read_dtab(text) == dtab
    assert show_dtab(read_dtab(text)) == text
    assert read_dtab(show_pretty(dtab)) == dtab
    assert dtab_from_json(dtab_to_json(dtab)) == dtab


@MANY
@given(paths, prefixes, trees)
def test_paths_prefixes_and_trees_read_back_the_same(path, prefix, tree):
    assert read_path(str(path)) == path
    assert read_prefix(str(prefix)) == prefix
    assert read_tree(show_tree(tree)) == tree
    dentry = Dentry(prefix, tree)
    assert read_dentry(show_dentry(dentry)) == dentry


@MANY
@given(st.text("/ab*|&!~$()=>;#\\x0. \n", max_size=30))
def test_what_is_read_prints_and_reads_back_and_what_is_not_has_a_place(text):
    for read, show in (
        (read_path, str),
        (read_prefix, str),
        (read_tree, show_tree),
        (read_dentry, show_dentry),
        (read_dtab, show_dtab),
    ):
        try:
            value = read(text)
        except DtabSyntaxError as error:
            assert 0 <= error.offset <= len(text)
            before = text[: error.offset].split("\n")
            assert (error.line, error.column) == (len(before), len(before[-1]) + 1)
        else:
            assert read(show(value)) == value


@MANY
@given(weights)
def test_a_weight_prints_without_exponent_and_exactly(weight):
    assert float(show_weight(weight)) == weight
    assert set(show_weight(weight)) <= set("0123456789.")


@pytest.mark.parametrize(
    ("tree", "shown"),
    [
        (union((0.001, Leaf(Path.of("a"))), (0.999, Leaf(Path.of("b")))), "0.001*/a & 0.999*/b"),
        (union((3, Neg()), (0.5, Fail())), "3.00*~ & 0.50*!"),
        (union((1e22, Neg()), (5e-324, Empty())), "10000000000000000000000*~ & 0." + "0" * 323 + "5*$"),
        (alt(alt(Neg(), Fail()), union(alt(Neg(), Empty()), union(Neg(), Neg()))), "(~ | !) | (~ | $) & (~ & ~)"),
        (Alt((Leaf(Path()),)), "/"),
        (Union(), "~"),
    ],
)
def test_trees_print_as_finagle_prints_them_but_no_weight_is_lost(tree, shown):
    assert show_tree(tree) == shown


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_path, "", "'/' expected but end of input found at '[]'"),
        (read_path, "/a/", "label char expected but end of input found at '/a/[]'"),
        (read_path, "/a//b", "label char expected but '/' found at '/a/[/]b'"),
        (read_path, "/a\\y", "'x' expected but 'y' found at '/a\\[y]'"),
        (read_path, "/a\\", "'x' expected but end of input found at '/a\\[]'"),
        (read_path, "/a\\x4", "hex char expected but end of input found at '/a\\x4[]'"),
        (read_path, "/a\\xg0", "hex char expected but 'g' found at '/a\\x[g]0'"),
        (read_path, "/a\xa0", "end of input expected but '\xa0' found at '/a[\xa0]'"),
        (read_tree, "/a | ", "simple expected but end of input found at '/a | []'"),
        (read_tree, "(/a", "')' expected but end of input found at '(/a[]'"),
        (read_tree, "0.1.2*/a", "number char expected but '.' found at '0.1[.]2*/a'"),
        (read_tree, ".*/a", "weight expected but '.' found at '[.]*/a'"),
        (read_tree, "2 /a", "'*' expected but '/' found at '2 [/]a'"),
        (read_tree, "2*3*/a & /b", "simple expected but '3' found at '2*[3]*/a & /b'"),
        (read_dtab, "/a=>/b\n;\n c", "'/' expected but 'c' found at '/a=>/b\n;\n [c]'"),
        (read_dtab, "/a* => /b", "'=' expected but '*' found at '/a[*] => /b'"),
        (read_dtab, ";", "'/' expected but ';' found at '[;]'"),
    ],
)
def test_mistake_is_marked_where_it_stands(read, text, message):
    with pytest.raises(DtabSyntaxError) as caught:
        read(text)
    assert str(caught.value) == message


def test_place_of_a_mistake_has_line_and_column():
    with pytest.raises(DtabSyntaxError) as caught:
        read_dtab("# names\n/svc => /srv ;\n/srv => ??? ;\n")
    assert (caught.value.line, caught.value.column, caught.value.offset) == (3, 9, 31)


def test_long_text_is_shown_around_the_mistake_only():
    text = "/a => /b ;\n" * 1000 + "?" + "/c" * 1000
    with pytest.raises(DtabSyntaxError) as caught:
        read_dtab(text)
    assert "[?]" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_white_space_is_that_of_java():
    assert read_path("\t\n\x0b\x0c\r\x1c\x1f /a\u2003\u3000") == Path.of("a")
    for other in ("\x00", "\x1b", "\x85", "\xa0", "\u2007", "\u202f", "\ufeff"):
        with pytest.raises(DtabSyntaxError):
            read_path(f"/a{other}")


def test_hash_is_a_comment_only_after_white_space_or_a_sign():
    assert read_dtab("/a=>/b#c ; # d\n/e=>/f;#g") == read_dtab("/a=>/b\\x23c;/e=>/f")
    assert read_dtab("# only this") == Dtab()


def test_nesting_is_bounded_and_told_at_its_place():
    deepest = MAX_NESTING // 2 - 1
    assert read_tree("(" * deepest + "/a" + ")" * deepest) == Leaf(Path.of("a"))
    nested = "/a & (/b | " * deepest + "/a & (/b | /c)"
    with pytest.raises(DtabSyntaxError, match="open parentheses"):
        read_tree(nested + ")" * deepest)
    read_tree("/a & (/b | " * deepest + "/c" + ")" * deepest)
    with pytest.raises(DtabSyntaxError, match="open parentheses"):
        read_dtab("/a => " + "(" * 100_000)
    with pytest.raises(NamingError):
        tree = Leaf(Path())
        for _ in range(MAX_NESTING + 1):
            tree = Alt((tree, tree))


def test_number_too_large_for_a_weight_is_refused():
    with pytest.raises(DtabSyntaxError, match="weight"):
        read_tree("9" * 400 + "*/a & /b")
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(NamingError):
            Weighted(weight, Neg())


def test_empty_elements_cannot_be_made():
    for make in (lambda: Path((b"",)), lambda: Prefix((b"",)), lambda: Path.of("a", "")):
        with pytest.raises(NamingError):
            make()


def test_json_that_is_no_dtab_is_refused():
    for text in ("{}", '[{"prefix":"/a"}]', "[", '[{"prefix":"/a","dst":"b"}]'):
        with pytest.raises(NamingError):
            dtab_from_json(text)
