"""Following names: order, fall-back, bounds, and what namers may say."""

from __future__ import annotations

import pytest
from meshcore import naming
from meshcore.naming import (
    Bound,
    Failed,
    Leaf,
    Namers,
    Neg,
    Path,
    Pending,
    bind,
    binds,
    read_dtab,
    read_path,
    read_tree,
    show_tree,
)
from meshcore.naming.answers import NEVER_MORE_THAN
from meshcore.naming.compiled import MOST_LOOKUPS
from meshcore.naming.split import innermost_weights

FS = Namers({"/#/io.l5d.fs": binds("/#/io.l5d.fs", 1)})


def shown(dtab: str, path: str, namers: Namers = FS) -> str:
    got = bind(read_dtab(dtab), read_path(path), namers)
    return (
        show_tree(got) if isinstance(got, naming.NameTree) else f"{type(got).__name__}: {getattr(got, 'message', '')}"
    )


def chain(rewrites: int) -> str:
    return ";".join(f"/n{n}=>/n{n + 1}" for n in range(rewrites - 1)) + f";/n{rewrites - 1}=>/$/inet/1"


def test_ninety_nine_rewrites_bind_and_a_hundred_do_not():
    assert shown(chain(99), "/n0") == "/$/inet/1"
    assert shown(chain(100), "/n0").startswith("Failed: maximum depth exceeded (100)")


def test_position_decides_and_not_the_length_of_a_prefix():
    assert shown("/svc/users=>/#/io.l5d.fs/special;/svc=>/#/io.l5d.fs", "/svc/users") == "/#/io.l5d.fs/users"


def test_fall_back_needs_a_neg_and_nothing_less():
    namers = Namers([("/#/failed", Failed("consul unreachable")), ("/#/pending", Pending()), ("/#/neg", Neg())])
    assert shown("/a=>/#/neg | /$/inet/1", "/a", namers) == "/$/inet/1"
    assert shown("/a=>/#/failed | /$/inet/1", "/a", namers) == "Failed: consul unreachable"
    assert shown("/a=>/#/pending | /$/inet/1", "/a", namers) == "Pending: "
    assert shown("/a=>$ | /$/inet/1", "/a") == "$"


def test_union_goes_on_without_the_branches_that_do_not_bind():
    namers = Namers([("/#/failed", Failed("first")), ("/#/worse", Failed("second")), ("/#/pending", Pending())])
    assert shown("/a=>9*/#/failed & 1*/$/inet/1", "/a", namers) == "/$/inet/1"
    assert shown("/a=>/#/pending & /#/failed & /#/worse", "/a", namers) == "Failed: first"
    assert shown("/a=>/#/pending & /#/pending", "/a", namers) == "Pending: "
    assert shown("/a=>! & /$/inet/1", "/a") == "/$/inet/1"
    assert shown("/a=>! & !", "/a") == "~"
    assert shown("/a=>~ & /#/failed", "/a", namers) == "~"


def test_namers_are_asked_in_order_until_one_is_not_neg():
    asked = []

    def says(name, answer):
        def namer(rest):
            asked.append((name, str(rest)))
            return answer

        return namer

    order = [
        ("/#/x", says("first", Neg())),
        ("/#", says("second", Leaf(Bound(Path.of("b"))))),
        ("/#/x", says("third", Neg())),
    ]
    assert shown("/a=>/#/x", "/a/y", Namers(order)) == "/b"
    assert asked == [("first", "/y"), ("second", "/x/y")]
    asked.clear()
    assert shown("/a=>/#/x", "/a/y", Namers.from_configuration(order)) == "/b"
    assert asked == [("third", "/y"), ("second", "/x/y")]


