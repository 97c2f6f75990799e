"""Every case of dtab.json and dtab_more.json: the language of names as Linkerd 1.x and Finagle have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.dtab_kinds import KINDS

CASES = [case for name in ("dtab.json", "dtab_more.json") for case in json.loads((Path(__file__).parent / name).read_text())["cases"]]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_has_the_outcome_it_has_in_linkerd(case):
    KINDS[case["kind"]](case)


def test_each_kind_has_a_case():
    assert set(KINDS) == {case["kind"] for case in CASES}
