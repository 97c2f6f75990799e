"""What docs/controlplane.md shows runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "controlplane.md"


def test_the_example_of_the_page_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": str(PAGE.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "web-1" in done.stdout and "Snapshot" in done.stdout
