"""Every reason of the engine has its exception, and an exception knows whose fault it was."""

import re
from pathlib import Path

import pytest

import meshcore
from meshcore import errors

TABLE = re.findall(
    r'^\s+X\((\w+),\s*(\d+), (\d), "([^"]*)"\)',
    (Path(meshcore.__file__).parent / "engine" / "reasons.pxd").read_text(),
    re.MULTILINE,
)


def test_the_table_of_reasons_is_found():
    assert len(TABLE) > 40


@pytest.mark.parametrize(("name", "status", "fault", "text"), TABLE, ids=[row[0] for row in TABLE])
def test_a_reason_becomes_an_exception_with_the_right_fault(name, status, fault, text):
    error = errors.error_for_reason(name, int(fault), text, endpoint="10.0.0.1:80")
    assert isinstance(error, errors.MeshError)
    assert error.source == ("internal", "downstream", "internal", "upstream")[int(fault)]
    assert (error.reason, str(error), error.values) == (name.lower(), text, {"endpoint": "10.0.0.1:80"})
    # A client that broke the protocol or a server that answered is no reason to send a request again.
    assert not (error.retryable and error.source == "downstream")


def test_reasons_named_in_the_table_exist():
    names = {row[0] for row in TABLE}
    assert names >= errors._PROTOCOL
    assert names >= errors._UNSENT


@pytest.mark.parametrize(
    ("reason", "fault", "kind", "retryable"),
    [
        ("BAD_HOST", 1, errors.ProtocolError, False),
        ("UPSTREAM_MALFORMED", 3, errors.ProtocolError, False),
        ("HEAD_TIMEOUT", 1, errors.DeadlineExceeded, False),
        ("UPSTREAM_CONNECT_TIMEOUT", 3, errors.DeadlineExceeded, True),
        ("UPSTREAM_CONNECT_FAILED", 3, errors.UpstreamError, True),
        ("UPSTREAM_RESET", 3, errors.UpstreamError, False),
        ("BODY_TOO_LARGE", 1, errors.DownstreamError, False),
        ("LOAD_SHED", 2, errors.EngineError, True),
        ("FILTER_ERROR", 2, errors.EngineError, False),
    ],
)
def test_the_class_follows_from_the_reason(reason, fault, kind, retryable):
    error = errors.error_for_reason(reason, fault, "x")
    assert (type(error), error.retryable) == (kind, retryable)


def test_every_error_is_a_mesh_error():
    for name in errors.__all__:
        if name.endswith("Error") or name == "DeadlineExceeded":
            assert issubclass(getattr(errors, name), errors.MeshError)
