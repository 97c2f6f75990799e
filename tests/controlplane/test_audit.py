"""Audit records: one line each, bounded, without secrets."""

import json
import os

import pytest

from controlplane.audit import AuditFile, AuditMemory


def test_a_record_is_one_line_of_json_with_its_time(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl", clock=lambda: 1_700_000_000.25)
    audit.record("model_put", outcome="done", actor="alice", what=["service a/web"], revision=7, nothing=None)
    audit.record("model_put", outcome="denied", actor="mallory\n{}", why="x" * 5000)
    audit.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "time": "2023-11-14T22:13:20.250Z",
        "event": "model_put",
        "outcome": "done",
        "actor": "alice",
        "fields": {"what": ["service a/web"], "revision": 7, "nothing": None},
    }
    assert lines[1]["actor"] == "mallory\n{}" and len(lines[1]["fields"]["why"]) == 1000


@pytest.mark.parametrize(
    "name", ["token", "join_token", "password", "secret", "client_secret", "private_key", "key", "csr"]
)
def test_a_field_that_would_hold_a_secret_is_a_mistake(name):
    with pytest.raises(ValueError, match="secret"):
        AuditMemory().record("x", outcome="done", actor="a", **{name: "hunter2"})


def test_a_rotated_file_is_opened_anew(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    audit.record("one", outcome="done", actor="a")
    os.rename(tmp_path / "audit.jsonl", tmp_path / "audit.1")
    audit.reopen()
    audit.record("two", outcome="done", actor="a")
    audit.close()
    assert "one" in (tmp_path / "audit.1").read_text() and "two" in (tmp_path / "audit.jsonl").read_text()


def test_memory_keeps_the_last_records():
    audit = AuditMemory(most=3)
    for n in range(10):
        audit.record("x", outcome="done", actor=str(n))
    assert [record.actor for record in audit.records] == ["7", "8", "9"]
