"""The control plane, and its client in a sidecar, against mypy, strictly: all Python, and types are how their parts agree."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_control_plane_holds_to_its_types():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary",
         "-p", "controlplane", "-p", "meshcore.agent", "-m", "meshcore.cli.sidecar", "-m", "meshcore.cli.sidecar_life"],
        cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
