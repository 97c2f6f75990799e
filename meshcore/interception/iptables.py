"""The rules as iptables-restore reads them, for IPv4 and IPv6: chains of our own, and one jump into each.

A jump cannot be added once only, nor deleted where it is not: so what is there is looked at first, and given as `present`:
(family, table, chain) of each of our chains, and (family, table, chain, from) of each jump into one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .rules import FAMILIES, TPROXY_MARK, Family, Ports, Rules, Step

INBOUND = "MESHPROXY_INBOUND"
OUTBOUND = "MESHPROXY_OUTBOUND"
Present = frozenset[tuple[str, ...]]

# Each chain of ours: its table, its name, and the chain of the kernel that jumps into it.
CHAINS = (("nat", INBOUND, "PREROUTING"), ("mangle", INBOUND, "PREROUTING"), ("nat", OUTBOUND, "OUTPUT"))


def program(family: Family, suffix: str = "") -> str:
    return ("iptables" if family == "ipv4" else "ip6tables") + suffix


def steps(rules: Rules, present: Present) -> list[Step]:
    """One restore a family: each table in it is put in place as a whole."""
    wanted = [family for family in FAMILIES if family in rules.families or _has(present, family)]
    return [_restore(family, _lines(rules, family, present)) for family in wanted]


def undo_steps(present: Present) -> list[Step]:
    return [_restore(family, _undo_lines(family, present)) for family in FAMILIES if _has(present, family)]


def trial(step: Step) -> Step:
    """The same without its effect."""
    return msgspec.structs.replace(step, command=(*step.command, "--test"))


def _restore(family: Family, lines: Iterator[str]) -> Step:
    # --wait: another program may hold the lock of the tables just now.
    command = (program(family, "-restore"), "--noflush", "--wait")
    return Step(command=command, stdin="".join(f"{line}\n" for line in lines))


def _has(present: Present, family: Family) -> bool:
    return any(entry[0] == family for entry in present)


def _lines(rules: Rules, family: Family, present: Present) -> Iterator[str]:
    inbound = "nat" if rules.mode == "redirect" else "mangle"
    wanted = {(inbound, INBOUND), ("nat", OUTBOUND)} if family in rules.families else set()
    for table in ("nat", "mangle"):
        chains = [(name, origin) for where, name, origin in CHAINS if where == table]
        if not any((table, name) in wanted or (family, table, name) in present for name, _ in chains):
            continue
        yield f"*{table}"
        for name, _ in chains:
            if (table, name) in wanted or (family, table, name) in present:
                yield f":{name} - [0:0]"  # made, or emptied
        for name, origin in chains:
            jumps = (family, table, name, origin) in present
            if (table, name) in wanted:
                rows = _outbound(rules, family) if name == OUTBOUND else _inbound(rules, family)
                yield from (f"-A {name} {row}" for row in rows)
                if not jumps:
                    yield f"-A {origin} -j {name}"
            elif (family, table, name) in present:  # of another mode, applied before
                if jumps:
                    yield f"-D {origin} -j {name}"
                yield f"-X {name}"
        yield "COMMIT"


def _undo_lines(family: Family, present: Present) -> Iterator[str]:
    for table in ("nat", "mangle"):
        chains = [(name, origin) for where, name, origin in CHAINS
                  if where == table and (family, table, name) in present]  # fmt: skip
        if not chains:
            continue
        yield f"*{table}"
        yield from (f":{name} - [0:0]" for name, _ in chains)
        for name, origin in chains:
            if (family, table, name, origin) in present:
                yield f"-D {origin} -j {name}"
            yield f"-X {name}"
        yield "COMMIT"


def _outbound(rules: Rules, family: Family) -> Iterator[str]:
    yield f"-m owner --uid-owner {rules.proxy_uid} -j RETURN"
    yield "-o lo -j RETURN"
    yield from _skipped(rules.skip_outbound_ports, rules.skipped_subnets(family), "-d")
    yield f"-p tcp --syn -j REDIRECT --to-ports {rules.outbound_port}"


def _inbound(rules: Rules, family: Family) -> Iterator[str]:
    # What is on its way through: whoever can send us packets for others must not find a relay here.
    yield "-m addrtype ! --dst-type LOCAL -j RETURN"
    if rules.mode == "tproxy":
        # Only what somebody begins here: answers to what was begun here belong to those who began it.
        yield "-i lo -j RETURN"
        yield "-m conntrack --ctdir REPLY -j RETURN"
    yield from _skipped(rules.skip_inbound_ports, rules.skipped_subnets(family), "-s")
    if rules.mode == "redirect":
        yield f"-p tcp --syn -j REDIRECT --to-ports {rules.inbound_port}"
        return
    yield f"-p tcp -m socket --transparent -j MARK --set-mark {TPROXY_MARK:#x}"
    yield "-p tcp -m socket --transparent -j RETURN"
    yield f"-p tcp --syn -j TPROXY --on-port {rules.inbound_port} --tproxy-mark {TPROXY_MARK:#x}"


def _skipped(ports: tuple[Ports, ...], subnets: tuple[str, ...], side: str) -> Iterator[str]:
    for one in ports:
        yield f"-p tcp --dport {one.text(':')} -j RETURN"
    for subnet in subnets:
        yield f"{side} {subnet} -j RETURN"
