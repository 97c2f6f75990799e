"""The mesh of three nodes runs as it stands: an edit of a table moves a part of the traffic, seen by a tap, and nothing fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def has_namespaces() -> bool:
    if os.geteuid() != 0:
        return False
    name = f"mesh-example-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, timeout=20).returncode == 0
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return made


@pytest.mark.skipif(not has_namespaces(), reason="needs root and network namespaces")
def test_a_tenth_of_the_traffic_moves_to_the_node_of_the_new_version():
    command = [sys.executable, "examples/per-node/run.py", "--seconds", "8", "--rate", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout and "v2 on node 3" in done.stdout
    assert "cluster=outgoing:/%/io.l5d.port/4141/#/io.l5d.fs/web-v2" in done.stdout
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert "mesh-example-node" not in left and "mesh-example-switch" not in left
