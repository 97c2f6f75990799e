"""Faults of tables, found without binding anything."""

from __future__ import annotations

import pytest
from meshcore.naming import Failed, bind, check, read_dtab, read_path


def faults(text: str) -> list[str]:
    return [f"{fault.kind}{'!' if fault.is_certain else ''} {fault.message}" for fault in check(read_dtab(text))]


SOUND = [
    "",
    "/a=>/b;/b=>/c;/c=>/$/inet/1",
    "/zk#=>/$/com.twitter.serverset;/zk=>/zk#;/s##=>/zk/zk.local:2181;/s#=>/s##/prod;/s=>/s#;/s#=>/s##/staging",
    "/ph=>/$/io.buoyant.rinet;/svc=>/ph/80;/svc=>/$/io.buoyant.porthostPfx/ph",
    "/srv=>/io.l5d.w00t;/host=>/srv;/svc=>/host;/host/poop=>/srv/woop",
    "/a/x=>/a",  # takes the path apart, to its end
    "/a/*/*=>/a/b",  # the same, with wildcards
    "/a/b=>/c;/c=>/a",  # comes back to /a, and the b is gone
    "/a=>/a;/a=>!",  # never reached
    "/a=>/a;/a=>/b | $",
    "/a=>/b/1/1/1/1;/b/1=>/b;/b/end=>/a",
]


@pytest.mark.parametrize("text", SOUND)
def test_sound_table_has_no_fault(text):
    assert faults(text) == []


LOOPS = [
    ("/s=>/s/srv", "loop! loop that grows: /s/srv/… -> /s/srv/srv/… (by /s=>/s/srv)"),
    ("/a=>/a", "loop! loop: /a/… -> /a/… (by /a=>/a)"),
    (
        "/foo/bar=>/bar/foo;/bar/foo=>/foo/bar",
        "loop! loop: /foo/bar/… -> /bar/foo/… -> /foo/bar/… (by /foo/bar=>/bar/foo; /bar/foo=>/foo/bar)",
    ),
    ("/=>/x", "loop! loop that grows: /x/… -> /x/x/… (by /=>/x)"),
    ("/=>/$/inet/1", "loop! loop that grows: /$/inet/1/… -> /$/inet/1/$/inet/1/… (by /=>/$/inet/1)"),
    ("/a=>/b | /a", "loop loop, when what is tried before it is ~: /a/… -> /a/… (by /a=>/b | /a)"),
    ("/a=>/a;/a=>/b", "loop loop, when what is tried before it is ~: /a/… -> /a/… (by /a=>/a)"),
    ("/a/*=>/b;/b=>/a/1", "loop! loop: /a/1/… -> /b/… -> /a/1/… (by /a/*=>/b; /b=>/a/1)"),
    (
        "/a=>/b/1/1/1/1;/b/1=>/b;/b=>/a",
        "loop! loop that grows: /a/… -> /b/1/1/1/1/… -> /a/1/1/1/1/… (by /a=>/b/1/1/1/1; /b=>/a)",
    ),
    ("/b/1=>/b;/b/2=>/b/1/2", "loop! loop: /b/1/2/… -> /b/2/… -> /b/1/2/… (by /b/1=>/b; /b/2=>/b/1/2)"),
    ("/a/x=>/b/x & /c;/b=>/a", "loop! loop: /b/x/… -> /a/x/… -> /b/x/… (by /b=>/a; /a/x=>/b/x & /c)"),
]


@pytest.mark.parametrize(("text", "told"), LOOPS)
def test_loop_is_told_with_its_cycle(text, told):
    assert told in faults(text)


@pytest.mark.parametrize("text", [text for text, told in LOOPS if told.startswith("loop!")])
def test_certain_loop_fails_each_bind_that_comes_to_it(text):
    for fault in check(read_dtab(text)):
        if "&" not in text:
            assert isinstance(bind(read_dtab(text), fault.cycle[0].path), Failed)


def test_each_loop_is_told_once():
    kinds = [fault.kind for fault in check(read_dtab("/a=>/b;/b=>/c;/c=>/a;/x=>/y;/y=>/x"))]
    assert kinds == ["loop", "loop"]


def test_multiplying_table_is_found_before_it_is_used():
    doubling = ";".join(f"/n{n}=>/n{n + 1} & /n{n + 1}" for n in range(40))
    (fault,) = check(read_dtab(doubling))
    assert fault.kind == "exponential"
    assert "/n0/… -> /n1/…" in fault.message


def test_table_that_multiplies_with_the_length_of_the_path_is_found():
    (fault,) = check(read_dtab("/a/*=>/b & /b;/b/*=>/a & /a"))
    assert fault.kind == "exponential"
    assert isinstance(bind(read_dtab("/a/*=>/b & /b;/b/*=>/a & /a"), read_path("/a" + "/x" * 16)), Failed)


def test_small_multiplication_is_no_fault():
    assert faults(";".join(f"/n{n}=>/n{n + 1} & /n{n + 1}" for n in range(8))) == []


def test_table_too_large_to_follow_is_said_to_be_unchecked():
    wide = ";".join(f"/n{n}=>" + " | ".join(f"/n{m}" for m in range(n + 1, 700)) for n in range(699))
    assert [fault.kind for fault in check(read_dtab(wide))] == ["unchecked"]


def test_loop_beside_a_wild_one_is_found_too():
    found = check(read_dtab("/w=>/w/1 & /w/2 & /w/3;/a=>/w | /b;/b=>/a"))
    assert {fault.cycle[-1].dentry.prefix.elems[0] for fault in found} >= {b"w"}
    assert any("/a=>/w | /b" in fault.message for fault in found)
