"""`meshproxy dtab`: what a table does with a name, and whether it is sound. Asks no namer: answers are options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path as File
from typing import Any

import click

from meshcore import naming
from meshcore.cli.output import is_plain
from meshcore.errors import ConfigError, Problem

EPILOG = """
\b
Examples:
  meshproxy dtab explain /svc/users --dtab mesh.dtab --namer /#/io.l5d.fs
  meshproxy dtab check mesh.dtab

A table is text (`/svc => /srv ;`) or JSON ([{"prefix": "/svc", "dst": "/srv"}]); - reads it from standard input.
"""

EXPLAIN_EPILOG = """
\b
Examples:
  meshproxy dtab explain /svc/users --dtab mesh.dtab
  meshproxy dtab explain /svc/users --dtab mesh.dtab --namer /#/io.l5d.k8s=3 --namer '/#/io.l5d.consul=~'

\b
What stands after the = is what the namer says of every name: how many elements it takes into the id (1 without a =),
or a tree: ~ for "no such name", $ for "no instances", ! for "stop", or another path.

Exit: 0 when the name is bound, 1 when it is not, 78 when the table cannot be read.
"""

CHECK_EPILOG = """
\b
Finds names that lead back to themselves, and names that multiply beyond what a bind allows.

Exit: 0 when the table is sound, 1 when it has faults, 78 when it cannot be read.
"""


@click.group(epilog=EPILOG)
def dtab() -> None:
    """Explain and check delegation tables (Finagle, Linkerd 1.x)."""


@dtab.command(epilog=EXPLAIN_EPILOG)
@click.argument("path")
@click.option(
    "--dtab", "file", required=True, metavar="FILE", type=click.Path(path_type=File, allow_dash=True), help="The table."
)
@click.option(
    "--namer", "namers", multiple=True, metavar="PREFIX[=ANSWER]", help="What a namer would say. May be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="As Linkerd's /delegator.json has it.")
def explain(path: str, file: File, namers: tuple[str, ...], as_json: bool) -> None:
    """Tell what PATH is bound to, and every alternative on the way."""
    try:
        name = naming.read_path(path)
    except naming.DtabSyntaxError as error:
        raise click.BadParameter(str(error), param_hint="PATH") from None
    table, answers = read(file), naming.Namers([_namer(text) for text in namers])
    explained = naming.explain(table, name, answers)
    bound = naming.bind(table, name, answers)
    if as_json:
        click.echo(json.dumps(naming.delegator_json(explained), indent=2))
    else:
        _print(("NAME", "BY", "RESULT"), list(rows(explained)))
        click.echo(f"\n{name} is {_verdict(bound)}")
    if not isinstance(bound, naming.NameTree) or not naming.evaluate(bound):
        raise SystemExit(1)


@dtab.command(epilog=CHECK_EPILOG)
@click.argument("file", type=click.Path(path_type=File, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def check(file: File, as_json: bool) -> None:
    """Check the table in FILE before it is used."""
    table = read(file)
    faults = naming.check(table)
    if as_json:
        click.echo(json.dumps({"entries": len(table), "faults": [_fault(fault) for fault in faults]}, indent=2))
    elif faults:
        _print(("FAULT", "WHEN", "WHAT"), [(one.kind, _when(one), one.message) for one in faults])
    else:
        click.echo(f"{len(table)} {'entry' if len(table) == 1 else 'entries'}: sound")
    if faults:
        raise SystemExit(1)


def read(file: File) -> naming.Dtab:
    """The table of a file; what is wrong with it is told with its place."""
    source = "<stdin>" if str(file) == "-" else str(file)
    with click.open_file(str(file), encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    try:
        return naming.dtab_from_json(text) if text.lstrip().startswith("[") else naming.read_dtab(text)
    except naming.DtabSyntaxError as error:
        # Within JSON the place is that in one string; the message shows it.
        line, column = (0, 0) if text.lstrip().startswith("[") else (error.line, error.column)
        message = str(error).replace("\n", "\\n")
        raise ConfigError(Problem(message=message, source=source, line=line, column=column)) from None
    except naming.NamingError as error:
        raise ConfigError(Problem(message=str(error), source=source)) from None


def _namer(text: str) -> tuple[naming.Path, Any]:
    """`/#/io.l5d.fs`, `/#/io.l5d.k8s=3`, `/#/io.l5d.consul=~`."""
    prefix, equals, answer = text.partition("=")
    try:
        path = naming.read_path(prefix)
        if not equals or answer.isdecimal():
            return path, naming.binds(path, int(answer or 1))
        return path, naming.read_tree(answer)
    except naming.NamingError as error:
        raise click.BadParameter(f"{text}: {error}", param_hint="--namer") from None


def rows(node: naming.Delegation, depth: int = 0, *, is_reached: bool = True) -> Iterator[tuple[str, ...]]:
    """A row per node: the name, the entry that led to it, what came of it."""
    name = f"{'  ' * depth}{node.path}"
    by = "" if node.dentry is None else naming.show_dentry(node.dentry).replace("=>", " => ", 1)
    result = _result(node)
    yield name, by, result if is_reached else f"({result}: not tried)" if result else "(not tried)"
    for child in node.children:
        yield from rows(child, depth + 1, is_reached=is_reached)
        if node.kind == "alt" and is_reached and not isinstance(naming.outcome(child), naming.Neg):
            is_reached = False


_SIGNS = {
    "neg": "~ no such name",
    "fail": "! fails here",
    "empty": "$ no instances",
    "alt": "the first of",
    "union": "split over",
}


def _result(node: naming.Delegation) -> str:
    if node.bound is not None:
        rest = f", rest {node.bound.residual}" if node.bound.residual else ""
        return f"bound to {node.bound.id}{rest}"
    if node.kind == "union":
        return f"split {' : '.join(f'{weight:g}' for weight in node.weights)}"
    if node.kind == "exception":
        return f"failed: {node.message}"
    return "rewritten by a namer" if node.by_namer else _SIGNS.get(node.kind, "")


def _verdict(bound: naming.BindResult) -> str:
    if isinstance(bound, naming.Failed):
        return f"not bound: {bound.message}"
    if isinstance(bound, naming.Pending):
        return "not bound yet"
    return f"bound to {naming.show_tree(bound)}" if naming.evaluate(bound) else f"not bound: {naming.show_tree(bound)}"


def _when(fault: naming.Fault) -> str:
    return "always" if fault.is_certain else "on fall-back" if fault.kind == "loop" else ""


def _fault(fault: naming.Fault) -> dict[str, Any]:
    steps = [
        {"path": str(one.path), "dentry": naming.show_dentry(one.dentry), "to": str(one.to)} for one in fault.cycle
    ]
    return {"kind": fault.kind, "certain": fault.is_certain, "message": fault.message, "cycle": steps}


def _print(headers: Sequence[str], cells: list[tuple[str, ...]]) -> None:
    """Columns to the left; on a terminal what fails stands out."""
    if is_plain():
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        for row in [tuple(headers), *cells]:
            click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        shown.add_column(header, overflow="fold")
    for row in cells:
        style = "green" if row[-1].startswith("bound") else "red" if row[-1].startswith(("failed", "loop", "!")) else ""
        shown.add_row(*(Text(cell, style=style if index else "") for index, cell in enumerate(row)))
    Console().print(shown)
