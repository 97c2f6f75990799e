"""The rules as nft reads them: one table of ours for both families, put in place or taken away in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .rules import TPROXY_MARK, Ports, Rules, Step

TABLE = "inet meshproxy"

# Adding what may be there, then deleting it, cannot fail: so that applying and undoing can be repeated.
_CLEAR = f"add table {TABLE}\ndelete table {TABLE}\n"


def steps(rules: Rules) -> list[Step]:
    return [Step(command=("nft", "-f", "-"), stdin=_CLEAR + "\n".join(_table(rules)) + "\n")]


def undo_steps() -> list[Step]:
    return [Step(command=("nft", "-f", "-"), stdin=_CLEAR)]


def _table(rules: Rules) -> Iterator[str]:
    yield f"table {TABLE} {{"
    yield "    chain outbound {"
    yield "        type nat hook output priority -100; policy accept;"
    yield from _indented(_outbound(rules))
    yield "    }"
    yield "    chain inbound {"
    hook = "type nat hook prerouting priority dstnat" if rules.mode == "redirect" else _MANGLE
    yield f"        {hook}; policy accept;"
    yield from _indented(_redirected(rules) if rules.mode == "redirect" else _taken(rules))
    yield "    }"
    yield "}"


_MANGLE = "type filter hook prerouting priority mangle"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"        {line}" for line in lines)


def _outbound(rules: Rules) -> Iterator[str]:
    yield f"meta skuid {rules.proxy_uid} return"
    yield 'oifname "lo" return'
    yield from _skipped(rules, rules.skip_outbound_ports, "daddr")
    yield f"{_begun(rules)} redirect to :{rules.outbound_port}"


# What is on its way through: whoever can send us packets for others must not find a relay here.
_PASSING = "fib daddr type != local return"


def _redirected(rules: Rules) -> Iterator[str]:
    yield _PASSING
    yield from _skipped(rules, rules.skip_inbound_ports, "saddr")
    yield f"{_begun(rules)} redirect to :{rules.inbound_port}"


def _taken(rules: Rules) -> Iterator[str]:
    # Only what somebody begins here: answers to what was begun here belong to those who began it.
    yield _PASSING
    yield 'iifname "lo" return'
    yield "ct direction reply return"
    yield from _skipped(rules, rules.skip_inbound_ports, "saddr")
    yield f"meta l4proto tcp socket transparent 1 meta mark set {TPROXY_MARK:#x} return"
    for family in rules.families:
        protocol, version = ("ip", "ipv4") if family == "ipv4" else ("ip6", "ipv6")
        yield (
            f"meta nfproto {version} {_SYN} "
            f"tproxy {protocol} to :{rules.inbound_port} meta mark set {TPROXY_MARK:#x}"
        )


def _skipped(rules: Rules, ports: tuple[Ports, ...], side: str) -> Iterator[str]:
    if ports:
        yield f"tcp dport {{ {', '.join(one.text('-') for one in ports)} }} return"
    for family in rules.families:
        subnets = rules.skipped_subnets(family)
        if subnets:
            yield f"{'ip' if family == 'ipv4' else 'ip6'} {side} {{ {', '.join(subnets)} }} return"


_SYN = "tcp flags & (fin | syn | rst | ack) == syn"


def _begun(rules: Rules) -> str:
    return _SYN if len(rules.families) == 2 else f"meta nfproto {rules.families[0]} {_SYN}"