def test_paths_of_a_namer_are_looked_up_in_the_whole_table():
    namers = Namers({"/#/alias": Leaf(Path.of("svc", "real"))})
    assert (
        shown(
            "/svc/real=>/#/io.l5d.fs/x;/a=>/#/alias",
            "/a/gone",
            Namers([("/#/alias", Leaf(Path.of("svc", "real"))), ("/#/io.l5d.fs", binds("/#/io.l5d.fs", 1))]),
        )
        == "/#/io.l5d.fs/x"
    )
    assert shown("/a=>/#/alias;/svc/real=>/a", "/a", namers).startswith("Failed: maximum depth")


def test_residual_is_kept_apart_from_the_id():
    got = bind(read_dtab("/svc=>/#/io.l5d.fs"), read_path("/svc/users/v1/all"), FS)
    assert got == Leaf(Bound(read_path("/#/io.l5d.fs/users"), read_path("/v1/all")))


def test_table_that_multiplies_names_ends_with_a_reason():
    doubling = ";".join(f"/n{n}=>/n{n + 1} & /n{n + 1}" for n in range(40))
    assert shown(doubling, "/n0").startswith("Failed: more than 10000 lookups")


def test_ten_thousand_lookups_bind_and_one_more_does_not():
    path = read_path("/a")
    widest = read_dtab("/a=>" + " & ".join(["/$/inet/1"] * (MOST_LOOKUPS - 1)))
    assert len(list(naming.leaves(bind(widest, path)))) == MOST_LOOKUPS - 1
    wider = read_dtab("/a=>" + " & ".join(["/$/inet/1"] * MOST_LOOKUPS))
    assert isinstance(bind(wider, path), Failed)


def test_unions_in_unions_without_end_end_with_a_reason():
    assert shown("/a=>/$/inet/1 & (/$/inet/2 & /a)", "/a").startswith("Failed: bound to unions in unions")
    nested = "/$/inet/1 & (" * 60 + "/$/inet/1 & /$/inet/2" + ")" * 60
    assert show_tree(bind(read_dtab(f"/a=>{nested}"), read_path("/a"))) == nested


def test_deep_trees_at_every_step_need_no_deep_stack():
    deep = "~ | (" * 60 + "/a" + ")" * 60
    assert shown(f"/a=>{deep}", "/a").startswith("Failed: maximum depth")


def test_bound_names_of_the_system_say_what_they_are():
    assert shown("", "/$/inet/10.0.0.1/8080/x") == "/$/inet/10.0.0.1/8080/x"
    assert bind(naming.EMPTY_DTAB, read_path("/$/inet/h/80/x")) == Leaf(
        Bound(read_path("/$/inet/h/80"), read_path("/x"))
    )
    assert bind(naming.EMPTY_DTAB, read_path("/$/fixedinet/80")) == Leaf(Bound(read_path("/$/fixedinet/80")))
    for wrong in ("/$/inet/h/http", "/$/inet/h/65536", "/$/inet", "/$/no.such.Class/x", "/$/io.buoyant.rinet/http/h"):
        assert shown("", wrong).startswith("Failed: "), wrong
    for nobody in ("/$", "/", "/x", "/#/nobody/x", "/$/io.buoyant.rinet/80", "/$/io.buoyant.http.anyMethod"):
        assert shown("", nobody) == "~", nobody


def test_innermost_weight_stands_beside_a_bound_name():
    tree = read_tree("3*(3*/a & 2*/b) & /c")
    assert [(str(path), weight) for path, weight in innermost_weights(tree)] == [("/a", 3), ("/b", 2), ("/c", 1)]


def test_answer_that_is_none_is_refused_when_the_namers_are_made():
    with pytest.raises(naming.NamingError):
        Namers({"/#/x": "/a/path"})


def test_depth_is_counted_along_a_name_and_not_along_the_table():
    wide = ";".join(f"/w{n}=>/$/inet/{n}" for n in range(500))
    all_of_them = " & ".join(f"/w{n}" for n in range(500))
    got = bind(read_dtab(f"{wide};/a=>{all_of_them}"), read_path("/a"))
    assert len(list(naming.leaves(got))) == 500 > NEVER_MORE_THAN
