"""Builds the C instruments on demand. Runs none of them: see bench.load and bench.peers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
BUILD = SOURCES.parent / "build"
LIBRARIES = {"lgb": ["-lssl", "-lcrypto"]}


class InstrumentMissing(RuntimeError):
    """No compiler, or the instrument does not compile here."""


def instrument(name: str) -> Path:
    """The path of the compiled program `name`, built when missing or older than any source."""
    binary = BUILD / name
    newest = max(path.stat().st_mtime for path in SOURCES.glob("*.[ch]"))
    if binary.exists() and binary.stat().st_mtime >= newest:
        return binary
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        raise InstrumentMissing("no C compiler: install gcc, or set CC")
    BUILD.mkdir(exist_ok=True)
    unfinished = BUILD / f"{name}.{os.getpid()}"
    command = [compiler, "-O2", "-Wall", "-o", str(unfinished), str(SOURCES / f"{name}.c")]
    command += LIBRARIES.get(name, [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InstrumentMissing(f"{' '.join(command)}:\n{done.stderr}")
    unfinished.replace(binary)  # two runs may build at once; each finds a whole file
    return binary
