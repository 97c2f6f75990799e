"""The limit of open files: programs raise their own, and what they start keeps what was given."""

import contextlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

GIVEN = 256
MESHCTL = ("-c", "import controlplane.cli; controlplane.cli.main()")


def started(*words, **options):
    """A program whose soft limit is GIVEN, as a shell would have it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (GIVEN, hard)), **options,
    )  # fmt: skip


def limit_of(pid):
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open files"))
    return line.split()[3:5]


@pytest.mark.parametrize("words", [
    ("-m", "meshcore", "proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"),
    (*MESHCTL, "control-plane", "run", "--listen", "127.0.0.1:0", "--trust-domain", "x.test", "--metrics", "", "--data"),
    (*MESHCTL, "namerd", "run", "-c"),
], ids=["meshproxy", "control-plane", "namerd"])
def test_a_program_raises_its_limit_to_the_hard_one(words, tmp_path):
    if words[-1] == "--data":
        words = (*words, str(tmp_path / "plane"))
    elif words[-1] == "-c":
        file = tmp_path / "namerd.yaml"
        file.write_text("storage: {kind: io.l5d.inMemory}\ninterfaces: [{kind: io.l5d.httpController, port: 0}]\n")
        words = (*words, str(file))
    program = started(*words)
    try:
        deadline = time.monotonic() + 30
        while len(set(limit_of(program.pid))) > 1 and program.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert program.poll() is None, program.stdout.read()
        soft, hard = limit_of(program.pid)
        assert soft == hard != str(GIVEN)
    finally:
        program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.communicate(timeout=20)
        program.kill()


def test_what_a_program_starts_gets_the_limit_that_it_was_given_itself():
    code = (
        "import resource, subprocess, sys\n"
        "from meshcore import open_files\n"
        "from meshcore.cli.application import Application\n"
        "import threading\n"
        "ended = threading.Event()\n"
        "assert open_files.take_all() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "shown = 'import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)'\n"
        "Application([sys.executable, '-c', shown], ended.set).start()\n"
        "assert ended.wait(20)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    with started("-c", code) as program:
        out, _ = program.communicate(timeout=40)
    assert out.split() == [str(GIVEN), str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])], out
