"""What importing a module alone loads: each import in a process of its own, forked from an interpreter that has loaded nothing."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A fork costs a tenth of a fresh interpreter, and the house asks for hundreds.
SERVER = """
import json, os, sys, traceback
for line in sys.stdin:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            exec("import " + line)
            answer = {"loaded": sorted(sys.modules), "error": ""}
        except BaseException:
            answer = {"loaded": [], "error": traceback.format_exc()}
        with os.fdopen(write, "w") as out:
            json.dump(answer, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as came:
        answer = came.read()
    os.waitpid(child, 0)
    print(answer or json.dumps({"loaded": [], "error": "the process died"}), flush=True)
"""


class Importer:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def loaded_after(self, modules: str) -> set[str]:
        """The modules that `import MODULES`, in a fresh process, has loaded. They print nothing while they are imported."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(modules + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert not answer["error"], f"import {modules}:\n{answer['error']}"
        return set(answer["loaded"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
