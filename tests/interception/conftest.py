"""Fixtures of the interception scenarios: `machines` for a module, `application` and `sidecars` on them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.interception.namespaces import Machines, Namespace, program, why_not
from tests.interception.sidecars import Sidecar


@pytest.fixture(scope="session")
def namespaces_are_possible() -> None:
    reason = why_not() or ("" if program("nft") or program("iptables") else "neither nft nor iptables is here")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def machines(namespaces_are_possible):
    made = Machines()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder():
    """`folder(name)`: a new directory that any user can reach and write to; pytest's own are its user's alone."""
    base = Path(tempfile.mkdtemp(prefix="meshcore-"))
    base.chmod(0o755)

    def make(name: str) -> Path:
        made = Path(tempfile.mkdtemp(prefix=name, dir=base))
        made.chmod(0o777)
        return made

    yield make
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def application(folder):
    """`application(machine, port, *command)`: a server of the scenario, listening."""

    def start(machine: Namespace, port: int, *command: str | Path, uid: int | None = None, cwd: Path | None = None) -> None:
        if isinstance(command[0], str) and program(command[0]) is None:
            pytest.skip(f"{command[0]} is not here: tools/setup.sh test")
        log = folder("application") / "log"
        started = machine.start(*command, log=log, uid=uid, **({"cwd": cwd} if cwd else {}))
        machine.until_listening(port, started, log)

    return start


@pytest.fixture(scope="module")
def peer(application):
    """`peer(machine, name, *ports)`: one of tests.interception.peers."""

    def start(machine: Namespace, name: str, *ports: int) -> None:
        application(machine, ports[-1], sys.executable, "-m", "tests.interception.peers", name, *map(str, ports))

    return start


@pytest.fixture(scope="module")
def ask():
    """`ask(machine, name, *words)`: what a client of tests.interception.peers prints."""

    def run(machine: Namespace, *words: str | int, check: bool = True) -> str:
        from tests.interception.namespaces import ROOT

        return machine.run(sys.executable, "-m", "tests.interception.peers", *map(str, words), cwd=ROOT, check=check)

    return run


@pytest.fixture(scope="module")
def sidecar(folder):
    """`sidecar(machine, …)`: a running Sidecar; its rules go with its machine."""

    def start(machine: Namespace, **options) -> Sidecar:
        return Sidecar(machine, folder("sidecar"), **options)

    return start
