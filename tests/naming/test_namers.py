"""Rewriting namers, patterns, catalogues: what they take, and what they leave alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshcore.naming import (
    EMPTY_DTAB,
    Bound,
    Failed,
    Leaf,
    Namers,
    NamingError,
    Neg,
    Path,
    Pattern,
    bind,
    catalog,
    read_path,
    rewrites,
    show_tree,
)
from meshcore.naming.statics import captured, merged
from meshcore.naming.system import ask_system, status_of
from meshcore.naming.transformers import strip_transformers, transformed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/$/io.buoyant.hostportPfx/p/a:80:/x", "/p/a/80/x"),  # a colon at the end is overlooked, as there
        ("/$/io.buoyant.hostportPfx/p/:80/x", "~"),
        ("/$/io.buoyant.hostportPfx/p/a:80-/x", "/p/a/80-/x"),  # their expression allows the dash at the end
        ("/$/io.buoyant.hostportPfx/p/a:-80/x", "~"),
        ("/$/io.buoyant.hostportPfx/p/a:HTTP", "~"),
        ("/$/io.buoyant.porthostPfx/p/a:" + "1" * 64, "~"),
        ("/$/io.buoyant.http.domainToPath/a..b/x", "~"),
        ("/$/io.buoyant.http.domainToPath/./x", "/x"),
        ("/$/io.buoyant.http.anyHostPfx/p/a.b:80/x", "/p/x"),
        ("/$/io.buoyant.http.anyHostPfx/p", "~"),
        ("/$/io.buoyant.http.anyMethodPfx/p/GET", "/p"),
        ("/$/io.buoyant.http.subdomainOf/a.b/x.a.b:80/y", "/x/y"),
        ("/$/io.buoyant.http.subdomainOf/a.b/a.b/y", "~"),
        ("/$/io.buoyant.http.subdomainOf/a.b/.a.b/y", "~"),
        ("/$/io.buoyant.http.subdomainOfPfx/a.b/p", "~"),
        ("/$/io.buoyant.http.anyMethod", "~"),
    ],
)
def test_rewriting_classes(path, expected):
    assert show_tree(ask_system(read_path(path).elems)) == expected


def test_status_binds_to_a_service_that_answers_with_it():
    got = ask_system(read_path("/$/io.buoyant.http.status/404/some/path").elems)
    assert got == Leaf(Bound(read_path("/$/io.buoyant.http.status/404"), read_path("/some/path")))
    signed = Path.of("$", "io.buoyant.http.status", "+200")
    assert ask_system(signed.elems) == Leaf(Bound(signed)), "Java reads a plus as nothing"
    assert status_of(Bound(signed)) == 200
    assert status_of(got.value) == 404
    assert status_of(Bound(read_path("/$/inet/404"))) is None
    for no_status in ("600", "99", "abc", "1e2", "9" * 5000):
        assert ask_system(read_path(f"/$/io.buoyant.http.status/{no_status}").elems) == Neg()


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/{a}-{b}", "/foo-bar-baz", {"a": "foo-bar", "b": "baz"}),
        ("/{a}{b}", "/xyz", {"a": "xy", "b": "z"}),
        ("/x{a}y", "/xy", None),
        ("/{a}.com", "/.com", None),
        ("/{a}", "/\\x20", {"a": "\\x20"}),
        ("/*", "/", None),
        ("/*/{a}", "/x", None),
        ("/{a}/{a}", "/x/y", {"a": "y"}),
        ("/a*", "/a*".replace("*", "\\x2a"), None),
    ],
)
def test_patterns_capture(pattern, path, expected):
    assert Pattern(pattern).extract(read_path(path)) == expected


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.lists(st.sampled_from(["", "-", ".", "-.", "a"]), min_size=2, max_size=4), st.text("a-.", min_size=1, max_size=9)
)
def test_captures_are_those_of_a_greedy_expression(literals, text):
    names = [f"v{n}" for n in range(len(literals) - 1)]
    word = literals[0] + "".join(f"{{{name}}}{literal}" for name, literal in zip(names, literals[1:], strict=True))
    oracle = re.fullmatch("(.+)".join(map(re.escape, literals)), text)
    expected = None if oracle is None else dict(zip(names, oracle.groups(), strict=True))
    assert Pattern(f"/{word}").extract(Path.of(text)) == expected


def test_capture_takes_no_longer_than_the_text():
    dashes = "-" * 100_000
    assert Pattern("/{a}-{b}-{c}-{d}-{e}-{f}!").extract(Path.of(dashes)) is None
    assert Pattern("/{a}x{b}x{c}x{d}x{e}").extract(Path.of("x" * 3 + dashes)) is None


def test_rewrite_drops_the_rest_and_fails_where_it_gives_no_path():
    assert rewrites("/one/{x}", "/success/{x}")(read_path("/one/two/three")) == Leaf(read_path("/success/two"))
    got = bind(EMPTY_DTAB, read_path("/#/r/one/two"), Namers({"/#/r": rewrites("/one/{x}", "/success/{y}")}))
    assert isinstance(got, Failed)
    assert "makes no path of /one/two: label char expected but '{'" in got.message
    with pytest.raises(NamingError):
        Pattern("no/slash")


def test_catalogues_cut_names_where_linkerd_does():
    prefix = read_path("/#/io.l5d.x")
    for namer, rest, bound, residual in [
        (catalog.kubernetes(prefix), "/ns/http/svc/x", "/ns/http/svc", "/x"),
        (catalog.kubernetes(prefix, has_label=True), "/ns/http/svc/v1/x", "/ns/http/svc/v1", "/x"),
        (catalog.consul(prefix), "/DC1/Web/x", "/dc1/web", "/x"),
        (catalog.shortest_known(prefix, {read_path("/a/b"), read_path("/a/b/c")}), "/A/b/c/d", "/a/b", "/c/d"),
        (catalog.longest_known(prefix, {read_path("/a"), read_path("/a/b")}), "/a/b/x", "/a/b", "/x"),
        (catalog.longest_known(prefix, {read_path("/a/b")}), "/a/b:http#3/x", "/a/b:http#3", "/x"),
    ]:
        assert namer(read_path(rest)) == Leaf(Bound(prefix + read_path(bound), read_path(residual)))
    assert catalog.kubernetes(prefix)(read_path("/ns/http")) == Neg()
    assert catalog.consul(prefix, knows=lambda key: False)(read_path("/dc1/web")) == Neg()


def test_transformer_prefix_goes_on_and_comes_off():
    name = read_path("/#/io.l5d.fs/web")
    assert str(transformed(read_path("/io.l5d.port/4141"), name)) == "/%/io.l5d.port/4141/#/io.l5d.fs/web"
    assert strip_transformers(transformed(read_path("/io.l5d.port/4141"), name)) == name
    assert strip_transformers(read_path("/%x/#/a")) == read_path("/%x/#/a")


def test_settings_by_prefix_are_merged_key_by_key():
    configs = [
        {"prefix": "/", "a": 1, "b": 1},
        {"prefix": "/#/io.l5d.fs/{service}", "b": 2},
        {"prefix": "/other", "a": 9},
    ]
    assert merged(configs, read_path("/#/io.l5d.fs/web/x")) == {"a": 1, "b": 2}
    assert captured(configs, read_path("/#/io.l5d.fs/web/x")) == {"service": "web"}
