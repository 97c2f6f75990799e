"""Every HTTP/2 case in its feedings: in one piece, octet by octet, cut at random places; siblings in one."""

from __future__ import annotations

import pytest

from tests.conformance.http2 import runner, sibling_cases, upstream_cases
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


@pytest.mark.parametrize("case, feeding", [
    pytest.param(case, feeding, id=f"{case['id']}-{feeding}") for case in runner.CATALOGUE for feeding in runner.feedings_of(case)])
def test_case_has_an_allowed_outcome(conformance, pytestconfig, case, feeding):
    if not conformance.runs(case):
        pytest.skip("this proxy speaks no HTTP/2 to its upstreams")
    seen = conformance.run(case, feeding)
    found = runner.troubles(seen)
    if feeding == "one-shot":
        _signatures[case["id"]] = seen.signature()
    elif runner.is_split_same(case) and seen.signature() != one_shot_signature(conformance, case):
        # keeps SPLIT_SAME
        found.append(f"other than in one piece: {seen.signature()} against {one_shot_signature(conformance, case)}")
    pytestconfig.conformance_score.add(seen, found)
    assert not found, f"{case['id']} ({case['why']}): {seen.label}: " + "; ".join(found)


@pytest.mark.parametrize("case", sibling_cases.CASES, ids=lambda case: case["id"])
def test_sibling_has_an_allowed_outcome(conformance, pytestconfig, case):
    seen = conformance.run(case, "random")
    found = runner.troubles(seen)
    pytestconfig.conformance_score.add(seen, found)
    assert not found, f"{case['id']} ({case['why']}): {seen.label}: " + "; ".join(found)


def test_every_case_has_steps_and_all_steps_a_case():
    ids = [case["id"] for case in runner.CASES]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(runner.STEPS) | set(upstream_cases.SCRIPTS)


def test_claims_name_existing_cases():
    from tests.conformance.http2.verdicts import CLAIMS, MEMORY_BOUNDS

    assert set(CLAIMS) | set(MEMORY_BOUNDS) <= {case["id"] for case in runner.CASES}


def test_every_case_names_its_source():
    assert all(case["source"] and case["why"] and case["steps"] for case in runner.CASES)
