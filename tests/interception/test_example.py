"""examples/interception.sh runs as it stands and leaves nothing; examples/sidecar.yaml is a configuration without doubts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import meshcore.config
import pytest

from tests.interception.namespaces import ROOT, program


def test_the_sidecar_of_the_example_is_a_configuration():
    config = meshcore.config.load(ROOT / "examples" / "sidecar.yaml")
    assert meshcore.config.check(config) == []
    assert [one.original_destination for one in config.listeners] == ["redirect"] * 4


def test_the_example_runs_and_leaves_nothing(namespaces_are_possible):
    if program("nft") is None:
        pytest.skip("nft is not here")
    meshproxy = Path(sys.executable).with_name("meshproxy")
    done = subprocess.run(["examples/interception.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "MESHPROXY": str(meshproxy)})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nthe page\n" in done.stdout
    assert done.stdout.count("100.00%") == 2  # what left by one sidecar came in by the other
    # Other tests may have namespaces of other names at this moment.
    left = subprocess.run([str(program("ip")), "netns"], capture_output=True, text=True, check=True).stdout
    assert "mesh-example-client" not in left and "mesh-example-server" not in left
