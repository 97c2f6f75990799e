"""What `meshproxy intercept` writes: the order, the exclusions, and that it can be repeated. Applies nothing."""

from __future__ import annotations

import json
import shlex

import pytest
from click.testing import CliRunner

from meshcore.cli import meshproxy
from meshcore.interception import InterceptError, Rules, apply, applying, plan_of, undo_of
from meshcore.interception.rules import Ports, RulesError

EVERYTHING = Rules(
    skip_inbound_ports=(Ports(22, 22),),
    skip_outbound_ports=(Ports(25, 25), Ports(4567, 4568)),
    skip_subnets=("10.9.0.0/16", "fd09::/16"),
)


def asked(*words: str):
    return CliRunner().invoke(meshproxy, ["intercept", *words], catch_exceptions=True)


def iptables_rules(rules: Rules, program: str = "iptables-restore", present=frozenset()) -> list[str]:
    (step,) = (step for step in plan_of(rules, "iptables", present) if step.command[0] == program)
    return step.stdin.splitlines()


def rules_of(lines: list[str], chain: str) -> list[str]:
    return [line.removeprefix(f"-A {chain} ") for line in lines if line.startswith(f"-A {chain} ")]


def test_outbound_the_first_match_is_the_proxys_user_then_loopback_then_what_is_skipped():
    assert rules_of(iptables_rules(EVERYTHING), "MESHPROXY_OUTBOUND") == [
        "-m owner --uid-owner 2102 -j RETURN",
        "-o lo -j RETURN",
        "-p tcp --dport 25 -j RETURN",
        "-p tcp --dport 4567:4568 -j RETURN",
        "-d 10.9.0.0/16 -j RETURN",
        "-p tcp --syn -j REDIRECT --to-ports 4140",
    ]


def test_inbound_what_is_skipped_comes_before_the_redirect():
    lines = iptables_rules(EVERYTHING)
    assert rules_of(lines, "MESHPROXY_INBOUND") == [
        "-m addrtype ! --dst-type LOCAL -j RETURN",
        "-p tcp --dport 22 -j RETURN",
        "-s 10.9.0.0/16 -j RETURN",
        "-p tcp --syn -j REDIRECT --to-ports 4143",
    ]
    assert rules_of(lines, "PREROUTING") == ["-j MESHPROXY_INBOUND"]
    assert rules_of(lines, "OUTPUT") == ["-j MESHPROXY_OUTBOUND"]


def test_each_family_skips_its_own_networks():
    assert "-s fd09::/16 -j RETURN" in rules_of(iptables_rules(EVERYTHING, "ip6tables-restore"), "MESHPROXY_INBOUND")
    assert not any("10.9" in line for line in iptables_rules(EVERYTHING, "ip6tables-restore"))


def test_nft_has_the_same_order_in_one_transaction():
    (step,) = plan_of(EVERYTHING, "nft")
    lines = [line.strip() for line in step.stdin.splitlines()]
    outbound = lines[lines.index("chain outbound {") + 2 : lines.index("chain inbound {") - 1]
    assert outbound == [
        "meta skuid 2102 return",
        'oifname "lo" return',
        "tcp dport { 25, 4567-4568 } return",
        "ip daddr { 10.9.0.0/16 } return",
        "ip6 daddr { fd09::/16 } return",
        "tcp flags & (fin | syn | rst | ack) == syn redirect to :4140",
    ]
    assert lines[:2] == ["add table inet meshproxy", "delete table inet meshproxy"]
    assert lines[lines.index("chain inbound {") + 2 : -2] == [
        "fib daddr type != local return",
        "tcp dport { 22 } return",
        "ip saddr { 10.9.0.0/16 } return",
        "ip6 saddr { fd09::/16 } return",
        "tcp flags & (fin | syn | rst | ack) == syn redirect to :4143",
    ]


@pytest.mark.parametrize("tool", ["nft", "iptables"])
def test_tproxy_leaves_loopback_and_answers_and_routes_what_it_marks(tool):
    steps = plan_of(Rules(mode="tproxy"), tool)
    text = "".join(step.stdin for step in steps)
    first, second = {"nft": ('iifname "lo"', "ct direction reply"), "iptables": ("-i lo", "--ctdir REPLY")}[tool]
    assert text.index(first) < text.index(second) < text.lower().index("tproxy ip" if tool == "nft" else "-j tproxy")
    routes = [shlex.join(step.command) for step in steps if step.command[0] == "ip" and not step.optional]
    assert routes == [
        "ip -4 rule add fwmark 0x6d63 lookup 28003",
        "ip -4 route replace local 0.0.0.0/0 dev lo table 28003",
        "ip -6 rule add fwmark 0x6d63 lookup 28003",
        "ip -6 route replace local ::/0 dev lo table 28003",
    ]


