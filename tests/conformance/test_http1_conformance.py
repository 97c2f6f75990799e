"""Every case of http1.json in three feedings: in one piece, octet by octet, cut at random places; its siblings in one."""

from __future__ import annotations

import pytest

from tests.conformance import rules, runner
from tests.conformance.claims import differences
from tests.conftest import SEED
from tests.scenario.wire import Message

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
@pytest.mark.parametrize("case", runner.CATALOGUE, ids=[case["id"] for case in runner.CATALOGUE])
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


@pytest.mark.parametrize("case", runner.SIBLINGS, ids=[case["id"] for case in runner.SIBLINGS])
def test_sibling_has_an_allowed_outcome(conformance, pytestconfig, case):
    seen = conformance.run(case, "random")
    found = runner.troubles(seen)
    pytestconfig.conformance_score.add(seen, found)
    assert not found, f"{case['id']} ({case['why']}): " + "; ".join(found)


def test_every_sibling_has_a_name_of_its_own_and_a_source():
    ids = [case["id"] for case in runner.CASES]
    assert len(ids) == len(set(ids))
    assert all(case["source"] and case["why"] for case in runner.SIBLINGS)


def test_a_claim_that_does_not_hold_is_told():
    request = Message(b"", [(b"host", b"a.test"), (b"traceparent", b"x")], method=b"GET", target=b"/b", body=b"hell", complete=True)
    due = {"method": "PUT", "target": "/a", "body": "hello", "trailers": [["x", "y"]], "fields": {"host": []}}
    assert len(differences("upstream", request, due)) == len(due)
    assert differences("upstream", request, {"method": "GET", "fields": {"host": ["a.test"], "via": []}}) == []


@pytest.mark.parametrize("case", [c for c in runner.CASES if "forbid" in c or "forwarded" in c], ids=lambda c: c["id"])
def test_prose_of_a_case_has_a_machine_version(case):
    assert rules.has_machine_version(case), f"{case.get('forbid')!r} / {case.get('forwarded')!r} is checked nowhere"


def test_claims_name_existing_cases():
    ids = {case["id"] for case in runner.CASES}
    assert not set(rules.CLAIMS) - ids
