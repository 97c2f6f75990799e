"""The shared HTTP/1 catalogue at the level of parser and decoder: what they alone can say about each case.

What needs a connection (timing, half-close, pooled connections) or a route is left to tests/conformance."""

import json
import re
from pathlib import Path

import pytest

from meshcore._fastpath import decode_chunks, edit_request, parse_request, parse_response

ROOT = Path(__file__).resolve().parents[2]
REASON_LINE = re.compile(r"X\((\w+),\s+(\d+), \d")
STATUS = {name: status for name, status in REASON_LINE.findall((ROOT / "meshcore/engine/reasons.pxd").read_text())}
CHUNKED = 2
NEEDS_MORE = {"RL-CONNECT"}             # the route decides
ALSO = {"forward": {"forward", "normalize"}, "incomplete": {"close", "wait", "408", "abort"}}


def octets_of(case: dict) -> bytes:
    return b"".join(text.encode("latin-1") * times for text, times in case.get("raw_parts") or [[case["raw"], 1]])


def cases(side: str):
    for case in json.loads((ROOT / "tests/conformance/http1.json").read_text())["cases"]:
        if case["side"] == side and not {"pace", "when", "rst"} & set(case) and case["id"] not in NEEDS_MORE:
            yield pytest.param(case, id=case["id"])


def body_outcome(data: bytes, head: dict) -> str:
    """What becomes of the message after a good head."""
    rest = data[head["size"]:]
    if head["framing"] == CHUNKED:
        verdict = decode_chunks([rest])[0]
        return "forward" if verdict == "done" else "incomplete" if verdict == "more" else STATUS[verdict]
    return "incomplete" if head["framing"] == 1 and len(rest) < head["content_length"] else "forward"


def is_acceptable(outcome: str, case: dict) -> bool:
    expected = {case["expect"], *case.get("also_ok", [])}
    if outcome[0] in "45" and "reject" in expected:
        return True
    return bool(expected & ALSO.get(outcome, {outcome}))


@pytest.mark.parametrize("case", list(cases("request")))
def test_a_catalogued_request_has_an_acceptable_outcome(case):
    data = octets_of(case)
    verdict, head = parse_request([data])
    outcome = body_outcome(data, head) if verdict == "done" else "incomplete" if verdict == "more" else STATUS[verdict]
    assert is_acceptable(outcome, case), f"{outcome} ({verdict}); {case['why']}"
    if verdict == "done":
        sent = edit_request(data)
        assert b"upgrade: h2c" not in sent.lower() and not re.search(rb"(?i)\r\nl5d-|\r\n[^:\r]*_", sent)
        assert sent.lower().count(b"\r\nhost:") == 1 and b"#" not in sent.split(b"\r\n")[0]


@pytest.mark.parametrize("case", list(cases("response")))
def test_a_catalogued_response_has_an_acceptable_outcome(case):
    data = octets_of(case)
    verdict, head = parse_response([data], None, case.get("request", "GET").encode())
    if verdict == "done":
        outcome = body_outcome(data, head)
        outcome = "abort" if outcome[0] in "45" else outcome
    else:
        outcome = "incomplete" if verdict == "more" else STATUS[verdict]
    assert is_acceptable(outcome, case), f"{outcome} ({verdict}); {case['why']}"