def present_after(rules: Rules) -> frozenset:
    """What iptables would list after these rules."""
    found = set()
    for family, program in (("ipv4", "iptables-restore"), ("ipv6", "ip6tables-restore")):
        table = ""
        for line in iptables_rules(rules, program):
            words = line.split()
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                found.add((family, table, words[0][1:]))
            elif words[1:2] in (["PREROUTING"], ["OUTPUT"]):
                found.add((family, table, words[3], words[1]))
    return frozenset(found)


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("before", ["redirect", "tproxy"])
def test_applying_again_adds_no_second_jump_and_leaves_no_other_mode(before, mode):
    there = present_after(Rules(mode=before))
    lines = iptables_rules(Rules(mode=mode), present=there)
    jumps = [line for line in lines if line.startswith(("-A PREROUTING", "-A OUTPUT"))]
    assert jumps == ([] if before == mode else ["-A PREROUTING -j MESHPROXY_INBOUND"])
    assert ("-X MESHPROXY_INBOUND" in lines) == (before != mode)
    assert lines.count("-p tcp --syn -j REDIRECT --to-ports 4140") == 0  # always behind its chain
    assert sum(line.endswith("REDIRECT --to-ports 4140") for line in lines) == 1


def test_undoing_names_only_what_is_there():
    assert [step for step in undo_of("iptables", frozenset()) if not step.optional] == []
    for step in undo_of("iptables", present_after(Rules(mode="tproxy"))):
        if not step.optional:
            assert step.stdin.count("-X ") == step.stdin.count("-D ") == 2
            assert "-A" not in step.stdin


def test_one_family_alone_leaves_the_other_be():
    steps = plan_of(Rules(families=("ipv4",)), "iptables")
    assert [step.command[0] for step in steps] == ["iptables-restore"]
    assert "meta nfproto ipv4 tcp flags" in plan_of(Rules(families=("ipv4",)), "nft")[0].stdin


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--proxy-uid", "0"], "root (0) would pass all its processes"),
        (["--inbound-port", "4140"], "cannot be both"),
        (["--inbound-port", "70000"], "ports are 1 to 65535"),
        (["--skip-outbound-ports", "80,http"], "'http' is no port"),
        (["--skip-inbound-ports", "9-1"], "the lower first"),
        (["--skip-subnets", "10.0.0.300/8"], "is no network"),
    ],
)
def test_what_was_asked_for_wrongly_is_told(words, said):
    result = asked(*words)
    assert isinstance(result.exception, RulesError)
    assert said in str(result.exception)


def test_simulate_is_the_default_and_prints_what_a_shell_takes():
    result = asked("--tool", "iptables", "--mode", "tproxy", "--family", "ipv4")
    assert result.exit_code == 0
    assert result.output.startswith("iptables-restore --noflush --wait <<'END'\n*nat\n")
    assert "ip -4 rule del fwmark 0x6d63 lookup 28003 || true\n" in result.output
    assert result.output == asked("--simulate", "--tool", "iptables", "--mode", "tproxy", "--family", "ipv4").output


def test_the_plan_as_json_has_both_directions():
    plan = json.loads(asked("--json", "--tool", "nft", "--skip-subnets", "10.9.0.0/16").output)
    assert plan["tool"] == "nft" and plan["rules"]["skip_subnets"] == ["10.9.0.0/16"]
    assert [step["command"] for step in plan["apply"]] == [["nft", "-f", "-"]]
    assert plan["undo"][0] == {"command": ["nft", "-f", "-"], "optional": False,
                               "stdin": "add table inet meshproxy\ndelete table inet meshproxy\n"}  # fmt: skip


def test_a_tool_that_is_not_here_is_told_with_its_package(monkeypatch):
    monkeypatch.setattr(applying, "SEARCH_PATH", "/nonexistent")
    monkeypatch.setattr(applying, "_check_rights", lambda: None)
    with pytest.raises(InterceptError, match="nft is not here: apt-get install nftables"):
        apply(Rules(), "nft")


def test_without_the_right_to_change_rules_the_way_out_is_told(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("CapEff:\t0000000000000000\n")
    monkeypatch.setattr(applying, "STATUS", status)
    with pytest.raises(InterceptError, match="CAP_NET_ADMIN.*cap-add NET_ADMIN.*simulate"):
        apply(Rules(), "nft")
