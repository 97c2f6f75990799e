"""Each row of tests/conformance/controlplane.json is held by tests that exist."""

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = json.loads((HERE.parent / "conformance" / "controlplane.json").read_text())["cases"]


def test_each_row_is_held_by_tests_that_exist():
    written = "".join(path.read_text() for path in HERE.parent.rglob("test_*.py"))
    existing = set(re.findall(r"^(?:async )?def (test_\w+)", written, re.MULTILINE))
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row["proved_by"] and set(row["proved_by"]) <= existing, row["id"]
