"""`meshproxy dtab`, from the command line to the exit code."""

from __future__ import annotations

import json

import pytest
from meshcore.cli import EXIT_CONFIG, main

TABLE = """\
# production
/srv => /#/io.l5d.fs ;
/svc => /srv ;
/svc/canary => 0.999*/srv/web & 0.001*/srv/web-v2 | ! ;
"""


@pytest.fixture
def dtab(capfd, tmp_path):
    """Runs `meshproxy dtab …` on a table of this text; gives (exit code, stdout, stderr)."""

    def run(command, text, *arguments):
        file = tmp_path / "table"
        file.write_text(text)
        words = (
            ["explain", *arguments, "--dtab", str(file)] if command == "explain" else ["check", str(file), *arguments]
        )
        with pytest.raises(SystemExit) as ended:
            main(["dtab", *words])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


def test_explain_shows_each_step_and_what_wins(dtab):
    code, out, _ = dtab("explain", TABLE, "/svc/canary/x", "--namer", "/#/io.l5d.fs")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [
        "/#/io.l5d.fs/web-v2/x",
        "/srv",
        "=>",
        "/#/io.l5d.fs",
        "bound",
        "to",
        "/#/io.l5d.fs/web-v2,",
        "rest",
        "/x",
    ] in lines
    assert any(line[:1] == ["/srv/canary/x"] and line[-2:] == ["(not", "tried)"] for line in lines)
    assert out.splitlines()[-1] == "/svc/canary/x is bound to 0.999*/#/io.l5d.fs/web/x & 0.001*/#/io.l5d.fs/web-v2/x"


def test_explain_takes_the_answers_of_namers(dtab):
    for answer, code, said in [
        ("=1", 0, "is bound to /#/io.l5d.fs/web"),
        ("=~", 1, "is not bound: ~"),
        ("=$", 1, "is not bound: $"),
        ("=2", 1, "is not bound: ~"),
        ("=/srv", 1, "maximum depth exceeded"),
    ]:
        got, out, _ = dtab("explain", TABLE, "/svc/web", "--namer", f"/#/io.l5d.fs{answer}")
        assert (got, said in out.splitlines()[-1]) == (code, True), answer


def test_explain_speaks_json_as_linkerd_does(dtab):
    code, out, _ = dtab("explain", TABLE, "/svc/web", "--json")
    assert code == 1
    assert json.loads(out)["delegate"]["delegate"] == {
        "type": "neg",
        "path": "/#/io.l5d.fs/web",
        "dentry": {"prefix": "/srv", "dst": "/#/io.l5d.fs"},
    }


def test_check_passes_a_sound_table_and_tells_each_fault_of_another(dtab):
    assert dtab("check", TABLE) == (0, "3 entries: sound\n", "")
    code, out, _ = dtab("check", "/a=>/b;/b=>/a")
    assert code == 1
    assert out.splitlines()[1].split()[:3] == ["loop", "always", "loop:"]
    code, out, _ = dtab("check", "/a=>/b;/b=>/a", "--json")
    (fault,) = json.loads(out)["faults"]
    assert (code, fault["certain"], [step["to"] for step in fault["cycle"]]) == (1, True, ["/b", "/a"])


def test_table_may_be_json(dtab):
    text = '[{"prefix": "/a", "dst": "0.001*/b & /c"}]'
    assert dtab("check", text) == (0, "1 entry: sound\n", "")
    code, _, err = dtab("check", '[{"prefix": "/a", "dst": "b"}]')
    assert (code, "simple expected but 'b' found at '[b]'" in err) == (EXIT_CONFIG, True)


def test_mistakes_are_told_with_their_place(dtab, tmp_path):
    code, _, err = dtab("check", "/a => /b ;\n/c => ?")
    assert code == EXIT_CONFIG
    assert err.startswith(f"meshproxy: {tmp_path / 'table'}:2:7: simple expected but '?'")
    assert dtab("explain", TABLE, "svc")[0] == 2
    code, _, err = dtab("explain", TABLE, "/svc", "--namer", "x=1")
    assert (code, "--namer" in err) == (2, True)
