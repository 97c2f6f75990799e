"""docs/naming.md: its programs run, and print what they say they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "naming.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.split("\n")[2][:30])
def test_program_of_the_page_prints_what_it_says(program, capsys):
    exec(program, {})
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"^# (.+)$", program, re.MULTILINE) + re.findall(
        r"print\(.*\) +# (.+)$", program, re.MULTILINE
    )
    assert promised
    assert printed == promised


def test_grammar_of_the_page_names_each_class_below_the_system_namer():
    from meshcore.naming.rewriters import REWRITERS

    for name in REWRITERS:
        assert name.decode().rpartition(".")[2] in PAGE
