"""Explanations: every alternative, in the words of /delegator.json, and cut where they would not end."""

from __future__ import annotations

import json

from meshcore.naming import Failed, Leaf, Namers, Path, binds, delegator_json, explain, outcome, read_dtab, read_path


def told(dtab: str, path: str, namers: Namers | None = None):
    return delegator_json(explain(read_dtab(dtab), read_path(path), namers or Namers()))


def test_signs_of_the_table_are_told_apart_from_names_nobody_knows():
    assert told("/a=>~", "/a/x") == {
        "type": "delegate",
        "path": "/a/x",
        "delegate": {"type": "neg", "path": "~", "dentry": {"prefix": "/a", "dst": "~"}},
    }
    assert told("/a=>!", "/a")["delegate"] == {"type": "fail", "path": "!", "dentry": {"prefix": "/a", "dst": "!"}}
    assert told("/a=>$", "/a")["delegate"] == {"type": "empty", "path": "/a", "dentry": {"prefix": "/a", "dst": "$"}}
    assert told("", "/a") == {"type": "neg", "path": "/a"}
    assert told("", "/$/fail/x") == {"type": "fail", "path": "/$/fail/x"}
    assert told("", "/$/nil/x") == {"type": "empty", "path": "/$/nil/x"}


def test_union_shows_its_weights_exactly():
    shown = told("/a=>0.001*/$/inet/1 & 0.999*/b", "/a")
    assert shown["type"] == "union"
    assert [(one["weight"], one["tree"]["path"]) for one in shown["union"]] == [(0.001, "/$/inet/1"), (0.999, "/b")]
    assert shown["union"][0]["tree"]["dentry"]["dst"] == "0.001*/$/inet/1 & 0.999*/b"


def test_failure_of_a_namer_is_told_at_its_place():
    shown = told("/a=>/#/error | /$/inet/1", "/a/x", Namers({"/#/error": Failed("no route to consul")}))
    assert shown["alt"][0] == {
        "type": "exception",
        "path": "/#/error/x",
        "message": "no route to consul",
        "dentry": {"prefix": "/a", "dst": "/#/error | /$/inet/1"},
    }
    assert shown["alt"][1]["type"] == "leaf"


def test_step_of_a_rewriting_namer_is_kept_here_and_left_out_of_the_json_as_there():
    dtab, path = read_dtab("/svc=>/$/io.buoyant.http.anyMethod;/x=>/$/inet/1"), read_path("/svc/GET/x")
    step = explain(dtab, path).children[0]
    assert (step.kind, step.by_namer, str(step.path)) == ("delegate", True, "/$/io.buoyant.http.anyMethod/GET/x")
    assert step.children[0].path == Path.of("x")
    assert delegator_json(explain(dtab, path))["delegate"]["path"] == "/x"


def test_loop_is_cut_where_it_closes():
    shown = told("/foo/bar=>/bar/foo;/bar/foo=>/foo/bar", "/foo/bar")
    assert shown["delegate"]["delegate"]["message"] == "loop: /foo/bar -> /bar/foo -> /foo/bar"


def test_growing_and_multiplying_tables_are_cut_too():
    assert "maximum depth exceeded" in json.dumps(told("/s=>/s/srv", "/s"))
    doubling = ";".join(f"/n{n}=>/n{n + 1} & /n{n + 1}" for n in range(40))
    assert "not shown" in json.dumps(told(doubling, "/n0"))
    assert "not shown" in json.dumps(told("/a=>/$/inet/1 & (/$/inet/2 | (/$/inet/3 & /a/b))", "/a"))


def test_lone_neg_before_a_namer_shows_both_as_the_bind_has_it():
    dtab, path = read_dtab("/$/inet=>~"), read_path("/$/inet/1")
    shown = explain(dtab, path)
    assert [child.kind for child in shown.children] == ["neg", "leaf"]
    assert isinstance(outcome(shown), Leaf)


def test_pending_is_told_as_pending():
    from meshcore.naming import Pending

    assert told("", "/#/slow/x", Namers({"/#/slow": Pending()}))["message"].startswith("pending")


def test_alternatives_after_the_winner_are_shown():
    shown = told("/a=>/#/fs | /#/fs/other", "/a", Namers({"/#/fs": binds("/#/fs")}))
    assert [one["bound"] for one in shown["alt"]] == [{"id": "/#/fs", "path": "/"}, {"id": "/#/fs", "path": "/other"}]
