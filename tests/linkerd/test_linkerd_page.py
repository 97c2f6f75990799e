"""docs/linkerd.md: its program runs, and its table of what is read names what the reader knows."""

import re
from pathlib import Path

from meshcore.linkerd import identifiers, interpreters, transformers
from meshcore.linkerd.clients import ACCRUALS, BALANCERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "linkerd.md").read_text()


def test_the_program_on_the_page_runs(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "docs/linkerd.md", "exec"), {})
    assert "'http': ('127.0.0.1'" in capsys.readouterr().out


def test_every_kind_that_is_served_stands_on_the_page():
    served = {*identifiers.HTTP, *identifiers.H2, *interpreters.KINDS, *transformers.KINDS, *ACCRUALS} - REFUSED
    for kind in sorted(served) + sorted(BALANCERS):
        short = kind.removeprefix("io.l5d.")
        assert f"`{kind}`" in PAGE or f"`{short}`" in PAGE or f"{kind}`" in PAGE, kind


REFUSED = {
    "io.l5d.ingress", "io.l5d.k8s.istio", "io.l5d.istio", "io.l5d.namerd", "io.l5d.k8s.configMap",
    "io.l5d.consul.interpreter", "io.l5d.replace", "io.l5d.const",
}  # fmt: skip
