"""Carrying out steps: what they need is looked for first, and when one fails, nothing of ours is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import MeshError
from . import iptables
from .rules import FAMILIES, Rules, Step, Tool, plan_of, routing_undo, undo_of

# Daemons' tools live in sbin, which is not on every user's PATH.
SEARCH_PATH = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
STEP_SECONDS = 30  # each asks the kernel once; iptables may wait for another who holds its lock
CAP_NET_ADMIN = 12
STATUS = Path("/proc/self/status")
TOOLS: tuple[Tool, ...] = ("nft", "iptables")  # nft first: one transaction for all

_NEEDS: dict[Tool, tuple[str, ...]] = {"nft": ("nft",), "iptables": ("iptables", "iptables-restore", "iptables-save")}
_PACKAGES = {"nft": "nftables", "ip": "iproute2"}


class InterceptError(MeshError):
    """Rules could not be applied or undone."""


def missing(tool: Tool) -> list[str]:
    """Programs of a tool that are not there."""
    return [name for name in _NEEDS[tool] if shutil.which(name, path=SEARCH_PATH) is None]


def choose_tool() -> Tool:
    for tool in TOOLS:
        if not missing(tool):
            return tool
    raise InterceptError("neither nft nor iptables is here; install one: apt-get install nftables")


def apply(rules: Rules, tool: Tool) -> None:
    """Put the rules in place, in the place of any that were. All or nothing. Raises InterceptError."""
    _check_rights()
    _check_programs(tool, rules.mode == "tproxy")
    steps = plan_of(rules, tool, _present(tool))
    if tool == "iptables":  # several transactions: all are tried before the first is made
        run(iptables.trial(step) for step in steps if step.stdin)
    try:
        run([*(routing_undo() if rules.mode == "redirect" else ()), *steps])
    except InterceptError as error:
        undo()
        raise InterceptError(f"{error}\nnothing is intercepted now") from None
    for other in TOOLS:
        if other != tool and not missing(other):
            # What was applied with the other tool before; routes are those of the rules in place.
            run(step for step in undo_of(other, _present(other)) if step.command[0] != "ip")


def undo() -> None:
    """Take away everything of ours, whichever tool put it there. Safe to repeat. Raises InterceptError."""
    _check_rights()
    if all(missing(tool) for tool in TOOLS):
        raise InterceptError("neither nft nor iptables is here to undo with; install one: apt-get install nftables")
    for tool in TOOLS:
        if not missing(tool):
            run(undo_of(tool, _present(tool)))


def run(steps: Iterable[Step]) -> None:
    for step in steps:
        done = _execute(step.command, step.stdin)
        if done.returncode and not step.optional:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
            raise InterceptError(f"{' '.join(step.command)}: {said[0]}{_way_out(done.stderr)}")


def _execute(command: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0], path=SEARCH_PATH)
    if program is None:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not here")
    # The language of messages must not matter, and nobody is there to be asked anything.
    try:
        return subprocess.run([program, *command[1:]], input=stdin, capture_output=True, text=True,
                              timeout=STEP_SECONDS, env={**os.environ, "LC_ALL": "C"}, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {STEP_SECONDS} s")


def _present(tool: Tool) -> iptables.Present:
    """Our chains and the jumps into them, of both families."""
    found: set[tuple[str, ...]] = set()
    if tool != "iptables":
        return frozenset()
    for family in FAMILIES:
        for table, name, origin in iptables.CHAINS:
            # -S names exactly what is there; a table or family the kernel does not have holds nothing of ours.
            said = _execute((iptables.program(family), "-w", "-t", table, "-S")).stdout.splitlines()
            if f"-N {name}" in said:
                found.add((family, table, name))
            if f"-A {origin} -j {name}" in said:
                found.add((family, table, name, origin))
    return frozenset(found)


def _check_rights() -> None:
    for line in STATUS.read_text().splitlines():
        if line.startswith("CapEff:") and not int(line.split()[1], 16) >> CAP_NET_ADMIN & 1:
            raise InterceptError(
                "changing the rules of this network namespace needs CAP_NET_ADMIN: run as root, or in a container with "
                "`--cap-add NET_ADMIN`; `--simulate` needs nothing"
            )


def _check_programs(tool: Tool, wants_routes: bool) -> None:
    gone = missing(tool)
    if wants_routes and shutil.which("ip", path=SEARCH_PATH) is None:
        gone.append("ip")
    if gone:
        other = "iptables" if tool == "nft" else "nft"
        choice = f", or use --tool {other}" if gone[0] != "ip" and not missing(other) else ""  # type: ignore[arg-type]
        raise InterceptError(f"{gone[0]} is not here: apt-get install {_PACKAGES.get(gone[0], 'iptables')}{choice}")


def _way_out(stderr: str) -> str:
    if "No chain/target/match" in stderr or "does not exist" in stderr or "Operation not supported" in stderr:
        return "\nthe kernel lacks what this rule needs: load its modules (nf_nat, xt_TPROXY, xt_socket), or use another mode"
    return ""
