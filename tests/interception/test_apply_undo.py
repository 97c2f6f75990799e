"""Applying and undoing rules in a namespace: repeated, with either tool, after a failure; and what was there before stays."""

from __future__ import annotations

import os
import sys

import pytest

from tests.interception.namespaces import ROOT, Namespace, program

OWN = "-A OUTPUT -p tcp -m tcp --dport 9 -j RETURN"


@pytest.fixture
def machine(namespaces_are_possible):
    one = Namespace(f"mc{os.getpid()}rules")
    yield one
    one.close()


@pytest.fixture
def intercept(machine):
    def run(*words: str, check: bool = True, uid: int | None = None) -> str:
        return machine.run(sys.executable, "-m", "meshcore", "intercept", *words, check=check, cwd=ROOT, uid=uid)

    return run


@pytest.fixture(params=["nft", "iptables"])
def tool(request):
    if program(request.param) is None:
        pytest.skip(f"{request.param} is not here")
    return request.param


def state(machine) -> list[str]:
    """Everything the network of this machine does with packets, but for empty tables and counters."""
    lines = machine.run("ip", "rule").splitlines() + machine.run("ip", "-6", "rule", check=False).splitlines()
    lines += machine.run("ip", "route", "show", "table", "all").splitlines()
    for name in ("iptables-save", "ip6tables-save"):
        if program(name):
            lines += [line for line in machine.run(name).splitlines() if line.startswith(("-", ":MESH"))]
    if program("nft"):
        lines += [line.strip() for line in machine.run("nft", "list", "ruleset").splitlines()
                  if "redirect" in line or "tproxy" in line or "meshproxy" in line]  # fmt: skip
    return lines


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_undo_leaves_everything_as_it_was_however_often_it_was_applied(mode, tool, machine, intercept):
    if program("iptables"):
        machine.run("iptables", "-t", "nat", *OWN.split())
    before = state(machine)
    intercept("--apply", "--tool", tool, "--mode", mode)
    applied = state(machine)
    assert applied != before
    intercept("--apply", "--tool", tool, "--mode", mode)
    assert state(machine) == applied
    assert "nothing is intercepted" in intercept("--undo")
    assert state(machine) == before
    intercept("--undo")
    assert state(machine) == before


def test_the_last_applied_is_all_that_is_there(machine, intercept):
    if not (program("nft") and program("iptables")):
        pytest.skip("needs both tools")
    intercept("--apply", "--tool", "iptables", "--mode", "tproxy")
    intercept("--apply", "--tool", "nft", "--outbound-port", "5140", "--family", "ipv4")
    alone = state(machine)
    intercept("--undo")
    intercept("--apply", "--tool", "nft", "--outbound-port", "5140", "--family", "ipv4")
    assert state(machine) == alone
    assert any("5140" in line for line in alone) and not any("MESHPROXY" in line for line in alone)


def test_when_one_step_fails_nothing_is_left(tool, machine, intercept):
    machine.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
    before = state(machine)
    said = intercept("--apply", "--tool", tool, "--mode", "tproxy", check=False)
    assert "ip -6 route" in said and "nothing is intercepted now" in said
    assert state(machine) == before


def test_who_may_not_change_rules_is_told_the_way_out(intercept):
    said = intercept("--apply", check=False, uid=65534)
    assert "CAP_NET_ADMIN" in said and "--cap-add NET_ADMIN" in said
