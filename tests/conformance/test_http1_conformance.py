"""Every case of http1.json in three feedings: in one piece, octet by octet, cut at random places."""

from __future__ import annotations

import pytest

from tests.conformance import rules, runner
from tests.conftest import SEED

_signatures: dict[str, tuple] = {}


@pytest.fixture(scope="module")
def conformance():
    running = runner.Runner(SEED)
    yield running
    running.stop()


def one_shot_signature(conformance, case) -> tuple:
    if case["id"] not in _signatures:
        _signatures[case["id"]] = conformance.run(case, "one-shot").signature()
    return _signatures[case["id"]]


@pytest.mark.parametrize("feeding", runner.FEEDINGS)
@pytest.mark.parametrize("case", runner.CASES, ids=[case["id"] for case in runner.CASES])
def test_case_has_an_allowed_outcome(conformance, pytestconfig, case, feeding):
    seen = conformance.run(case, feeding)
    found = runner.troubles(seen)
    if feeding == "one-shot":
        _signatures[case["id"]] = seen.signature()
    elif seen.signature() != one_shot_signature(conformance, case) and not runner.is_paced(case):
        # keeps SPLIT_SAME
        found.append(f"other than in one piece: {seen.signature()} against {one_shot_signature(conformance, case)}")
    pytestconfig.conformance_score.add(seen, found)
    assert not found, f"{case['id']} ({case['why']}): " + "; ".join(found)


@pytest.mark.parametrize("case", [c for c in runner.CASES if "forbid" in c or "forwarded" in c], ids=lambda c: c["id"])
def test_prose_of_a_case_has_a_machine_version(case):
    assert rules.has_machine_version(case), f"{case.get('forbid')!r} / {case.get('forwarded')!r} is checked nowhere"


def test_claims_name_existing_cases():
    ids = {case["id"] for case in runner.CASES}
    assert not set(rules.CLAIMS) - ids
