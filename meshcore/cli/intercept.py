"""`meshproxy intercept`: the rules that bring a sidecar's connections to it: shown, applied, undone."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click
import msgspec

from meshcore.interception import Family, InterceptError, Rules, Step, Tool, apply, plan_of, undo, undo_of
from meshcore.interception.applying import choose_tool
from meshcore.interception.iptables import CHAINS
from meshcore.interception.rules import FAMILIES, Ports

EPILOG = """
\b
Examples:
  meshproxy intercept --simulate                        what --apply would do, in the tool's own words
  meshproxy intercept --apply --skip-outbound-ports 3306,9000-9010
  meshproxy intercept --undo                            safe to repeat

The proxy runs as the user of --proxy-uid, and its listeners have `original_destination: redirect` (or tproxy).
Exit: 0 done, 1 it could not be; then nothing is intercepted.
"""

EVERYTHING = frozenset(
    entry for family in FAMILIES for table, name, origin in CHAINS
    for entry in ((family, table, name), (family, table, name, origin))
)  # fmt: skip


@click.command(epilog=EPILOG)
@click.option("--simulate", "action", flag_value="simulate", default=True, help="Print the steps.  [default]")
@click.option("--apply", "action", flag_value="apply", help="Put the rules in place, all or none. Needs CAP_NET_ADMIN.")
@click.option("--undo", "action", flag_value="undo", help="Take away everything that --apply put in place.")
@click.option("--tool", type=click.Choice(["nft", "iptables"]), help="What writes the rules.  [default: what is here]")
@click.option("--mode", type=click.Choice(["redirect", "tproxy"]), default="redirect", show_default=True,
              help="How inbound connections come to the proxy. Outbound ones are always redirected.")  # fmt: skip
@click.option("--inbound-port", default=4143, show_default=True, help="Where the proxy takes inbound connections.")
@click.option("--outbound-port", default=4140, show_default=True, help="Where it takes outbound ones.")
@click.option("--proxy-uid", default=2102, show_default=True, help="The proxy's user: what it sends goes its way.")
@click.option("--skip-inbound-ports", metavar="PORTS", default="", help="Not intercepted: 22,9000-9010")
@click.option("--skip-outbound-ports", metavar="PORTS", default="", help="Not intercepted: 25,3306")
@click.option("--skip-subnets", metavar="NETWORKS", default="", help="Neither to nor from these: 10.9.0.0/16,fd09::/16")
@click.option("--family", type=click.Choice(["both", "ipv4", "ipv6"]), default="both", show_default=True,
              help="Without listeners for it, a family that is intercepted reaches nobody.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The steps as one JSON object, those of --undo among them.")
def intercept(action: str, tool: Tool | None, family: str, as_json: bool, **given: Any) -> None:
    """Intercept a sidecar's connections in this network namespace, or stop doing so."""
    rules = rules_of(family, **given)
    if action == "simulate":
        chosen = tool or _likely_tool()
        click.echo(_json(rules, chosen) if as_json else "\n".join(map(text_of, plan_of(rules, chosen))))
        return
    if action == "apply":
        chosen = tool or choose_tool()
        apply(rules, chosen)
    else:
        undo()
    if as_json:
        click.echo(_json(rules, tool or choose_tool()))
    elif action == "apply":
        click.echo(f"intercepting: inbound to {rules.inbound_port}, outbound to {rules.outbound_port}, "
                   f"but for user {rules.proxy_uid} ({chosen}); undo with: meshproxy intercept --undo")  # fmt: skip
    else:
        click.echo("nothing is intercepted")


def rules_of(family: str, **given: Any) -> Rules:
    families: tuple[Family, ...] = FAMILIES if family == "both" else (family,)  # type: ignore[assignment]
    for name in ("skip_inbound_ports", "skip_outbound_ports"):
        given[name] = tuple(Ports.read(part) for part in _parts(given[name]))
    given["skip_subnets"] = tuple(_parts(given["skip_subnets"]))
    return Rules(families=families, **given)


def text_of(step: Step) -> str:
    """A step as a shell takes it."""
    command = shlex.join(step.command) + (" || true" if step.optional else "")
    return f"{command} <<'END'\n{step.stdin}END" if step.stdin else command


def _likely_tool() -> Tool:
    # Rules can be looked at where neither tool is: on the machine of whoever writes them.
    try:
        return choose_tool()
    except InterceptError:
        return "nft"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _json(rules: Rules, tool: Tool) -> str:
    steps = {"apply": plan_of(rules, tool), "undo": undo_of(tool, EVERYTHING, rules.families)}
    return json.dumps({"tool": tool, "rules": msgspec.to_builtins(rules), **msgspec.to_builtins(steps)}, indent=2)
