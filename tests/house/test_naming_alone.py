"""meshcore.naming stands alone: it knows nothing of the proxy, does no I/O, and is typed throughout."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "meshcore" / "naming").glob("*.py"))
LONGEST_FILE_LINES = 260

# What pure functions of values need; nothing of it opens a file, a socket or a clock.
ALLOWED = {"__future__", "collections.abc", "decimal", "math", "msgspec", "msgspec.structs", "re", "typing"}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_naming_imports_itself_and_what_pure_functions_need(path):
    for level, module in imports(path):
        assert level == 1 or (level == 0 and module in ALLOWED), f"{path.name} imports {'.' * level}{module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_naming_keeps_one_concept_to_a_file(path):
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE_LINES
    assert len(text.partition("\n")[0]) > 60, "line 1 says what the file owns and what it does not"


def test_naming_is_typed_strictly():
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-error-summary",
        "meshcore/naming",
        "meshcore/cli/dtab.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
